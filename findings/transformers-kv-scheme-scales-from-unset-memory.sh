#!/usr/bin/env bash
# compressed-tensors 0.20.0 in transformers 5.23.0: a KV cache scheme without stored scales takes
# them from unset memory.
#
# Expected: a checkpoint that asks for an FP8 cache and has no k_scale and v_scale is read with scales of
#   1, as serving engines do, or not at all.
# Seen: the scales are whatever lay in memory (7.9e20, -9.8e31, 0, ...); with torch's option to fill
#   such memory they are NaN, and so are all logits. Only "MISSING" in the load report tells. With
#   stored scales of 1 the same model is .01 nats from the original, without them 2.4 (random model).
# A tool that adds kv_cache_scheme to a config must write the scales too.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 compressed-tensors==0.20.0 accelerate==1.15.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY' 2>/dev/null
import json, pathlib, torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM

torch.manual_seed(0)
LlamaForCausalLM(LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, vocab_size=64,
    num_attention_heads=2, num_key_value_heads=2, initializer_range=.2)).save_pretrained('m')
config, file = pathlib.Path('m/config.json'), 'm/model.safetensors'
text = torch.randint(64, (1, 40))

@torch.no_grad()
def read():
    "Log-probabilities, scales and missing names of the checkpoint as it is."
    model, report = AutoModelForCausalLM.from_pretrained('m', output_loading_info=True)
    scales = {name: v.item() for name, v in model.state_dict().items() if 'scale' in name}
    return model(text).logits.log_softmax(-1), scales, sorted(report['missing_keys'])

def divergence(p, q): return (p.exp() * (p - q)).sum(-1).mean().item()

original, _, _ = read()
scheme = dict(num_bits=8, type='float', strategy='tensor', symmetric=True, dynamic=False)
about = dict(quant_method='compressed-tensors', format='dense', config_groups={}, ignore=['lm_head'],
             kv_cache_scheme=scheme, quantization_status='compressed')
config.write_text(json.dumps(json.loads(config.read_text()) | dict(quantization_config=about)))

asis, scales, missing = read()
print('without scales:', scales, 'KL', divergence(original, asis))
torch.use_deterministic_algorithms(True)            # fills memory that nobody has set with NaN
asis, scales, missing = read()
torch.use_deterministic_algorithms(False)
print('unset memory filled with NaN:', scales)
assert len(scales) == 4 and sorted(scales) == missing
assert all(v != v for v in scales.values()) and asis.isnan().all()

ones = {name: torch.ones(1) for name in scales}
save_file(load_file(file) | ones, file, metadata={'format': 'pt'})
asis, scales, missing = read()
print('with scales of 1: KL', divergence(original, asis))
assert not missing and set(scales.values()) == {1.} and divergence(original, asis) < .1
PY
