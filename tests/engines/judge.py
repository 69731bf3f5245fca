"What is promised of a cell, and what is wrong with it."
from functools import cache

from mpq_nb.allocation import servable
from mpq_nb.apps.engines.check import is_too_far, NONSENSE, recipe_of
from mpq_nb.models import layers, tiny_model

from cells import SHAPES


@cache
def recipe(model, name): return recipe_of(name, layers(tiny_model(**SHAPES[model])))


def promise(cell):
    "What `servable` says of a cell."
    return servable(recipe(cell['model'], cell['recipe']), cell['engine'], cell['platform'], cell['format'], cell['version'])


def settled(cell):
    "A cell, with the answer of one that loads and computes nonsense: such a checkpoint cannot be served."
    is_nonsense = cell['answer'] == 'loads' and not cell['kl'] < NONSENSE
    return cell | dict(answer='refused', said=[f"loads, and is {cell['kl']} nats away"]) if is_nonsense else cell


def wrong(cell):
    "What is wrong with the promise for a cell, in words; nothing if it was kept."
    said = promise(cell)
    if cell['answer'] not in ('loads', 'refused'): return f"{cell['answer']}: no answer; run it again"
    if said.answer == 'unknown': return f"it {cell['answer']} here, and the table says unknown: add a row"
    if said.answer != cell['answer']: return f"the table says {said.answer}, and it {cell['answer']}: {' / '.join(cell['said'])}"
    if said.answer == 'loads' and said.exact and cell['exact'] and is_too_far(cell['kl'], cell['noise']):
        return f"the table says that it computes what we simulate, and it is {cell['kl']} nats away, of which the dtype explains {cell['noise']}"
    return ''
