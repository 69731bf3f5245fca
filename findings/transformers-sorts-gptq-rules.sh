#!/usr/bin/env bash
# transformers 5.23.0: saving a config sorts the rules of a GPTQ checkpoint, where the first match wins.
#
# Expected: a config that is loaded and saved again says the same.
# Seen: the keys of `dynamic` come back in alphabetical order. Both GPTQModel and vLLM take the
#   first rule that matches a layer, so block 1's down_proj changes from 8 bits to 3, and block 2's
#   q_proj from "not quantized" to 8, though the weights are still packed the old way.
# Write the rules after the last save, or so that no two of them match one layer.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import json, pathlib, re
from transformers import AutoConfig, LlamaConfig

rules = {r'+:model\.layers\.1\.mlp\.down_proj': {'bits': 8}, r'+:.*down_proj': {'bits': 3},
         r'-:model\.layers\.2\.': {}, r'+:.*q_proj': {'bits': 8}}
file = pathlib.Path('m/config.json')
LlamaConfig(num_hidden_layers=4).save_pretrained('m')
about = dict(quant_method='gptq', bits=4, group_size=128, desc_act=False, sym=True, dynamic=rules)
file.write_text(json.dumps(json.loads(file.read_text()) | dict(quantization_config=about)))

def rule_of(layer):
    "The first rule in the file that matches the layer's name."
    dynamic = json.loads(file.read_text())['quantization_config']['dynamic']
    return next(key + ' ' + str(value.get('bits', 'not quantized'))
                for key, value in dynamic.items() if re.match(key[2:], layer))

layers = 'model.layers.1.mlp.down_proj', 'model.layers.2.self_attn.q_proj'
before = [rule_of(layer) for layer in layers]
AutoConfig.from_pretrained('m').save_pretrained('m')
after = [rule_of(layer) for layer in layers]
print('before', before, '\nafter ', after)
assert [b.split()[-1] for b in before] == ['8', 'quantized']
assert [a.split()[-1] for a in after] == ['3', '8']
PY
