"""The logits by vLLM: python ask_vllm.py FOLDER TOKENS.json OUT, or a line a cell.

vLLM gives out probabilities as Python objects, one a token of the vocabulary; the logits are noted where it
makes them, which takes the engine in this process."""
import json
import os
import sys
from pathlib import Path

from forks import serve

os.environ.update(VLLM_ENABLE_V1_MULTIPROCESSING='0', VLLM_CPU_KVCACHE_SPACE='1', VLLM_NO_USAGE_STATS='1')


def ask(folder, tokens, out):
    "Load a checkpoint by vLLM, and write the logits of all tokens but the last two."
    ids = json.loads(Path(tokens).read_text())[:-1]      # it makes one more, which has to fit as well
    llm = LLM(model=folder, skip_tokenizer_init=True, enforce_eager=True, max_model_len=len(ids) + 1,
              max_num_batched_tokens=max(1024, len(ids) + 1), max_num_seqs=1)
    print('LOADED', llm.llm_engine.model_config.dtype, flush=True)
    noted, forward = [], LogitsProcessor.forward

    def noting(self, *args, **kw):
        logits = forward(self, *args, **kw)
        noted.append(logits.float().cpu())
        return logits

    LogitsProcessor.forward = noting
    asked = SamplingParams(max_tokens=1, temperature=0, prompt_logprobs=1, detokenize=False)
    llm.generate(dict(prompt_token_ids=ids), asked)
    save_file(dict(logits=max(noted, key=len).contiguous()), out)


if __name__ == '__main__':
    from safetensors.torch import save_file
    from vllm import LLM, SamplingParams
    from vllm.model_executor.layers.logits_processor import LogitsProcessor
    ask(*sys.argv[1:]) if sys.argv[1:] else serve(ask)
