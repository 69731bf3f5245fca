#!/usr/bin/env bash
# transformers 5.23.0: set_experts_implementation does nothing, without a word, where a mixture of
# experts has no such interface.
#
# Expected: an error, as for an unknown name and for 'grouped_mm'.
# Seen: for Llama 4, JetMoE and LongCat (mixtures of experts, all three) a function that is registered is accepted
#   and never called, and get_experts_implementation says 'eager' afterwards. Qwen3-MoE calls it.
#   Setting config.experts_implementation has no effect anywhere.
# A tool that collects statistics or simulates quantization in an experts function of its own sees
# no expert at all on these models. Count the calls.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import torch
from transformers import AutoModelForCausalLM, JetMoeConfig, Llama4TextConfig, LongcatFlashConfig, Qwen3MoeConfig
from transformers.integrations.moe import ALL_EXPERTS_FUNCTIONS

calls = 0
def counted(self, hidden, index, weights):
    "An experts function that only counts."
    global calls
    calls += 1
    return torch.zeros_like(hidden)
ALL_EXPERTS_FUNCTIONS.register('counted', counted)

small = dict(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2,
             vocab_size=64, intermediate_size=32)
configs = {
    'Qwen3-MoE': Qwen3MoeConfig(**small, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=16, head_dim=16),
    'Llama 4': Llama4TextConfig(**small, num_local_experts=4, intermediate_size_mlp=32, head_dim=16),
    'JetMoE': JetMoeConfig(**{**small, 'num_attention_heads': 4}, num_local_experts=4, kv_channels=16),
    'LongCat': LongcatFlashConfig(hidden_size=32, num_layers=1, num_attention_heads=2, vocab_size=64,
        ffn_hidden_size=32, expert_ffn_hidden_size=16, n_routed_experts=4, zero_expert_num=1, moe_topk=2,
        q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=8, qk_nope_head_dim=8, v_head_dim=16, head_dim=8)}
seen = {}
for name, config in configs.items():
    model = AutoModelForCausalLM.from_config(config).eval()
    model.set_experts_implementation('counted')
    calls = 0
    with torch.no_grad(): model(torch.arange(8)[None])
    seen[name] = (calls, model.get_experts_implementation()[''])
    print(f'{name}: {calls} calls, get_experts_implementation: {seen[name][1]}')
assert seen['Qwen3-MoE'] == (2, 'counted')
assert all(seen[name] == (0, 'eager') for name in configs if name != 'Qwen3-MoE')
PY
