#!/usr/bin/env bash
# transformers 5.23.0, hqq 0.2.8.post1: one token more doubles the error of the quantized KV cache.
#
# Expected: the rounding error of the cached keys does not depend on how long the prompt is.
# Seen: 3 heads of 64 channels, each channel with its own mean (as keys have), 4 bits: the error
#   of 512 tokens is .047 of the keys' norm, and that of 513 is .094. By default
#   (axis 0) a group of 64 strides over the whole cache: it holds one channel if heads times tokens
#   is a multiple of 64, and else a mixture of channels. Generation regroups every 128 tokens, so
#   the error sits at whichever remainder the prompt had.
# Measure a cache format at several lengths that are no multiples of 64.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 hqq==0.2.8.post1
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import torch
from transformers import LlamaConfig
from transformers.cache_utils import QuantizedCache

heads, channels = 3, 64
config = LlamaConfig(hidden_size=576, num_attention_heads=9, num_key_value_heads=heads, num_hidden_layers=1)
torch.manual_seed(0)
mean = 5 * torch.randn(1, heads, 1, channels)
keys = mean + torch.randn(1, heads, 640, channels)

def error(tokens):
    "The keys' error after the cache, relative to their norm."
    cache = QuantizedCache('hqq', config, nbits=4)
    layer = cache.layers[0]
    given = keys[:, :, :tokens]
    cache.update(given, given, 0)
    stored = layer._dequantize(layer._quantized_keys)
    assert stored.shape == given.shape
    return ((stored - given).norm() / given.norm()).item()

seen = {n: error(n) for n in (448, 511, 512, 513, 576, 600, 640)}
for n, e in seen.items(): print(n, 'tokens:', round(e, 4))
even, odd = ([e for n, e in seen.items() if (n % 64 == 0) == side] for side in (True, False))
assert max(even) < .6 * min(odd)
PY
