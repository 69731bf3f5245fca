#!/usr/bin/env bash
# lm-eval 0.4.13: with one use_cache path, every later model gets the scores of the first one.
#
# Expected: cached answers are kept by model, as the option is a path "for caching model responses".
# Seen: the key is the request alone. A second model, with other weights, is not run: its
#   log-likelihood is the first one's to the bit, and nothing is logged as a mismatch.
# A comparison of quantized models with --use_cache shows that quantization costs nothing at any
# width. Give every model a path of its own.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 lm_eval==0.4.13 accelerate==1.15.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY' 2>/dev/null
import torch
from lm_eval.evaluator import simple_evaluate
from lm_eval.api.task import ConfigurableTask
from lm_eval.models.huggingface import HFLM
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = '<unk> <s> the cat sat on a mat dog ran'.split()
core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unk>'))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token='<unk>',
                                    bos_token='<s>', eos_token='<s>')

def model(bits=None):
    "A small model, its linear layers rounded to so many bits."
    torch.manual_seed(0)
    m = LlamaForCausalLM(LlamaConfig(hidden_size=32, intermediate_size=64, num_hidden_layers=2,
                         num_attention_heads=2, vocab_size=len(words), initializer_range=.5))
    for layer in m.modules() if bits else []:
        if isinstance(layer, torch.nn.Linear):
            step = layer.weight.data.abs().max() / (2**(bits - 1) - .5)
            layer.weight.data = (layer.weight.data / step).round() * step
    return HFLM(pretrained=m.eval(), tokenizer=tokenizer, batch_size=1)

from datasets import Dataset
rows = Dataset.from_dict({'text': ['the cat sat on a mat', 'a dog ran']})
class Task(ConfigurableTask):
    def download(self, *args, **kwargs): self.dataset = {'test': rows}

def nll(bits, cache):
    "Bits per byte that lm-eval reports."
    task = Task(config=dict(task='two', test_split='test', output_type='loglikelihood_rolling',
                            doc_to_text='', doc_to_target='{{text}}',
                            metric_list=[dict(metric='bits_per_byte')]))
    out = simple_evaluate(model(bits), tasks=[task], use_cache=cache, bootstrap_iters=0)
    return out['results']['two']['bits_per_byte,none']

apart = [nll(bits, None) for bits in (None, 4, 2)]
shared = [nll(bits, 'answers') for bits in (None, 4, 2)]
print('bits per byte of 32, 4 and 2 bits, no cache', apart)
print('the same with one cache                    ', shared)
assert len(set(apart)) == 3
assert shared == [apart[0]] * 3
PY
