"""The card's own lines, then the logits: python ask_transformers.py FOLDER TOKENS.json OUT, or a line a cell.

Runs without mpq_nb, and imports only what the card names."""
import json
import re
import sys
from pathlib import Path

from alone import only
from forks import serve

# Where the card has no lines for transformers, since it says that transformers can't load this, or where there is
# no card, the ordinary lines are tried with whatever is installed.
ORDINARY = '''from transformers import AutoModelForCausalLM
model = AutoModelForCausalLM.from_pretrained('FOLDER', device_map='auto')
'''
CARD = re.compile(r'```python\n# pip install ([^\n]*)\n([^`]*AutoModelForCausalLM[^`]*)```')


def snippet(folder):
    "(the packages that the card names, or None; the lines to run)."
    card = folder/'README.md'
    found = CARD.search(card.read_text() if card.exists() else '')
    needs, lines = (found[1].split(), found[2]) if found else (None, ORDINARY)
    return needs, lines.replace('FOLDER', str(folder))


def ask(folder, tokens, out):
    "Load a checkpoint as its card says, and write its logits."
    needs, lines = snippet(Path(folder))
    if needs: only(needs)
    names = {}
    exec(lines, names)
    model = names['model']
    print('LOADED', model.dtype, flush=True)
    ids = torch.tensor([json.loads(Path(tokens).read_text())], device=model.device)
    with torch.no_grad(): logits = model(ids).logits[0].float().cpu()
    save_file(dict(logits=logits.contiguous()), out)


if __name__ == '__main__':
    if sys.argv[1:] and (needs := snippet(Path(sys.argv[1]))[0]): only(needs)     # before transformers looks what there is
    import accelerate, torch, transformers       # every card names these; nothing else may be there before it is named
    from safetensors.torch import save_file
    from transformers import AutoModelForCausalLM, AutoTokenizer
    early = {'auto_round', 'compressed_tensors', 'gguf', 'gptqmodel', 'mpq_nb'} & set(sys.modules)
    assert not early, early
    ask(*sys.argv[1:]) if sys.argv[1:] else serve(ask)
