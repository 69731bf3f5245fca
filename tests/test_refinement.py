"Refinement: effort, interruption, resumption, and logits that come in slices."
import itertools
from dataclasses import replace
from unittest import mock

import numpy as np
import pytest
import torch

import mpq_nb.core.refinement as refinement
from mpq_nb.allocation import allocate, head, random, tail, uniform
from mpq_nb.base.layers import tiny_model
from mpq_nb.base.resume import Checkpoint
from mpq_nb.base.text import sample
from mpq_nb.core.refinement import Judge, linear, refine
from mpq_nb.sensitivity import score

NET = 3     # uniform in the smallest format, head, tail


class Case:
    "A tiny model, its scores, and a recipe far from the best, so that there is something to gain."
    def __init__(self):
        self.model = tiny_model()
        self.ids = sample(self.model, 16, 64, prefix=[1])
        self.scores = score(self.model, self.ids, ('W2A16G32', 'W4A16G32', 'W8A16G32'))
        self.best = allocate(self.scores, bits=3.5)
        self.rough = random(self.scores, 0, bits=3.5)

    def refine(self, n=16, recipe=None, **kw):
        return refine(self.model, self.ids[:n], self.scores, recipe or self.rough, **kw)


@pytest.fixture(scope='module')
def case(): return Case()


def about(recipe): return recipe.made.refined


def test_detours_come_in_the_order_of_what_was_measured_and_never_from_a_naive_recipe(case):
    judge = Judge(case.model, case.ids, 4)
    judge(case.best, 'start'), judge(uniform(case.scores, 'W2A16G32'), 'uniform W2A16G32', net=True)
    losers = [random(case.scores, k, bits=3.5) for k in range(3)]
    for k in sorted(losers, key=lambda k: judge(k, 'damping 2')):
        assert judge.detour().schemes == k.schemes
        judge.expansions[tuple(k.schemes.values())] = 'a gradient'
    assert judge.detour() is None


def test_logits_in_slices_give_the_same_measurements_and_gradients(case):
    far = uniform(case.scores, 'W2A16G32')
    def measured():
        judge = Judge(case.model, case.ids, 4)
        gradient = linear(case.model, case.ids, judge.refs, far, case.scores.schemes)
        return judge.refs.float(), judge(case.best, ''), judge(far, ''), gradient
    whole = measured()
    with mock.patch('mpq_nb.base.walk.LOGITS', 32*256): sliced = measured()
    assert (whole[0] - sliced[0]).abs().max() < .01     # steps of float16
    assert sliced[1:3] == pytest.approx(whole[1:3], abs=1e-3)
    np.testing.assert_allclose(sliced[3], whole[3], rtol=1e-3, atol=1e-5)


def test_a_round_is_a_gradient(case):
    "With rounds enough there is a gradient for the start and every candidate, and the end is no worse."
    with mock.patch.object(refinement, 'linear', wraps=linear) as gradients: every = about(case.refine(4, rounds=1000))
    assert every['ended'] == 'no further gain'
    assert gradients.call_count == 1 + sum(n.startswith('damping') for n, _ in every['measured'])
    with mock.patch.object(refinement, 'linear', wraps=linear) as gradients: few = about(case.refine(4, rounds=2))
    assert gradients.call_count == 2
    assert every['kl'] <= few['kl'] and every['measured'][:few['evaluations']] == few['measured']
    assert about(case.refine(4, rounds=2, damping=(0,)))['ended'] == 'rounds'     # no damping is damping to begin with


def test_it_keeps_to_the_effort_allowed(case):
    few = about(case.refine(evaluations=2))
    assert (few['evaluations'], few['ended']) == (1 + NET + 2, 'budget')
    assert about(case.refine(4, evaluations=0))['evaluations'] == 1 + NET
    assert about(case.refine(4, minutes=0))['evaluations'] == 1 + NET


def test_it_keeps_to_what_an_engine_reads(case):
    scores = score(case.model, case.ids[:4], ('W4A16G32', 'W6A16G32', 'W8A16G32'))      # 6 bits are not packed
    def formats(**kw): return refine(case.model, case.ids[:4], scores, allocate(scores, bits=6, **kw)).schemes.values()
    assert 'W6A16G32' in formats() and 'W6A16G32' not in formats(engine='transformers')


@pytest.mark.parametrize('at', (6, 14, 32, 40))     # while the start, a naive recipe, the first candidates are measured
def test_interrupted_it_returns_the_best_so_far_and_leaves_the_model_as_it_was(case, at):
    before = {k: v.clone() for k, v in case.model.state_dict().items()}
    calls = itertools.count()
    def stop(module, args, output):
        if next(calls) == at: raise KeyboardInterrupt
    hook = case.model.model.layers[0].mlp.register_forward_hook(stop)
    try: got = case.refine(batch=4)
    finally: hook.remove()
    assert about(got)['ended'] == 'interrupted'
    if at == 6: assert (got.schemes, about(got)['evaluations']) == (case.rough.schemes, 0)
    else: assert about(got)['kl'] == pytest.approx(min(v for _, v in about(got)['measured']), abs=1e-5)
    assert all(torch.equal(v, before[k]) for k, v in case.model.state_dict().items())


class Cut(Checkpoint):
    "Interrupts the work once it has written."
    def write(self): super().write(); raise KeyboardInterrupt


def test_interrupted_after_every_step_nothing_is_measured_twice_and_the_end_is_the_same(case, tmp_path):
    whole = case.refine()
    with mock.patch('mpq_nb.base.walk.LOGITS', 32*256): assert case.refine().schemes == whole.schemes
    for cuts in itertools.count():
        with Cut(tmp_path/'partial', every=0) as state: got = case.refine(state=state)
        if about(got)['ended'] != 'interrupted': break
    assert (got.schemes, got.made, list(tmp_path.iterdir())) == (whole.schemes, whole.made, [])
    assert cuts > about(whole)['evaluations']     # the gradients are steps as well


def test_a_recipe_made_to_be_terrible_is_caught_by_the_net(case):
    flipped = allocate(replace(case.scores, loss=-case.scores.loss), bits=3.5)
    saved = about(case.refine(recipe=replace(flipped, budget=dict(bits=3.5)), rounds=0))
    judge = Judge(case.model, case.ids, 4)
    assert saved['kl'] <= min(judge(f(case.scores, bits=3.5), '', net=True) for f in (head, tail)) + 1e-4
