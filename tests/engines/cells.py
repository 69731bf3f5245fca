"""What is tried: models, recipes and formats. Makes the folders, and the simulation's logits beside them."""
import copy
import tempfile
from pathlib import Path

import torch
from mpq_nb.allocation import Recipe
from mpq_nb.base.schemes import needs_calibration
from mpq_nb.calibration import tokens
from mpq_nb.models import demo_model, layers, load, simulated, tiny_model
from mpq_nb.quantization import FORMATS, export, packers, save_fake

from recipes import FAKE, RECIPES, TINY

LENGTH = 512
LICENCE = Path(__file__).parent.parent.parent/'LICENSE'      # English that stays as it is
MODELS = ('demo', *TINY)


def model_of(name):
    "(model, tokenizer) of a name among `MODELS`."
    model, tok = demo_model(device='cpu')
    if name == 'demo': return model, tok
    config = dict(vocab_size=len(tok), hidden_size=128, intermediate_size=256, **TINY[name])
    with tempfile.TemporaryDirectory() as folder:      # read back, since .to(bfloat16) would round rotary frequencies
        tiny_model(name, **config).save_pretrained(folder)
        tok.save_pretrained(folder)
        return load(folder, 'bfloat16', 'cpu')


def text_of(name, model, tok):
    "Token ids [LENGTH]: English for the demo model, any at all for one that is random."
    if name == 'demo': return tokens(str(LICENCE), tok, model, n=1, length=LENGTH).ids[0]
    return torch.randint(3, len(tok), (LENGTH,), generator=torch.Generator().manual_seed(0))


def recipe_of(name, model):
    ls = layers(model)
    return Recipe(RECIPES[name](ls), {l.name: l.shape for l in ls})


def pairs(model):
    "{(format, recipe's name): recipe} of all that can be written."
    made = {n: recipe_of(n, model) for n in RECIPES}
    packed = {(f, n): r for n, r in made.items() for f in packers(r)}
    return dict(sorted(packed.items(), key=lambda kv: list(FORMATS).index(kv[0][0]))) | {('fake', n): made[n] for n in FAKE}


def write(model, tok, recipe, format, ids, out):
    "A folder by `export` or `save_fake`, as a user would."
    if format == 'fake': return save_fake(model, tok, recipe, out)
    is_calibrated = any(map(needs_calibration, recipe.schemes.values()))
    calibration = dict(toks=ids[None, :256]) if is_calibrated else {}
    return export(model, tok, recipe, out, format, **calibration)


@torch.no_grad()
def simulated_logits(model, recipe, ids, dtype=torch.float32):
    "What the simulated model says [LENGTH, V], in 32 bits or as an engine computes."
    work = with_weights(model, torch.float32)
    with simulated(work, recipe.schemes):
        return with_weights(work, dtype)(ids[None]).logits[0].float()


def with_weights(model, dtype):
    "A copy with weights of this dtype, and everything else as it is: rotary frequencies stay in 32 bits."
    out = copy.deepcopy(model)
    for p in out.parameters(): p.data = p.data.to(dtype)
    return out


def apart_by(ours, theirs):
    "(KL in nats a token, share of equal top predictions) of two logits [T, V]; theirs may stop before the last token."
    theirs = theirs[:len(ours)]
    a, b = ours[:len(theirs)].log_softmax(-1), theirs.log_softmax(-1)
    return (a.exp() * (a - b)).sum(-1).mean().item(), (a.argmax(-1) == b.argmax(-1)).float().mean().item()
