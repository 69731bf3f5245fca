"The numbers of our pass, which goes block by block, against those of one ordinary backward pass through the whole model."
from dataclasses import dataclass, field

import torch

from mpq_nb.base.layers import layers, left_layers
from mpq_nb.base.walk import Pass, run_pass, Unmeasured


@dataclass
class Agreement:
    "How well the weights' gradients agree."
    errors: dict      # {layer: largest difference, relative to the largest gradient}
    unmeasured: list  # names of layers that a pass cannot measure
    left: dict = field(default_factory=dict)   # {layer that stays at 16 bits: why}

    @property
    def worst(self): return max(self.errors.items(), key=lambda e: e[1])


def streamed_copy(model, folder):
    "The model, with its blocks on the disk."
    from transformers import AutoModelForCausalLM
    from mpq_nb.base.loading import streaming_arguments
    model.save_pretrained(folder)
    dtype, kw = streaming_arguments(folder, 'auto', 'cpu', False)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **kw).eval().requires_grad_(False)


def summed(model, ids, ls, start, batch=2):
    "Gᵀ X of each layer, summed over its calls, by a pass that starts with `start` at the logits; and what it could not measure."
    found = {}
    def measure(name, layer):
        found[name] = torch.zeros(layer.out_features, layer.in_features)
        def add(x, g, h):
            found[name] += (g.mT @ x).sum(0)
            return torch.zeros(len(x))
        return add
    try: run_pass(Pass(model, ids, ls, batch=batch), lambda logits, ids, at: start[at], measure)
    except Unmeasured as e: return found, e.names
    return found, []


def ordinary(model, ids, ls, start):
    "The gradient of each layer's weight by one backward pass; None where there is none."
    weights = [model.get_submodule(l.name).weight.requires_grad_() for l in ls]
    try: found = torch.autograd.grad(model(ids, use_cache=False).logits, weights, start, allow_unused=True)
    finally:
        for w in weights: w.requires_grad_(False)
    return dict(zip([l.name for l in ls], found))


def agreement(model, ids, on_disk=None):
    "Compare all quantizable layers of a model in float32; `on_disk`: measure this copy of it."
    model.requires_grad_(False)
    ls = layers(model)
    start = torch.randn(*ids.shape, model.config.get_text_config().vocab_size, generator=torch.Generator().manual_seed(1))
    mine, unmeasured = summed(on_disk or model, ids, ls, start)
    want = ordinary(model, ids, ls, start)
    def error(name):
        w = want[name]
        return (mine[name] - w).abs().max().item() / max(w.abs().max().item(), 1e-20)
    errors = {l.name: error(l.name) for l in ls if l.name not in unmeasured and want[l.name] is not None}
    return Agreement(errors, unmeasured, left_layers(model))
