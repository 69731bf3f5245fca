"Invariants that hold for all inputs, not only for the examples in the notebooks."
import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings, strategies as st
from hypothesis.extra.numpy import arrays

from auto_round.data_type.mxfp import quant_mx
from mpq_nb.allocation import Recipe, allocate, head, knapsack, random, tail
from mpq_nb.models import Layer, layers, tiny_model
from mpq_nb.quantization import quantized
from mpq_nb.schemes import QUANTIZERS, ROUNDINGS, bits, bpw, qdq, stored_bits
from mpq_nb.base.quantizers import autoround_qdq
from mpq_nb.evaluation import compare_logprobs
from mpq_nb.sensitivity import Scores, score
from mpq_nb.core.scores import mean_loss

many = settings(max_examples=200, deadline=None)
few = settings(max_examples=25, deadline=None)
edges = [float(np.float32(v)) for v in (0., -0., 1e-45, -3e-39, 6., 448., 2.**-127, 2.**100, 1, 2, 2.5, 3.5, 5, 3.9999998, 15.999999)]
floats = st.floats(-2.**100, 2.**100, width=32) | st.sampled_from(edges)
matrices = arrays(np.float32, st.tuples(st.integers(1, 4), st.sampled_from([32, 64, 50, 7])), elements=floats)


@many
@given(matrices, st.sampled_from([4, 6, 8]), st.sampled_from([torch.float32, torch.bfloat16]))
def test_mx_is_bit_identical_to_autorounds(x, b, dtype):
    x = torch.from_numpy(x).to(dtype)
    ours, theirs = qdq(x, f'MXFP{b}', 'nearest'), quant_mx(x, bits=b, group_size=32)[0]
    differ = ours != theirs
    assert all(rounds_twice(v) for v in x[differ])
    assert ((ours - x)[differ].abs() < (theirs - x)[differ].abs()).all()


def rounds_twice(v):
    "Is v the one float below half of a step? AutoRound's floor(v + 0.5) makes a whole step of it; the nearest value is 0."
    return v.float().abs().view(torch.int32) & 0x7FFFFF == 0x7FFFFF


def test_mx_rounds_to_nearest_where_autoround_rounds_twice():
    x = torch.full((1, 32), 448.)
    x[0, 0] = float(np.nextafter(np.float32(4), np.float32(0)))
    assert qdq(x, 'MXFP6', 'nearest')[0, 0] == 0 and quant_mx(x, bits=6, group_size=32)[0][0, 0] == 8


@many
@given(matrices, st.sampled_from(['nv_fp', 'nv_fp4_with_static_gs']), st.sampled_from([torch.float32, torch.bfloat16]))
def test_nvfp4_is_bit_identical_to_autorounds(x, kind, dtype):
    x = torch.from_numpy(x).to(dtype)
    ours, theirs = QUANTIZERS[kind](x, kind, 4, True, 16), autoround_qdq(x, kind, 4, True, 16)
    assert torch.equal(ours.nan_to_num(-1.), theirs.nan_to_num(-1.))     # the scale of a tensor of subnormals is beyond float32


@many
@given(matrices, st.sampled_from(['MXFP4', 'MXFP6', 'MXFP8']), st.sampled_from(list(ROUNDINGS)))
def test_quantizing_twice_changes_nothing(x, name, rounding):
    once = qdq(torch.from_numpy(x), name, rounding)
    assert torch.equal(qdq(once, name, rounding), once)


@many
@given(matrices, st.sampled_from(['MXFP4', 'MXFP6', 'MXFP8']), st.sampled_from([torch.float32, torch.bfloat16]))
def test_a_search_is_never_further_from_the_weight(x, name, dtype):
    x = torch.from_numpy(x).to(dtype)
    unit = x.abs().amax().float().clamp(min=1e-30)
    loss = lambda rounding: ((qdq(x, name, rounding).float() - x.float()) / unit).double().square().sum()
    assert loss('search') <= loss('nearest') * (1 + 1e-5) + 1e-12


