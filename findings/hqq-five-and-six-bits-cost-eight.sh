#!/usr/bin/env bash
# hqq 0.2.8.post1: 5 and 6 bits take 8, and 3 bits take 3.2.
#
# Expected: a layer's weights take the bits that were asked, as in GGUF, mlx and compressed-tensors.
# Seen: 5 and 6 bits are kept one a byte: the bytes of 8 bits at four times (6 bits) and eight times
#   (5 bits) the error, without a word. Ten weights of 3 bits share a 32-bit word.
# A budget in bits per weight that mixes 5- and 6-bit layers is overrun by up to half: price by
# W_q.nbytes. No recipe for hqq should hold 5 or 6 bits.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 hqq==0.2.8.post1
"$room/venv/bin/python" - <<'PY'
import torch
from hqq.core.quantize import BaseQuantizeConfig, HQQLinear

torch.manual_seed(0)
layer = torch.nn.Linear(640, 640, bias=False)
weight = layer.weight.data.clone()

def stored(bits):
    "Bits per weight that hqq keeps (without scales) and the weights' relative error."
    packed = HQQLinear(layer, BaseQuantizeConfig(nbits=bits, group_size=64), del_orig=False,
                       compute_dtype=torch.float32, device='cpu')
    error = (packed.dequantize() - weight).norm() / weight.norm()
    return 8 * packed.W_q.nbytes / weight.numel(), error.item()

seen = {bits: stored(bits) for bits in (8, 6, 5, 4, 3, 2, 1)}
for bits, (cost, error) in seen.items(): print(f'{bits} bits: {cost:.2f} stored, error {error:.4f}')
assert seen[5][0] == seen[6][0] == seen[8][0] == 8
assert seen[5][1] > 1.8 * seen[6][1] > 6 * seen[8][1]
assert [seen[b][0] for b in (4, 2, 1)] == [4, 2, 1] and abs(seen[3][0] - 3.2) < .01
PY
