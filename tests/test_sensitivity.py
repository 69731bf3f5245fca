"Every method of scoring: in slices, within memory, from the disk, interrupted, in other architectures; and a method is one row of a table."
import itertools
import types
from unittest import mock

import numpy as np
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from transformers import AutoModelForCausalLM

from mpq_nb.allocation import allocate
from mpq_nb.base import walk
from mpq_nb.base.loading import streaming_arguments
from mpq_nb.base.simulation import simulated
from mpq_nb.base.text import sample
from mpq_nb.core.fisher import effect_loss, fisher, fisher_gradient, input_effect, uniform_draws, weight_effect
from mpq_nb.core.scores import loss_name
from mpq_nb.models import layers, tiny_model
from mpq_nb.schemes import InputError
from mpq_nb.sensitivity import Method, METHODS, Pass, score, Scores, TENSORS

TWO, THREE = ('MXFP4', 'W4A16G32'), ('MXFP4', 'MXFP8', 'BF16')


@pytest.fixture(scope='module')
def tiny(): return tiny_model('llama')


@pytest.fixture(scope='module')
def ids(tiny): return sample(tiny, 24, 64, prefix=[1])


@pytest.fixture(scope='module')
def small(ids): return ids[:6, :32]


def same(a, b):
    "Are all tensors of two scores equal, bit for bit?"
    pairs = [(getattr(a, k), getattr(b, k)) for k in TENSORS]
    return all((x is None) == (y is None) and (x is None or torch.equal(x.nan_to_num(-1), y.nan_to_num(-1))) for x, y in pairs)


@pytest.mark.parametrize('family', ['llama', 'qwen3', 'gemma3', 'phi3'])
def test_fisher_is_one_ordinary_backward_pass(family, small):
    "The pass over the blocks gives the numbers of plain autograd through the whole model, at every layer."
    model, seen = tiny_model(family), {}
    ls = layers(model)
    for l in ls: model.get_submodule(l.name).register_forward_hook(lambda m, args, y: seen.update({m: (args[0].detach(), y)}))
    logits = model(small).logits
    at = [model.get_submodule(l.name) for l in ls]
    gradients = torch.autograd.grad(logits, [seen[m][1] for m in at], fisher_gradient(logits.detach(), uniform_draws(small)))
    p = Pass(tiny_model(family), small, ls, TWO)
    for m, g, row in zip(at, gradients, fisher(p)['samples'].mean(0)):
        x, w = seen[m][0], m.weight.detach()
        for s, got in zip(TWO, row):
            want = effect_loss(weight_effect(x, g, p.sim.weight(w, s) - w), input_effect(p.sim.inputs(x, s) - x, g @ w))
            assert got.item() == pytest.approx(want.item(), rel=1e-3)


@pytest.mark.parametrize('family', ['llama', 'qwen3', 'gemma3'])
def test_batches_and_dtypes(family, small):
    one, all_ = (score(tiny_model(family), small, TWO, batch=b).loss for b in (1, 6))
    torch.testing.assert_close(one, all_, rtol=0, atol=1e-5)
    half = score(tiny_model(family).bfloat16(), small, TWO).loss
    assert .7 < (half.sum() / all_.sum()) < 1.4


@pytest.mark.parametrize('method', METHODS)
def test_every_method_scores_and_is_saved(method, tiny, small, tmp_path):
    for names in (TWO, (*TWO, 'W8A16G32')):
        s = score(tiny, small[:2], names, method)
        assert s.loss.shape == (14, len(names)) and (s.loss > 0).all()
        assert same(Scores.load(s.save(tmp_path/'s.safetensors')), s)


def test_formats_of_every_kind_together(tiny, small):
    s = score(tiny, small, ('MXFP4', 'MXFP6', 'MXFP8', 'NVFP4', 'FP8_STATIC', 'MXINT4', 'GGUF:Q4_0', 'W2A16G32', 'W8A16G32', 'BF16'))
    assert torch.isfinite(s.loss).all() and (s.loss[:, :-1] > 0).all() and (s.loss[:, -1] == 0).all()


@pytest.mark.parametrize('method', METHODS)
@pytest.mark.parametrize('family, config', [('llama', {}), ('gemma3', dict(final_logit_softcapping=5.))])
def test_in_slices(method, family, config, ids, monkeypatch):
    "Logits by 32 tokens at a time, the head among the layers: what all at once give, but for rounding."
    model = tiny_model(family, **config)
    whole = score(model, ids[:3], TWO, method, rescale=True, head=True)
    monkeypatch.setattr(walk, 'LOGITS', 32*256)
    sliced = score(model, ids[:3], TWO, method, rescale=True, head=True)
    for k in ('loss', 'samples', 'uniform', 'cross'):
        if (w := getattr(whole, k)) is not None: np.testing.assert_allclose(getattr(sliced, k), w, rtol=1e-3, atol=1e-6, err_msg=k)