def test_a_search_keeps_what_the_floor_would_cut_off():
    x = torch.full((1, 32), 480.)
    once = qdq(x, 'MXFP8')
    assert torch.equal(once, x) and (qdq(x, 'MXFP8', 'nearest') == 448).all() and torch.equal(qdq(once, 'MXFP8'), once)


@many
@given(st.sampled_from(['W2A16', 'W3A16', 'W4A16G64', 'W8A16G32', 'MXFP4', 'MXFP8', 'NVFP4', 'GGUF:Q4_0', 'BF16']),
       st.integers(1, 4000), st.integers(1, 4000))
def test_stored_bits_are_never_fewer_than_payload(name, o, i):
    i = i * 32 if 'GGUF' in name else i
    assert stored_bits(name, (o, i)) >= bits(name) * o * i
    assert bpw(name, (o, i)) >= bits(name)


def test_large_costs_common_to_all_schemes_do_not_hide_the_others():
    loss, sizes = np.array([[1e4, 1e4 - 1e-5], [3e-5, 0.], [2e-5, 0.]]), np.array([[1, 2]] * 3)
    assert knapsack(loss, sizes, 4)[0].tolist() == [0, 1, 0]


def scores(loss, shapes):
    ls = tuple(Layer(f'blocks.{i}.w', s, i) for i, s in enumerate(shapes))
    return Scores(torch.tensor(loss), ls, tuple((l.name,) for l in ls), ('W2A16', 'W4A16', 'W8A16'))


problems = st.integers(2, 5).flatmap(lambda n: st.tuples(
    st.lists(st.lists(st.floats(0, 1), min_size=3, max_size=3), min_size=n, max_size=n),
    st.lists(st.tuples(st.integers(1, 9).map(lambda v: v*32), st.integers(1, 9).map(lambda v: v*32)), min_size=n, max_size=n)))


@many
@given(problems, st.floats(2, 8))
def test_allocation_is_optimal_and_within_budget(problem, budget):
    s = scores(*problem)
    r = allocate(s, bits=budget)
    assert r.bits <= budget + 1e-9
    size = [[o*i*bits(q) for q in s.schemes] for o, i in problem[1]]
    limit = budget * sum(o*i for o, i in problem[1]) + 1e-6
    best = min(sum(s.loss[g, q].item() for g, q in enumerate(c)) for c in itertools.product(range(3), repeat=len(size))
               if sum(size[g][q] for g, q in enumerate(c)) <= limit)
    assert r.loss == pytest.approx(best, rel=1e-5, abs=1e-9)


@many
@given(problems, st.floats(2, 8), st.floats(2, 8))
def test_a_larger_budget_never_loses_more(problem, a, b):
    s = scores(*problem)
    assert allocate(s, bits=max(a, b)).loss <= allocate(s, bits=min(a, b)).loss + 1e-6


@many
@given(problems, st.floats(2, 8), st.integers(0, 9))
def test_baselines_meet_their_budget(problem, budget, seed):
    s = scores(*problem)
    for r in (head(s, bits=budget), tail(s, bits=budget), random(s, seed, bits=budget)): assert r.bits <= budget + 1e-9


@many
@given(problems, st.floats(2.2, 8))
def test_recipes_survive_the_round_trip(problem, budget):
    import tempfile
    r = allocate(scores(*problem), bits=budget)
    with tempfile.TemporaryDirectory() as d: back = Recipe.load(r.save(f'{d}/r.json'))
    assert (back.schemes, back.shapes, back.budget, back.loss, back.made) == (r.schemes, r.shapes, r.budget, r.loss, r.made)


@few
@given(st.lists(st.sampled_from(['MXFP4', 'NVFP4', 'W2A16G32', 'GGUF:Q4_K_S', 'BF16', 'FP8_STATIC']), min_size=14, max_size=14))
def test_quantized_leaves_the_model_as_it_was(names):
    m = tiny_model(hidden_size=256, intermediate_size=256, head_dim=64)   # wide enough for a K-quant block
    before = {k: v.clone() for k, v in m.state_dict().items()}
    ls = layers(m)
    with quantized(m, Recipe({l.name: n for l, n in zip(ls, names)}, {l.name: l.shape for l in ls})): m(torch.tensor([[1, 2, 3]]))
    assert all(torch.equal(v, before[k]) for k, v in m.state_dict().items())


