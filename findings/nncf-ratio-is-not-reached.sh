#!/usr/bin/env bash
# nncf 3.4.0: ratio=.5 puts 3 of 8 equal layers in 4 bits, and 19 % of the model.
#
# Expected: 4 of 8, since that is exactly half; and a share of all that is compressed.
# Seen: a layer is left out when it would make the share equal to the ratio, not only when it would
#   exceed it: ratio .5 gives 3 layers of 8, .25 gives 1, .125 gives none, but 1 gives all 8. The share is of
#   the layers between embeddings and head, which stay in 8 bits, so that .5 of this model is 19 %.
# A comparison of allocators at "the same ratio" gives nncf more bits than the others.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 nncf==3.4.0
cd "$room"
"$room/venv/bin/python" - <<'PY' 2>/dev/null
import logging
import nncf, torch
from torch import nn
logging.disable()

class Model(nn.Module):
    "Embeddings, eight equal layers, a head."
    def __init__(self):
        super().__init__()
        self.embed = nn.Embedding(1000, 256)
        self.blocks = nn.ModuleList(nn.Linear(256, 256, bias=False) for _ in range(8))
        self.head = nn.Linear(256, 1000, bias=False)

    def forward(self, tokens):
        x = self.embed(tokens)
        for block in self.blocks: x = x + block(x).tanh()
        return self.head(x)

def in_four_bits(ratio):
    "Which matrices nncf packs in 4 bits: two weights a byte."
    torch.manual_seed(0)
    model, text = Model().eval(), torch.randint(1000, (1, 64))
    weights = {name: w.numel() for name, w in model.state_dict().items()}
    small = nncf.compress_weights(model, mode=nncf.CompressWeightsMode.INT4_SYM, ratio=ratio,
                                  group_size=64, dataset=nncf.Dataset([text]))
    stored = small.state_dict()
    assert all(stored[name].dtype == torch.uint8 for name in weights)
    packed = [name for name in weights if stored[name].numel() == weights[name] // 2]
    return packed, sum(weights[n] for n in packed) / sum(weights.values())

for ratio, layers in ((1., 8), (.5, 3), (.25, 1), (.125, 0)):
    packed, share = in_four_bits(ratio)
    print(f'RESULT ratio {ratio}: {len(packed)} of 8 layers, {share:.0%} of the weights')
    assert len(packed) == layers and all(name.startswith('blocks') for name in packed)
PY
