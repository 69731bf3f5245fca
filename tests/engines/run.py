"""Every format in every engine that is installed here: python tests/engines/run.py [--engines NAME ...]

Each cell has a process of its own, with a time limit, and a JSON line in nbs/benchmarks/engines.jsonl. A cell that has its line is
not run again, unless its name holds one of the texts after --again."""
import argparse
import json
import os
import sys
from pathlib import Path

import torch
from mpq_nb.apps.engines.check import (
    checkpoints_to_try, Engine, logit_distance, recipe_of, simulated_logits, write_checkpoint)
from mpq_nb.models import layers
from safetensors.torch import load_file, save_file

from install import HOME, is_whole

ROOT = Path(__file__).parent.parent.parent
LINES = ROOT/'nbs'/'benchmarks'/'engines.jsonl'
WORK = HOME/'work'
PLATFORM = 'metal' if sys.platform == 'darwin' else 'cpu'
SHORT = 128            # llama.cpp's logits come as one JavaScript object a token of the vocabulary
KEY = ('model', 'format', 'recipe', 'engine', 'platform', 'version', 'settings')
# What is set for an engine. vLLM rounds activations to 8 bits on CPUs that are fast at it, unless it is told not to.
SETTINGS = {'vllm': ('VLLM_CPU_INT4_W4A8=0', '')}


def key(cell): return tuple(cell[k] for k in KEY)


def read_lines(path=LINES):
    "The cells so far; of one that was run again, the last."
    rows = [json.loads(l) for l in path.read_text().splitlines()] if path.exists() else []
    return {key(r): r for r in rows}


class Folders:
    "The checkpoints of a model, and the logits of its simulations; each is made when it is first asked for."
    def __init__(self, name):
        import cells
        self.name, self.home = name, WORK/name
        self.home.mkdir(parents=True, exist_ok=True)
        self.model, self.tok = cells.model_of(name)
        self.ids = self.kept('text', lambda: cells.text_of(name, self.model, self.tok))
        self.pairs = checkpoints_to_try(layers(self.model))

    def kept(self, name, make):
        "A tensor, from the disk if it is there."
        path = self.home/f'{name}.safetensors'.replace('/', '')
        if not path.exists(): save_file(dict(x=make().contiguous()), path)
        return load_file(path)['x']

    def folder(self, format, name):
        out = self.home/format/name.replace('/', '')
        if not out.exists(): write_checkpoint(self.model, self.tok, self.pairs[format, name], format, self.ids, out)
        return out

    def logits(self, name, dtype='float32'):
        recipe = recipe_of(name, layers(self.model))
        def make(): return simulated_logits(self.model, recipe, self.ids, getattr(torch, dtype))
        return self.kept(f'simulated {name} {dtype}', make)


def cell(folders, format, name, engine, settings, about):
    "Run one, and say what came of it."
    ids = folders.ids[:SHORT] if engine.name == 'llama.cpp' else folders.ids
    env = dict(s.split('=') for s in settings.split())
    found = engine.ask(folders.folder(format, name), ids, WORK/f'logits-{engine.name}', env)
    row = dict(about, answer=found.answer, tokens=len(ids), said=found.said)
    if found.logits is None: return row
    ours = folders.logits(name)[:len(ids)]
    kl, top1 = logit_distance(ours, found.logits)
    in_dtype = folders.logits(name, found.dtype)[:len(ids)]
    noise = 0. if found.dtype == 'float32' else logit_distance(ours, in_dtype)[0]
    return row | dict(dtype=found.dtype, kl=float(f'{kl:.3g}'), top1=round(top1, 3), noise=float(f'{noise:.3g}'))


def is_worth_it(engine, format, name, settings):
    "Not every cell is: where an engine reads no format of a kind at all, one recipe shows it."
    if engine in SETTINGS and settings == '': return name == 'W4' and format != 'fake'
    if engine == 'llama.cpp': return format == 'gguf' or name == 'W4'
    if engine == 'gptqmodel': return format in ('auto_round', 'auto_gptq', 'auto_awq') or name == 'W4'
    return True


def main(argv=None):
    a = argparse.ArgumentParser(description=__doc__)
    a.add_argument('--engines', nargs='+', default=['transformers', 'llama.cpp', 'vllm', 'gptqmodel'])
    a.add_argument('--models', nargs='+', default=['demo', 'llama', 'qwen3'])
    a.add_argument('--again', nargs='+', default=[])
    a.add_argument('--only', nargs='+', default=[], help='texts, of which a cell\'s name has to hold one')
    a.add_argument('--unsorted', action='store_true', help='leave the order of the lines alone, as other runs may be writing')
    a = a.parse_args(argv)
    os.environ['OMP_NUM_THREADS'] = '2'
    for e in a.engines:
        if not is_whole(e): print(f'{e}: not installed, not tried', file=sys.stderr)
    here, done = [Engine(e, HOME/e) for e in a.engines if is_whole(e)], read_lines()
    for m in a.models:
        folders = Folders(m)
        for engine in here:
            for settings in SETTINGS.get(engine.name, ('',)):
                for format, name in folders.pairs:
                    if not is_worth_it(engine.name, format, name, settings): continue
                    about = dict(model=m, format=format, recipe=name, engine=engine.name, platform=PLATFORM,
                                 version=engine.version, settings=settings, packages=engine.packages)
                    title = ' | '.join(map(str, key(about)))
                    if a.only and not any(t in title for t in a.only): continue
                    old = done.get(key(about), {}).get('answer')
                    if old in ('loads', 'refused') and not any(t in title for t in a.again): continue
                    row = cell(folders, format, name, engine, settings, about)
                    with LINES.open('a') as f: f.write(json.dumps(row) + '\n')
                    print(title, row['answer'], row.get('kl', ''), *row['said'][:1], *row['said'][-1:], flush=True)
    for engine in here: engine.close()
    if not a.unsorted: settle()


def settle():
    "Write each cell once, in order."
    rows = sorted(read_lines().values(), key=lambda r: [str(x) for x in key(r)])
    LINES.write_text(''.join(json.dumps(r) + '\n' for r in rows))


if __name__ == '__main__': main()
