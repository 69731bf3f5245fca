"What is promised of a cell, and what is wrong with it."
from functools import cache

from mpq_nb.allocation import Recipe, servable
from mpq_nb.models import layers, tiny_model

import recipes

# Layers of the same names and shapes as the models in cells.py, in two blocks.
SHAPES = dict(demo=dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, head_dim=64),
              llama=dict(hidden_size=128, intermediate_size=256, **recipes.TINY['llama']),
              qwen3=dict(hidden_size=128, intermediate_size=256, **recipes.TINY['qwen3']))


@cache
def recipe(model, name):
    ls = layers(tiny_model(**SHAPES[model]))
    return Recipe(recipes.RECIPES[name](ls), {l.name: l.shape for l in ls})


def promise(cell):
    "What `servable` says of a cell."
    return servable(recipe(cell['model'], cell['recipe']), cell['engine'], cell['platform'], cell['format'], cell['version'])


NONSENSE = 3    # nats; without its activations rounded, a random model in MXFP4 is 1.3 away


def settled(cell):
    "A cell, with the answer of one that loads and computes nonsense: such a checkpoint cannot be served."
    is_nonsense = cell['answer'] == 'loads' and not cell['kl'] < NONSENSE
    return cell | dict(answer='refused', said=[f"loads, and is {cell['kl']} nats away"]) if is_nonsense else cell


def too_far(cell):
    "Is it further from the simulation than the engine's dtype explains?"
    return not cell['kl'] <= 1e-3 + 3*cell['noise']


def wrong(cell):
    "What is wrong with the promise for a cell, in words; nothing if it was kept."
    said = promise(cell)
    if cell['answer'] not in ('loads', 'refused'): return f"{cell['answer']}: no answer; run it again"
    if said.answer == 'unknown': return f"it {cell['answer']} here, and the table says unknown: add a row"
    if said.answer != cell['answer']: return f"the table says {said.answer}, and it {cell['answer']}: {' / '.join(cell['said'])}"
    if said.answer == 'loads' and said.exact and cell['exact'] and too_far(cell):
        return f"the table says that it computes what we simulate, and it is {cell['kl']} nats away, of which the dtype explains {cell['noise']}"
    return ''