class Largest(TorchDispatchMode):
    "Notes how many elements the largest tensor has that is made inside the block."
    def __enter__(self):
        self.n = 0
        return super().__enter__()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        self.n = max([self.n, *(t.numel() for t in tree_leaves(out) if isinstance(t, torch.Tensor))])
        return out


@pytest.mark.parametrize('method', METHODS)
def test_memory_is_bounded(method, ids, monkeypatch):
    "A vocabulary of 262,144 and two sequences of 64 tokens have 2**25 logits; no tensor is larger than the bound of 2**23."
    wide = tiny_model(layers=1, vocab_size=2**18, hidden_size=32)
    monkeypatch.setattr(walk, 'LOGITS', 2**23)
    with Largest() as largest: score(wide, ids[:2], 'MXFP4', method, rescale=method == 'fisher')
    assert largest.n == 2**23


def test_inputs_on_the_disk(tiny, small, tmp_path, monkeypatch):
    "Where there is no memory for the blocks' inputs come the same bits; of a model on the disk, too."
    want = score(tiny, small, TWO).samples
    tiny.save_pretrained(tmp_path)
    on_disk = AutoModelForCausalLM.from_pretrained(tmp_path, **streaming_arguments(str(tmp_path), 'auto', 'cpu', False)[1])
    monkeypatch.setattr(walk, 'SAVED', 2 * small[:4].numel() * 64 * 4)       # of both blocks, four of six sequences
    for m in (tiny, on_disk):
        with mock.patch.object(walk, '_read_back', side_effect=walk._read_back) as read: got = score(m, small, TWO)
        assert torch.equal(got.samples, want) and read.call_count
    with mock.patch('shutil.disk_usage', return_value=mock.Mock(free=1000)), pytest.raises(InputError, match='score fewer sequences at a time'): score(tiny, small)


def test_a_gpu_too_small_for_a_batch(tiny, small, monkeypatch):
    "Half the batch is tried, as often as it takes."
    want = score(tiny, small).loss
    def full(model, p, keep=None):
        if len(p) > 2: raise torch.OutOfMemoryError('CUDA out of memory. Tried to allocate 20.00 GiB')
        return walk.forward(model, p, keep)
    monkeypatch.setattr(walk, 'forward_each', lambda model, parts, keep=None: (full(model, p, keep) for p in parts))
    with mock.patch('warnings.warn') as warned: got = score(tiny, small, batch=6).loss
    torch.testing.assert_close(got, want, rtol=0, atol=1e-5)
    assert warned.call_count == 2                                              # from 6 to 3, from 3 to 1


def test_shards_are_one_run(tiny, ids):
    "Cut at a multiple of eight sequences, to the last bit; refused where they do not belong together."
    one, shards = score(tiny, ids, THREE), [score(tiny, part, THREE) for part in (ids[:16], ids[16:])]
    both = Scores.merge(shards)
    assert same(one, both) and both.meta | dict(source='') == one.meta | dict(source='')
    with pytest.raises(InputError, match='share a calibration sequence'): Scores.merge([one, shards[0]])
    with pytest.raises(InputError, match='different schemes'): Scores.merge([shards[0], score(tiny, ids[16:])])
    with pytest.raises(InputError, match='their model is'): Scores.merge([shards[0], score(tiny_model(seed=1), ids[16:], THREE)])
    with pytest.raises(InputError, match='their engine is vllm and autoround'): Scores.merge([score(tiny, ids[:8], engine='vllm'), score(tiny, ids[8:16])])


class Cut(walk.Checkpoint):
    "Interrupts the work once it has written."
    def write(self):
        super().write()
        raise KeyboardInterrupt


def in_pieces(path, work):
    "What `work` returns when it is interrupted after every step, and how often it was."
    for cuts in itertools.count():
        try:
            with Cut(path, every=0) as state: return work(state), cuts
        except KeyboardInterrupt: pass


@pytest.mark.parametrize('method, least', [('fisher', 5), ('output_fisher', 5), ('delta_loss', 12), ('kl', 5), ('mse', 3)])
def test_interrupted_after_every_step(method, least, tiny, small, tmp_path):
    got, cuts = in_pieces(tmp_path/'partial', lambda state: score(tiny, small, THREE, method, state=state))
    assert same(got, score(tiny, small, THREE, method)) and cuts >= least and not any(tmp_path.iterdir())


