"What the drivers share: the command line, the calibration tokens, the budget, and the file that they write."
import argparse, json, resource, time
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path

import torch
from safetensors.torch import load_file
from transformers import AutoConfig, AutoModelForCausalLM

from mpq_nb.models import blocks
from mpq_nb.schemes import bits

seconds = {}

def arguments(methods):
    "The command line of a driver whose peer has these methods; the tokens come as a tensor, the budgets as numbers."
    p = argparse.ArgumentParser()
    p.add_argument('--model', required=True, help='folder of a transformers model')
    p.add_argument('--tokens', required=True, help='safetensors file with `ids`, int64 [N, T]: the calibration blocks')
    p.add_argument('--schemes', required=True, help='such as MXFP4,MXFP8 or W3A16,W4A16')
    p.add_argument('--bits', required=True, help='payload bits per quantizable weight, such as 4.5,5,6')
    p.add_argument('--method', default=methods[0], choices=methods)
    p.add_argument('--out', required=True, help='JSON file to write')
    a = p.parse_args()
    a.schemes, a.budgets, a.ids = a.schemes.split(','), a.bits.split(','), load_file(a.tokens)['ids']
    return a

@contextmanager
def timed(phase):
    "Add the time spent inside to `seconds[phase]`."
    start = time.perf_counter()
    yield
    seconds[phase] = round(seconds.get(phase, 0) + time.perf_counter() - start, 2)

def sizes(folder):
    "Number of weights of each quantizable layer of the model in `folder`."
    with torch.device('meta'): model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(folder))
    prefix, found = blocks(model)
    return {f'{prefix}.{n}': m.weight.numel() for n, m in found.named_modules() if isinstance(m, torch.nn.Linear)}

def payload(recipe, sizes):
    "Payload bits per quantizable weight of a recipe that names every layer."
    if set(recipe) != set(sizes): raise ValueError(f'layers without a scheme, or unknown: {sorted(set(recipe) ^ set(sizes))[:5]}')
    return sum(bits(s) * sizes[n] for n, s in recipe.items()) / sum(sizes.values())

def nearest(solve, target, sizes, steps=14):
    "The recipe of `solve`, a function of the peer's own target, that comes nearest to `target` payload bits from below."
    step = min(sizes.values()) / sum(sizes.values())   # one bit more for the smallest layer
    best, lo, hi, t = None, target - .5, target + .5, target
    for _ in range(steps):
        recipe = solve(t)
        got = payload(recipe, sizes)
        fits = got <= target + 1e-6
        if fits and (best is None or got > best[0]): best = got, recipe
        if fits and target - got < step: break
        lo, hi = (t, hi) if fits else (lo, t)
        t = (lo + hi) / 2
    if best is None: raise ValueError(f'the peer found no recipe of {target} bits or below')
    return best[1]

def write(args, package, recipes, sizes):
    "Check the recipes against their budgets and write them with what they took."
    got = {b: payload(r, sizes) for b, r in recipes.items()}
    over = {b: g for b, g in got.items() if g > float(b) + 1e-6}
    if over: raise ValueError(f'over budget: {over}')
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    out = dict(peer=package, version=version(package), method=args.method, seconds=seconds, peak_rss_bytes=rss, bits=got, recipes=recipes)
    Path(args.out).write_text(json.dumps(out, indent=1))
    print(f'{package} {args.method} {",".join(args.schemes)}:', *(f'{b} -> {g:.4f} bits' for b, g in got.items()), f'in {seconds}')