@few
@given(st.integers(0, 10**6), st.sampled_from(['llama', 'qwen3', 'gemma3']))
def test_a_row_of_scores_does_not_depend_on_its_company(seed, family):
    ids = torch.randint(3, 256, (3, 16), generator=torch.Generator().manual_seed(seed))
    m = tiny_model(family)
    together = score(m, ids, ('MXFP4', 'W4A16G32')).samples
    alone = torch.cat([score(m, ids[i:i+1], ('MXFP4', 'W4A16G32')).samples for i in range(3)])
    assert torch.allclose(together, alone, rtol=1e-3, atol=1e-6)


def test_knapsack_with_sizes_of_a_large_model():
    rng = np.random.default_rng(0)
    loss = np.sort(rng.random((252, 4)), 1)[:, ::-1] * 1e-7
    sizes = rng.integers(10**6, 10**8, (252, 1)) * np.array([2, 3, 4, 8]) + rng.integers(0, 7, (252, 1))   # no common divisor
    limit = int(sizes[:, 0].sum() * 1.7)
    choice, gap = knapsack(loss.copy(), sizes, limit)
    assert sizes[np.arange(252), choice].sum() <= limit and gap < 1e-4


masks = st.lists(st.lists(st.booleans(), min_size=3, max_size=3).filter(any), min_size=5, max_size=5)


@many
@given(problems, masks, st.floats(2, 8))
def test_rules_only_take_choices_away(problem, mask, budget):
    s = scores(*problem)
    ok = np.array(mask)[:len(problem[0])]
    size = np.array([[o*i*bits(q) for q in s.schemes] for o, i in problem[1]])
    limit = int(budget * sum(o*i for o, i in problem[1]))
    every = [c for c in itertools.product(range(3), repeat=len(size)) if all(ok[g, q] for g, q in enumerate(c)) and sum(size[g, q] for g, q in enumerate(c)) <= limit]
    if not every: return
    loss = s.loss.double().numpy()
    choice, gap = knapsack(loss, size, limit, ok)
    total = loss[np.arange(len(size)), choice].sum()
    assert tuple(choice) in set(every) and total == pytest.approx(min(loss[range(len(size)), c].sum() for c in every), rel=1e-6, abs=1e-9)


@few
@given(st.permutations(range(6)), st.integers(1, 5))
def test_merged_shards_are_one_run(order, cut):
    ids = torch.randint(3, 256, (6, 16), generator=torch.Generator().manual_seed(0))[list(order)]
    m, names = tiny_model(), ('MXFP4', 'W4A16G32')
    one, both = score(m, ids, names), Scores.merge([score(m, ids[:cut], names), score(m, ids[cut:], names)])
    assert torch.allclose(one.loss, both.loss, rtol=1e-4) and one.meta['tokens'] == both.meta['tokens'] and torch.equal(one.ids, both.ids)


def test_a_hundred_budgets_of_a_large_model_are_proven():
    rng = np.random.default_rng(0)
    kinds = [(4096, 4096), (1024, 4096), (1024, 4096), (4096, 4096), (12288, 4096), (12288, 4096), (4096, 12288)]
    loss = rng.random((252, 1))**4 * np.array([1, .3, .06, .001]) * (1 + .2*rng.random((252, 4)))
    sizes = np.array([[o*i*b for b in (2, 3, 4, 8)] for _ in range(36) for o, i in kinds])
    for limit in np.linspace(sizes[:, 0].sum(), sizes[:, 3].sum(), 100).astype(int):
        choice, gap = knapsack(loss, sizes, limit)
        assert sizes[np.arange(252), choice].sum() <= limit and gap < 1e-9


