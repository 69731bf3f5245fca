#!/usr/bin/env bash
# transformers 5.23.0: the number in an expert's name does not say where it goes.
#
# Expected: a file of a mixture that lacks expert 3 and has an expert 12 (of 0 to 11) does not load,
#   or expert 3 is reported as missing and 12 as unexpected, as for layers.
# Seen: it loads without a word and without a missing key: experts are stacked in order, so that 4
#   sits in the place of 3, and 12 in that of 11. The router still addresses the old places.
# A tool that prunes, merges or rewrites single experts must renumber them, and check the result by
# its values: the load report cannot tell.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, Qwen3MoeConfig, Qwen3MoeForCausalLM

torch.manual_seed(0)
model = Qwen3MoeForCausalLM(Qwen3MoeConfig(hidden_size=32, moe_intermediate_size=16, num_experts=12,
    num_hidden_layers=1, num_attention_heads=2, num_key_value_heads=2, head_dim=16, vocab_size=64))
model.save_pretrained('m')

def load():
    "The down projections, one matrix an expert, and the load report."
    m, report = AutoModelForCausalLM.from_pretrained('m', output_loading_info=True)
    return m.model.layers[0].mlp.experts.down_proj.data, {k: v for k, v in report.items() if v}

before, _ = load()
file = 'm/model.safetensors'
save_file({name.replace('experts.3.', 'experts.12.'): w for name, w in load_file(file).items()},
          file, metadata={'format': 'pt'})
after, report = load()
places = [next(i for i in range(12) if torch.equal(w, before[i])) for w in after]
print('expert 3 renamed to 12; the places now hold', places, 'report', report)
assert places == [0, 1, 2, 4, 5, 6, 7, 8, 9, 10, 11, 3] and not report
PY
