#!/usr/bin/env bash
# compressed-tensors 0.20.0 in transformers 5.23.0: all experts are read with one width.
#
# Expected: with experts of layer 0 in 8 bits and those of layer 1 in 4, each layer is unpacked by
#   its own group, as dense layers are, or loading raises.
# Seen: no error, no missing or unexpected key, but every expert of every layer is unpacked by the
#   first group with "experts" in its pattern. The layer of the other width has an error of 100 % and more.
#   With one width for both layers the same code reads the file right.
# A mixed-precision mixture in this format must keep its experts in one width, or go elsewhere.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 compressed-tensors==0.20.0 accelerate==1.15.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import json, pathlib, re, torch
from compressed_tensors.compressors.pack_quantized.helpers import pack_to_int32
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

torch.manual_seed(0)
Qwen3MoeForCausalLM(Qwen3MoeConfig(hidden_size=64, moe_intermediate_size=64, num_experts=4,
    num_experts_per_tok=2, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
    head_dim=32, vocab_size=64)).save_pretrained('m')
folder, file = pathlib.Path('m'), 'm/model.safetensors'
config, plain = json.loads((folder/'config.json').read_text()), load_file(file)

def packed(weight, bits, group=32):
    "A matrix in symmetric integers, as the format stores it."
    blocks = weight.view(len(weight), -1, group)
    scale = blocks.abs().amax(-1, keepdim=True) / (2**(bits - 1) - 1)
    whole = (blocks / scale).round().view_as(weight).to(torch.int8)
    return {'weight_packed': pack_to_int32(whole, bits), 'weight_scale': scale.squeeze(-1),
            'weight_shape': torch.tensor(weight.shape)}

def error(*widths):
    "The relative error of each layer's down projections, its experts in these bits."
    tensors = {}
    for name, weight in plain.items():
        layer = re.search(r'layers\.(\d)\.mlp\.experts', name)
        if not layer: tensors[name] = weight
        else: tensors |= {name.replace('weight', part): t
                          for part, t in packed(weight, widths[int(layer[1])]).items()}
    save_file(tensors, file, metadata={'format': 'pt'})
    groups = {f'group_{i}': dict(targets=[rf're:.*layers\.{i}\.mlp\.experts.*'], format='pack-quantized',
                                 weights=dict(num_bits=bits, type='int', symmetric=True, strategy='group', group_size=32))
              for i, bits in enumerate(widths)}
    ignore = ['lm_head', 're:.*self_attn.*', 're:.*mlp.gate$']
    about = dict(quant_method='compressed-tensors', format='pack-quantized', config_groups=groups,
                 ignore=ignore, quantization_status='compressed')
    (folder/'config.json').write_text(json.dumps(config | dict(quantization_config=about)))
    model, report = AutoModelForCausalLM.from_pretrained('m', output_loading_info=True)
    assert not report['missing_keys'] and not report['unexpected_keys'] and not report['mismatched_keys']
    with torch.no_grad(): model(torch.arange(8)[None])
    found = []
    for i in range(2):
        right = torch.stack([plain[f'model.layers.{i}.mlp.experts.{e}.down_proj.weight'] for e in range(4)])
        read = model.model.layers[i].mlp.experts.down_proj.data.float()
        found.append(((read - right).norm() / right.norm()).item())
    return found

seen = {widths: error(*widths) for widths in ((8, 8), (4, 4), (8, 4), (4, 8))}
for widths, errors in seen.items(): print(widths, 'bits: errors', [round(e, 3) for e in errors])
assert max(seen[8, 8]) < .01 and max(seen[4, 4]) < .15
assert seen[8, 4][0] < .01 and seen[8, 4][1] > .9
assert seen[4, 8][0] < .15 and seen[4, 8][1] > .9
PY
