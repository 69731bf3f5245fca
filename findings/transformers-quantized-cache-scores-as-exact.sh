#!/usr/bin/env bash
# transformers 5.23.0, hqq 0.2.8.post1: a 2-bit KV cache costs nothing if you score a text at once.
#
# Expected: the logits of a text change with a cache of 2 bits, as QuantizedCache rounds keys and
#   values when they enter (its 128 unrounded tokens do not shield a prompt).
# Seen: in the first forward attention is given the unrounded keys and values: the logits are equal
#   to the bit to those without quantization, at any width, though what is stored has been rounded.
#   The same text in two calls has a KL divergence of 1.7 nats, at 8 bits .002 (random model).
# Perplexity and most harnesses use one forward, and so report every cache format as free.
# Feed the text in chunks.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 hqq==0.2.8.post1
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import torch
from transformers import LlamaConfig, LlamaForCausalLM
from transformers.cache_utils import QuantizedCache

torch.manual_seed(0)
config = LlamaConfig(hidden_size=128, intermediate_size=256, num_hidden_layers=4, vocab_size=500,
                     num_attention_heads=4, num_key_value_heads=2, initializer_range=.2)
model = LlamaForCausalLM(config).eval()
text = torch.randint(500, (1, 512))

@torch.no_grad()
def logits(calls, bits=None):
    "The logits of the text, fed in so many calls with one cache."
    cache = bits and QuantizedCache('hqq', config, nbits=bits)
    return torch.cat([model(part, past_key_values=cache, use_cache=True).logits
                      for part in text.chunk(calls, 1)], 1)

@torch.no_grad()
def divergence(calls, bits):
    "KL divergence in nats per token from the model without a quantized cache."
    p, q = logits(1).log_softmax(-1), logits(calls, bits).log_softmax(-1)
    return (p.exp() * (p - q)).sum(-1).mean().item()

for bits in (2, 4, 8):
    assert torch.equal(logits(1, bits), logits(1))
    print(f'{bits} bits: KL {divergence(1, bits):.1e} in one call, {divergence(2, bits):.1e} in two')
assert divergence(2, 2) > 100 * divergence(2, 8) > 0
PY
