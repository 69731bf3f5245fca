#!/usr/bin/env bash
# mlx 0.32.4 (CPU) reads float8 of safetensors 0.8.0 as integers: 1.0 becomes 56, and -0.5 becomes 176.
#
# Expected: mx.load raises, since mlx has no float8 and its message for E5M2 says so.
# Seen: E4M3 and E8M0 tensors are returned as uint8, the bytes as numbers, without a word; E5M2 and
#   F4 raise ("unsupported dtype"). A matrix product with such a weight runs.
# Weights and scales of FP8, MXFP8 and NVFP4 checkpoints are of these two types.
# mx.from_fp8 gives the values back for E4M3.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 safetensors==0.8.0 numpy==2.4.6 mlx==0.32.4 mlx-cpu==0.32.4
cd "$room"
"$room/venv/bin/python" - <<'PY'
import mlx.core as mx, torch
from safetensors.torch import save_file

def read(dtype):
    "What mlx reads of four values that are exact in this type."
    save_file({'w': torch.tensor([[1., 2., -.5, 4.]]).to(dtype)}, 'w.safetensors')
    return mx.load('w.safetensors')['w']

weight = read(torch.float8_e4m3fn)
print(weight)
assert weight.dtype == mx.uint8 and weight.tolist() == [[56, 64, 176, 72]]
assert read(torch.float8_e8m0fnu).tolist() == [[127, 128, 126, 129]]
assert (mx.ones((1, 4)) @ weight.T).item() == 368            # and not 6.5
assert mx.from_fp8(weight, mx.float32).tolist() == [[1, 2, -.5, 4]]
try: read(torch.float8_e5m2)
except RuntimeError as e: print(e)
else: raise SystemExit('E5M2 is read now')
PY
