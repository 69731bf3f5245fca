#!/usr/bin/env bash
# torchao 0.18.0 and optimum-quanto 0.2.7 in transformers 5.23.0: get_memory_footprint() of a model
# in 2 to 8 bits is that of the model in bfloat16.
#
# Expected: half for 8 bits, a quarter for 4, as for bitsandbytes.
# Seen: 2,886,272 bytes before and after int8, float8 and 2-bit weights of torchao; with quanto's
#   4 bits it even grows by 60. The quantized tensors give themselves out as bfloat16, and the
#   footprint counts elements times 2. num_parameters and element_size do the same.
#   And IntxWeightOnlyConfig in 2 bits saves not a byte over 4 or 8 bits: one weight a byte.
# To compare sizes, look at the state dict's file.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 torchao==0.18.0 optimum-quanto==0.2.7
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY' 2>/dev/null
import io, torch
from optimum import quanto
from torchao.quantization import (Float8WeightOnlyConfig, Int8WeightOnlyConfig, IntxWeightOnlyConfig,
                                  PerGroup, quantize_)
from transformers import LlamaConfig, LlamaForCausalLM

def tiny():
    "An untied Llama in bfloat16: 90 % of its weights are in linear layers."
    torch.manual_seed(0)
    config = LlamaConfig(hidden_size=256, intermediate_size=512, num_hidden_layers=2, vocab_size=512,
                         num_attention_heads=4, num_key_value_heads=2, tie_word_embeddings=False)
    return LlamaForCausalLM(config).bfloat16()

def file_bytes(model):
    "The size of the state dict, saved."
    file = io.BytesIO()
    torch.save(model.state_dict(), file)
    return file.tell()

def intx(bits): return IntxWeightOnlyConfig(weight_dtype=getattr(torch, f'int{bits}'), granularity=PerGroup(32))

configs = {'int8': Int8WeightOnlyConfig(), 'float8': Float8WeightOnlyConfig(),
           'intx 2': intx(2), 'intx 4': intx(4), 'intx 8': intx(8)}
plain = tiny()
before, files = plain.get_memory_footprint(), {'bfloat16': file_bytes(plain)}
print(f'bfloat16: footprint {before}, file {files["bfloat16"]}')
for name, config in configs.items():
    model = tiny()
    quantize_(model, config)
    files[name] = file_bytes(model)
    print(f'{name}: footprint {model.get_memory_footprint()}, file {files[name]}')
    assert model.get_memory_footprint() == before and files[name] < .65 * files['bfloat16']
assert abs(files['intx 2'] - files['intx 8']) < 200

model = tiny()
quanto.quantize(model, weights=quanto.qint4)
quanto.freeze(model)
print(f'quanto 4: footprint {model.get_memory_footprint()}, file {file_bytes(model)}')
assert before <= model.get_memory_footprint() < before + 1000
assert file_bytes(model) < .4 * files['bfloat16']
PY
