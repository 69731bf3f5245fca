#!/usr/bin/env bash
# compressed-tensors 0.20.0, transformers 5.23.0, torch 2.13.0: cast a decompressed model to bfloat16, and
# its buffers say float32 and hold bfloat16's numbers.
#
# Expected: `model.to(torch.bfloat16)` changes dtype and values together, of parameters and of buffers; or
#           it leaves both, as transformers' own loading leaves rotary frequencies in float32.
# Seen:     parameters become bfloat16. Buffers keep the dtype float32, and their values are rounded to 8 bits.
# Rotary frequencies are off by up to 0.4 %, which turns tokens 2,000 apart by several degrees, and a check
# of dtypes finds nothing. The model's tensors live in containers of compressed-tensors' offloading, which
# copy what is assigned to a buffer into the buffer that is there.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 compressed-tensors==0.20.0 accelerate==1.15.0
ROOM=$room "$room/venv/bin/python" - <<'PY'
import json, os
from pathlib import Path
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

folder = Path(os.environ['ROOM'])/'model'
torch.manual_seed(0)
config = LlamaConfig(vocab_size=64, hidden_size=64, intermediate_size=128, num_hidden_layers=1,
                     num_attention_heads=1, num_key_value_heads=1, head_dim=64)
LlamaForCausalLM(config).save_pretrained(folder)
written = json.loads((folder/'config.json').read_text())
written['quantization_config'] = dict(quant_method='compressed-tensors', config_groups={})
(folder/'config.json').write_text(json.dumps(written))

model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
model.hf_quantizer.compressor.decompress_model(model)
weight, rotary = model.model.layers[0].mlp.up_proj, model.model.rotary_emb
exact = rotary.inv_freq.clone()
model.to(torch.bfloat16)
off = (rotary.inv_freq / exact - 1).abs().max().item()
print('weight:', weight.weight.dtype)
print('inv_freq:', rotary.inv_freq.dtype, f'off by up to {off:.4f}')
assert weight.weight.dtype == torch.bfloat16
assert rotary.inv_freq.dtype == torch.float32
assert torch.equal(rotary.inv_freq, exact.bfloat16().float()) and off > .001
PY
