"""The card's own lines, then the logits: python ask_transformers.py FOLDER TOKENS.json OUT.npy

Runs in an environment without mpq_nb, and imports only what the card names."""
import json
import re
import sys
from pathlib import Path

from alone import only

# Where the card has no lines for transformers, since it says that transformers can't load this, or where there is
# no card, the ordinary lines are tried with whatever is installed.
ORDINARY = '''from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained('FOLDER', device_map='auto')
'''


def snippet(folder):
    "(the packages that the card names, or None; the lines to run)."
    card = folder/'README.md'
    found = re.search(r'```python\n# pip install ([^\n]*)\n([^`]*AutoModelForCausalLM[^`]*)```', card.read_text() if card.exists() else '')
    needs, lines = (found[1].split(), found[2]) if found else (None, ORDINARY)
    return needs, lines.replace('FOLDER', str(folder))


if __name__ == '__main__':
    folder, tokens, out = map(Path, sys.argv[1:])
    print('READY', flush=True)
    needs, lines = snippet(folder)
    if needs: only(needs)
    names = {}
    exec(lines, names)
    model = names['model']
    print('LOADED', model.dtype, flush=True)
    import torch
    from safetensors.torch import save_file
    ids = torch.tensor([json.loads(tokens.read_text())], device=model.device)
    with torch.no_grad(): logits = model(ids).logits[0].float().cpu()
    save_file(dict(logits=logits.contiguous()), out)
    print('RAN', flush=True)