def shard(seed, n, groups=6):
    "Scores of `n` sequences that no other seed has, with all their parts."
    g = torch.Generator().manual_seed(seed)
    ls = tuple(Layer(f'model.layers.{i//3}.self_attn.{"qkv"[i%3]}_proj', (32, 64), i//3) for i in range(groups))
    cross = torch.rand(n, groups, 3, 3, generator=g)
    samples, uniform = cross.diagonal(dim1=-2, dim2=-1).clone(), torch.rand(n, 3, generator=g)
    ids = torch.randint(0, 1000, (n, 8), generator=g)
    ids[:, 0] = 10**6*seed + torch.arange(n)
    return Scores(mean_loss(samples, uniform), ls, tuple((l.name,) for l in ls), ('W2A16', 'W4A16', 'MXFP8'), samples=samples, cross=cross, uniform=uniform, ids=ids,
                  meta=dict(method='fisher', model='m', tokens='t', source=str(seed), length=8, grouping='none', seed=0, version='0'))


sizes = st.integers(1, 4)


@many
@given(sizes, sizes, sizes)
def test_merging_is_associative(a, b, c):
    x, y, z = (shard(i, n) for i, n in enumerate((a, b, c)))
    left, right, once = Scores.merge([Scores.merge([x, y]), z]), Scores.merge([x, Scores.merge([y, z])]), Scores.merge([x, y, z])
    for k in ('loss', 'samples', 'cross', 'uniform', 'ids'): assert torch.equal(getattr(left, k), getattr(once, k)) and torch.equal(getattr(right, k), getattr(once, k))
    assert left.meta['tokens'] == right.meta['tokens'] == once.meta['tokens']


@many
@given(sizes, st.lists(st.sampled_from(['W2A16', 'W4A16', 'MXFP8']), min_size=1, max_size=3, unique=True))
def test_choosing_formats_and_joining_layers_commute(n, names):
    s = shard(0, n)
    a, b = s.select(names).regroup('fused'), s.regroup('fused').select(names)
    assert a.groups == b.groups and a.schemes == b.schemes == tuple(names)
    for k in ('loss', 'samples', 'cross', 'uniform'): assert torch.equal(getattr(a, k), getattr(b, k))
    assert torch.allclose(a.loss.sum(0), s.select(names).loss.sum(0))


@many
@given(sizes, st.integers(0, 10**6))
def test_scores_survive_the_round_trip(n, seed):
    import tempfile
    s = shard(seed, n)
    with tempfile.TemporaryDirectory() as d: back = Scores.load(s.save(f'{d}/s.safetensors'))
    for k in ('loss', 'samples', 'cross', 'uniform', 'ids'): assert torch.equal(getattr(back, k), getattr(s, k))
    assert (back.layers, back.groups, back.schemes) == (s.layers, s.groups, s.schemes)
    assert back.meta == dict(engine='autoround', rounding='search') | s.meta      # a file always says how it was simulated


logits = arrays(np.float32, (2, 3, 7), elements=st.floats(-60, 60, width=32))


@many
@given(logits, logits)
def test_divergence_is_never_negative_and_zero_only_for_equals(a, b):
    p, q = (torch.from_numpy(x).log_softmax(-1) for x in (a, b))
    ids = torch.zeros(2, 4, dtype=torch.long)
    d = compare_logprobs(p, q, ids)
    assert (d['kl'] > -1e-4).all() and (d['reverse_kl'] > -1e-4).all()      # floats of a sum of seven
    same = compare_logprobs(p, p, ids)
    assert (same['kl'] == 0).all() and (same['top1'] == 1).all() and (same['top5'] == 1).all()


@many
@given(st.sampled_from(['Q4_0', 'Q4_1', 'Q5_0', 'Q5_1', 'Q8_0']), st.integers(1, 5), st.integers(1, 5))
def test_the_bits_of_a_gguf_layer_are_those_of_its_file(name, o, blocks):
    from gguf import GGMLQuantizationType as T, quants
    packed = quants.quantize(np.ones((o, 32*blocks), np.float32), T[name])
    assert stored_bits(f'GGUF:{name}', (o, 32*blocks)) == 8*packed.nbytes