def test_interrupted_on_other_tokens(tiny, small, tmp_path):
    def begin(toks):
        with Cut(tmp_path/'partial', every=0) as state: score(tiny, toks, THREE, state=state)
    with pytest.raises(KeyboardInterrupt): begin(small)
    with pytest.raises(InputError, match='does not go with this one: tokens was'): begin(small + 1)


def test_the_head_is_a_layer(tiny, small):
    with_head, without = score(tiny, small, TWO, head=True), score(tiny, small, TWO)
    torch.testing.assert_close(with_head.loss[:-1], without.loss)
    with torch.no_grad():
        ref = tiny(small).logits.log_softmax(-1)
        with simulated(tiny, {'lm_head': 'W4A16G32'}): q = tiny(small).logits.log_softmax(-1)
    measured = (ref.exp() * (ref - q)).sum(-1).mean()
    assert with_head.loss[-1, 1].item() == pytest.approx(measured.item(), rel=.5)       # six short sequences


def test_small_weights_are_warned_of(small):
    faint = tiny_model()
    faint.model.layers[1].mlp.up_proj.weight.data.mul_(1e-4)
    with pytest.warns(UserWarning, match='W8A16G32 is coarser than its bits in 1 layers, most in model.layers.1.mlp.up_proj: 100%'): score(faint, small[:2], ('W8A16G32', 'MXFP8'))


def test_a_sequence_has_its_labels_wherever_it_is_scored(tiny, ids):
    "Alone, in another batch, in another order."
    whole = score(tiny, ids[:6]).samples
    for i in (0, 5): torch.testing.assert_close(score(tiny, ids[i:i+1]).samples[0], whole[i], rtol=1e-4, atol=1e-8)
    torch.testing.assert_close(score(tiny, ids[:6].flip(0)).samples.flip(0), whole, rtol=1e-4, atol=1e-8)


@pytest.mark.parametrize('method, rescale, want', [
    ('fisher', False, 'predicted KL'), ('delta_loss', False, 'predicted loss'), ('delta_loss', True, 'predicted KL'),
    ('mse', False, 'predicted loss'), ('mse', True, 'predicted KL')])
def test_one_name_for_a_loss(method, rescale, want, tiny, small):
    "The scores, the recipe made from them, the explorer and a report agree on what a loss is called."
    from mpq_nb.apps.explorer.explorer import Explorer
    from mpq_nb.report import counts
    from mpq_nb.core.recipes import Recipe
    s = score(tiny, small, ('MXFP4', 'MXFP8'), method, rescale=rescale)
    r = allocate(s, bits=5)
    explorer = types.SimpleNamespace(scores=s)
    assert loss_name(s.origin) == loss_name(r.made) == Explorer.what.fget(explorer) == want
    assert f'; {want} ' in repr(r)
    other, = {'predicted KL', 'predicted loss'} - {want}
    page = str(counts({'ours': r}))
    assert want in page and other not in page
    assert loss_name(Recipe(r.schemes, r.shapes, made=r.made | dict(refined={})).made) == 'measured KL'


def test_a_method_is_a_function_and_a_row(tiny, small):
    "What `score`, the names of losses, the command line and the cluster know of a method they take from its row."
    from mpq_nb.apps.cli.score import check_scoring
    from mpq_nb.apps.study.cluster import score_ray
    def largest_error(p):
        weights = [p.model.get_submodule(l.name).weight.detach() for l in p.layers]
        return dict(loss=torch.stack([torch.stack([(p.sim.weight(w, s) - w).abs().max() for s in p.schemes]) for w in weights]))
    row = Method('largest', largest_error, 'the largest error of a weight', 'this test', in_nats=False, reads_text=False)
    with pytest.raises(InputError, match='unknown method'): score(tiny, small, method='largest')
    with mock.patch.dict(METHODS, largest=row):
        s = score(tiny, small, method='largest')
        assert s.loss.shape == (14, 2) and loss_name(s.origin) == 'predicted loss' and 'predicted loss' in repr(allocate(s, bits=5))
        check_scoring('largest', 'none', 'self', False)
        with pytest.raises(InputError, match="method 'largest' reads no text"): score_ray('demo', ('self', 8, 32, 0), method='largest')
    with pytest.raises(InputError, match='unknown method'): check_scoring('largest', 'none', 'self', False)
