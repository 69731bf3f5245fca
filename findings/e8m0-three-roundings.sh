#!/usr/bin/env bash
# torch 2.13.0, ml_dtypes 0.6.0, onnx 1.23.2: the same number as an MX scale (E8M0) is 2 or 4, and
# -2 is 2 or NaN.
#
# Expected: one conversion, to the nearest power of two, and an error or NaN for what E8M0 lacks.
# Seen:   value          1.5   2.5    3     5     0        -2
#         torch           2     2     4     4    2^-127     2
#         ml_dtypes       2     2     4     4    NaN       NaN
#         onnx, default   2     4     4     8    2^-127     2
#   (onnx: the reference evaluator's Cast, whose round_mode is "up" if nothing is said.)
# A block of zeros has the scale 0: NaN in ml_dtypes makes the whole block NaN. A scale rounded up
# in one library and to nearest in another is wrong by a factor of 2 for the block.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 numpy==2.4.6 ml_dtypes==0.6.0 onnx==1.23.2
"$room/venv/bin/python" - <<'PY'
import ml_dtypes, numpy as np, torch
from onnx import TensorProto, helper
from onnx.reference import ReferenceEvaluator

values = np.array([1.5, 2.5, 3, 5, 0, -2], np.float32)

def by_onnx(**attributes):
    "The bytes of a Cast to E8M0."
    cast = helper.make_node('Cast', ['x'], ['y'], to=TensorProto.FLOAT8E8M0, **attributes)
    x = helper.make_tensor_value_info('x', TensorProto.FLOAT, [len(values)])
    y = helper.make_tensor_value_info('y', TensorProto.FLOAT8E8M0, [len(values)])
    graph = helper.make_graph([cast], 'cast', [x], [y])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid('', 24)])
    return ReferenceEvaluator(model).run(None, {'x': values})[0].view(np.uint8).tolist()

seen = {'torch': torch.tensor(values).to(torch.float8_e8m0fnu).view(torch.uint8).tolist(),
        'ml_dtypes': values.astype(ml_dtypes.float8_e8m0fnu).view(np.uint8).tolist(),
        'onnx': by_onnx(), 'onnx, nearest': by_onnx(round_mode='nearest')}
for name, bytes_ in seen.items(): print(f'{name:14}', bytes_)       # the exponent plus 127; 255 is NaN
assert seen['torch'] == [128, 128, 129, 129, 0, 128]
assert seen['ml_dtypes'] == [128, 128, 129, 129, 255, 255]
assert seen['onnx'] == [128, 129, 129, 130, 0, 128]
assert seen['onnx, nearest'] == seen['torch']
PY
