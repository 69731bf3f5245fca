#!/usr/bin/env bash
# auto-round 0.16.1: in layer_config a pattern beats the exact name of a layer.
#
# Expected: {'model.layers.1.self_attn.q_proj': 8 bits, 'q_proj': 2 bits} keeps block 1's q_proj in
#   8 bits: the exact name is the exception to the rule. Or else the last entry wins.
# Seen: 2 bits, in both orders, without a word. The exact name alone gives 8.
# A sensitive layer that was to be protected is stored in the lowest width. Give exact names only.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 auto-round==0.16.1 accelerate==1.15.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY' 2>/dev/null
import torch
from auto_round import AutoRound
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

words = ['<unk>', *'abcdefghijklmnopqrstuvwxyz']
core = Tokenizer(models.WordLevel({w: i for i, w in enumerate(words)}, unk_token='<unk>'))
core.pre_tokenizer = pre_tokenizers.Whitespace()
tokenizer = PreTrainedTokenizerFast(tokenizer_object=core, unk_token='<unk>', pad_token='<unk>')
config = LlamaConfig(hidden_size=64, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
                     num_key_value_heads=2, vocab_size=len(words), tie_word_embeddings=False)
layer = 'model.layers.1.self_attn.q_proj'

def values(rules):
    "The bits that AutoRound gives block 1's q_proj, and how many values a group of its weights has."
    torch.manual_seed(0)
    tool = AutoRound(LlamaForCausalLM(config).bfloat16(), tokenizer, scheme='W4A16', group_size=32,
                     layer_config=rules, iters=0, disable_opt_rtn=True, disable_model_free=True)
    model, chosen = tool.quantize()
    weight = model.get_submodule(layer).weight.view(-1, 32)
    return chosen[layer]['bits'], max(len(group.unique()) for group in weight)

exact, pattern = {layer: {'bits': 8}}, {'q_proj': {'bits': 2}}
seen = {'exact alone': values(exact), 'exact, pattern': values(exact | pattern), 'pattern, exact': values(pattern | exact)}
for rules, (bits, count) in seen.items(): print(f'RESULT {rules}: {bits} bits, at most {count} values in a group of 32')
assert seen['exact alone'][0] == 8 and seen['exact alone'][1] > 16
assert seen['exact, pattern'] == seen['pattern, exact'] and seen['exact, pattern'][0] == 2
assert seen['exact, pattern'][1] <= 4
PY
