#!/usr/bin/env bash
# bitsandbytes 0.50.2 (CPU): "fp4" is not the FP4 of MXFP4 and NVFP4 (E2M1).
#
# Expected: the values of E2M1 over 6, so that a matrix of E2M1 values times a scale survives.
# Seen: seven of eight magnitudes agree; in place of .5/6 = .0833 there is .0052, a sixteenth of it.
#   A matrix that E2M1 holds exactly comes back with an error of 94 % where it has a .5, and normal
#   weights have 16 % more error (root mean square) than with E2M1 and the same scales.
# So a checkpoint in MXFP4 or NVFP4 cannot be converted to "fp4" without loss, and what was measured
# for one 4-bit float says nothing of the other.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 bitsandbytes==0.50.2 numpy==2.4.6
"$room/venv/bin/python" - <<'PY'
import logging
logging.disable()
import torch
from bitsandbytes.functional import dequantize_4bit, quantize_4bit

E2M1 = torch.tensor([0, .5, 1, 1.5, 2, 3, 4, 6])

def rounded(x, kind='fp4'):
    "x after bitsandbytes's rounding in blocks of 64."
    return dequantize_4bit(*quantize_4bit(x, blocksize=64, quant_type=kind)).view_as(x)

def rounded_e2m1(x):
    "x rounded to the nearest E2M1 value, each block of 64 scaled to its maximum."
    blocks = x.view(-1, 64)
    scale = blocks.abs().amax(1, keepdim=True) / 6
    nearest = ((blocks/scale).abs()[..., None] - E2M1).abs().argmin(-1)
    return (E2M1[nearest] * blocks.sign() * scale).view_as(x)

exact = torch.cat([E2M1, -E2M1]).repeat(4)
back = rounded(exact)
print('E2M1', E2M1.tolist(), '\ncomes back as', [round(v, 4) for v in back[:8].tolist()])
assert torch.equal(rounded_e2m1(exact), exact)
wrong = ~torch.isclose(back, exact)
assert (exact[wrong].abs() == .5).all() and wrong.sum() == 8
assert torch.allclose(back[1], torch.tensor(1/32))

normal = torch.randn(1 << 18, generator=torch.Generator().manual_seed(0))
theirs, e2m1 = ((f(normal) - normal).square().mean().sqrt() for f in (rounded, rounded_e2m1))
print(f'error of normal weights: fp4 {theirs:.4f}, E2M1 {e2m1:.4f}, ratio {theirs/e2m1:.3f}')
assert theirs > 1.1 * e2m1
PY
