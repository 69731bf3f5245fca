import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

ROOT = Path(__file__).parent.parent


def run(*args, cwd=None, timeout=600, **env):
    "Run a command as a user would; what it printed and its status."
    e = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | env   # nbdev does nothing where IN_TEST is set
    return subprocess.run([str(a) for a in args], cwd=cwd, env=e, capture_output=True, text=True, timeout=timeout)


def mpq(*args, **kw): return run(Path(sys.executable).parent/'mpq', *args, **kw)


# What takes minutes begins first, so that at the end no process waits for another.
LONGEST = ('test_cli', 'test_serving', 'test_browser', '04_verification', 'serve.ipynb', 'test_lm_eval', '[refinement', '[sensitivity', '[index', '[evaluation', 'test_study', 'quickstart')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda i: next((k for k, n in enumerate(LONGEST) if n in i.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A file's tests share what they make, so one process runs them; notebooks go wherever there is room."
    from xdist.scheduler import LoadScopeScheduling
    config.option.loadscopereorder = False
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid):
            if '02_cluster' in nodeid: return 'test_study.py'       # two Ray clusters at once get in each other's way
            return nodeid if 'test_notebook_runs' in nodeid else nodeid.partition('::')[0]
    return ByFile(config, log)


def tiny_checkpoint(folder, tokenizer, **config):
    "A tiny random model with a real tokenizer, in a folder."
    from mpq_nb.models import tiny_model
    tiny_model(vocab_size=len(tokenizer), **config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


def tiny_tokenizer(bos=True, extra=0):
    "A tokenizer of bytes: 4 special tokens, 256 bytes and one merge of two; `extra` special tokens more lie behind a vocabulary of 261."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast
    t = Tokenizer(models.BPE(tiny_vocabulary(), [('a', 'b')], unk_token='<unk>'))
    t.pre_tokenizer, t.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    if bos: t.post_processor = processors.TemplateProcessing(single='<s> $A', special_tokens=[('<s>', 1)])
    tok = PreTrainedTokenizerFast(tokenizer_object=t, bos_token='<s>' if bos else None, eos_token='</s>', unk_token='<unk>', pad_token='<pad>')
    if extra: tok.add_special_tokens({'additional_special_tokens': [f'<extra_{i}>' for i in range(extra)]})
    return tok


def tiny_vocabulary():
    from tokenizers import pre_tokenizers
    return {t: i for i, t in enumerate(['<pad>', '<s>', '</s>', '<unk>', *sorted(pre_tokenizers.ByteLevel.alphabet()), 'ab'])}


GGUF_NAMES = {'gemma3_text': 'gemma3'}   # {transformers' name of an architecture: llama.cpp's}, where they differ


def write_gguf(path, model, settings=(), tensors=(), types=()):
    """Write a tiny model as a GGUF file by gguf-py alone: `settings` of the architecture, `tensors` and the `types`
    {name: (bytes, GGML type)} of some come on top of what every file has."""
    from gguf import GGUFWriter
    from transformers.modeling_gguf_pytorch_utils import TENSOR_PROCESSORS, TensorProcessor, get_gguf_hf_weights_map
    c = model.config
    arch = GGUF_NAMES.get(c.model_type, c.model_type)
    names = get_gguf_hf_weights_map(model, TENSOR_PROCESSORS.get(arch, TensorProcessor)(config=c.to_dict()))
    w = GGUFWriter(path, arch)
    w.add_context_length(c.max_position_embeddings); w.add_block_count(c.num_hidden_layers)
    w.add_embedding_length(c.hidden_size); w.add_feed_forward_length(c.intermediate_size)
    w.add_head_count(c.num_attention_heads); w.add_head_count_kv(c.num_key_value_heads)
    w.add_key_length(c.head_dim); w.add_value_length(c.head_dim)
    w.add_layer_norm_rms_eps(c.rms_norm_eps); w.add_rope_dimension_count(c.head_dim); w.add_rope_freq_base(1e4)
    if getattr(c, 'sliding_window', None): w.add_sliding_window(c.sliding_window)
    for k, v in dict(settings).items():
        add = w.add_string if isinstance(v, str) else w.add_float32 if isinstance(v, float) else w.add_uint32
        w.kv_data[0].pop(f'{arch}.{k}', None)
        add(f'{arch}.{k}', v)
    vocab = tiny_vocabulary()
    w.add_tokenizer_model('gpt2'); w.add_tokenizer_pre('default'); w.add_token_list(list(vocab)); w.add_token_merges(['a b'])
    w.add_token_types([3]*4 + [1]*(len(vocab) - 4)); w.add_bos_token_id(1); w.add_eos_token_id(2); w.add_unk_token_id(3); w.add_pad_token_id(0)
    state = model.state_dict()
    for name, there in sorted(names.items()):
        if name in dict(types) or there == 'lm_head.weight' and c.tie_word_embeddings: continue
        w.add_tensor(name, _as_gguf(arch, name, state[there].float().numpy(), c))
    for name, (raw, kind) in dict(types).items(): w.add_tensor(name, raw, raw_dtype=kind)
    for name, x in dict(tensors).items(): w.add_tensor(name, np.asarray(x, np.float32))
    w.write_header_to_file(); w.write_kv_data_to_file(); w.write_tensors_to_file(); w.close()


def _as_gguf(arch, name, x, c):
    "A tensor as llama.cpp keeps it: Llama's rotated halves interleaved, Gemma's norms with one added."
    if arch.startswith('gemma') and name.endswith('norm.weight'): return x + 1
    if arch == 'llama' and ('attn_q.' in name or 'attn_k.' in name):
        heads = c.num_attention_heads if 'attn_q.' in name else c.num_key_value_heads
        return x.reshape(heads, 2, len(x)//heads//2, *x.shape[1:]).swapaxes(1, 2).reshape(x.shape)
    return x


@pytest.fixture(scope='session')
def demo():
    "The demo model and its tokenizer."
    from mpq_nb.models import demo_model
    return demo_model()


@pytest.fixture(scope='session')
def data():
    "A folder that mirrors hub names, from the environment."
    d = os.environ.get('MPQ_DATA')
    if not d: pytest.skip('no benchmark data: set MPQ_DATA to a folder that mirrors hub names')
    return d
