#!/usr/bin/env bash
# mlx 0.32.4 (CPU) reads a GGUF of gguf 0.19.0: MXFP4 tensors are missing without a word.
#
# Expected: mx.load raises for a type that it does not know, as it does for Q5_0.
# Seen: Q5_0 and Q5_1 raise ("gguf_tensor_to_f16 failed"); a tensor in MXFP4 or TQ2_0 is left out
#   of the returned dictionary, and the others are there. BF16 comes back as float16, so that a
#   weight of 1e5 is infinite and one of 1e-8 is 0.
# A mixture with its experts in MXFP4, as GPT-OSS is shipped, would lose just the experts.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile mlx==0.32.4 mlx-cpu==0.32.4 numpy==2.4.6 gguf==0.19.0
cd "$room"
"$room/venv/bin/python" - <<'PY'
import gguf, mlx.core as mx, numpy as np
from gguf import GGMLQuantizationType as Type, quants

def read(kind, values):
    "Write values in F32 and in this type with gguf, and read the file with mlx."
    writer = gguf.GGUFWriter('model.gguf', 'llama')
    writer.add_tensor('plain', values)
    writer.add_tensor('packed', quants.quantize(values, kind), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    names = {t.name for t in gguf.GGUFReader('model.gguf').tensors}
    assert names == {'plain', 'packed'}
    return mx.load('model.gguf')

weights = np.random.default_rng(0).standard_normal((8, 256)).astype(np.float32)
for kind in (Type.Q4_0, Type.Q8_0, Type.MXFP4, Type.TQ2_0, Type.Q5_0, Type.Q5_1):
    try: seen = sorted(read(kind, weights))
    except RuntimeError as e: seen = str(e)
    print(kind.name, seen)
    if kind in (Type.MXFP4, Type.TQ2_0): assert seen == ['plain']
    elif kind in (Type.Q5_0, Type.Q5_1): assert 'failed' in seen
    else: assert 'packed' in seen

wide = read(Type.BF16, np.full((1, 32), 1e5, np.float32))['packed']
narrow = read(Type.BF16, np.full((1, 32), 1e-8, np.float32))['packed']
print('BF16', wide.dtype, wide[0, 0].item(), narrow[0, 0].item())
assert wide.dtype == mx.float16 and np.isinf(np.array(wide)).all() and (np.array(narrow) == 0).all()
PY
