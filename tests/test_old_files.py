"""Today's readers find in files of mpq_nb 0.1.0 the values that it wrote.

old/make.py has the commands that made them, old/expected.json what these printed.
"""
import json
import re
import shutil
from collections import Counter
from dataclasses import asdict
from pathlib import Path

import pytest
from conftest import ROOT
from old.make import tiny

from mpq_nb.allocation import Recipe, allocate
from mpq_nb.cli import main
from mpq_nb.evaluation import TaskResults
from mpq_nb.report import read_run
from mpq_nb.schemes import qdq_activation
from mpq_nb.sensitivity import Scores
from mpq_nb.study import Study, read_rows

OLD = Path(__file__).parent/'old'
EXPECTED = json.loads((OLD/'expected.json').read_text())
SCORES = [n for n in EXPECTED if n.endswith('.safetensors')]
RECIPES = [n for n in EXPECTED if '/recipes/' in n]
SOLVED = [n for n in RECIPES if n != 'run/recipes/refined.json']     # without the model
KEYS = ('kl', 'kl_se', 'top1', 'ppl', 'ppl_ratio')
BUDGETS = {     # the others have 5 bits
    'bpw': dict(bpw=5.5), 'gib': dict(gib=.00032), 'uniform': None, 'ints': dict(bits=4.5),
    'fit': dict(fit=.52/1024, context=128, batch=2),
    'fixed': dict(bits=6), 'at_least': dict(bits=6), 'families': dict(bits=6)}
RULES = {
    'fixed': dict(fixed={'down_proj': 'MXFP8', 'layers.0.self_attn': 'MXFP4'}),
    'at_least': dict(at_least={'v_proj': 'MXFP8'}),
    'vllm': dict(engine='vllm'), 'families': dict(engine='transformers')}
MAKERS = dict(head='head', tail='tail', random='random 1', uniform='uniform MXFP4',
              refined='ours, refined')


def printed(name): return EXPECTED[name]['printed']


def command(name): return EXPECTED[name]['command'].split()[1:]


def raw(name): return json.loads((OLD/name).read_text())


@pytest.fixture
def old(tmp_path, monkeypatch):
    "Run the commands in a copy of the files, as when these were made."
    shutil.copytree(OLD, tmp_path/'old')
    monkeypatch.chdir(tmp_path/'old')
    return tmp_path/'old'


@pytest.fixture
def says(capsys):
    "Run a command for what it prints with --json; it must end with a `status` given."
    def run(*words, status=(0,)):
        capsys.readouterr()
        got = main([*words, '--json'])
        out = capsys.readouterr()
        assert got in status, out.err
        return json.loads(out.out)
    return run


@pytest.mark.parametrize('name', SCORES)
def test_scores(name):
    from safetensors import safe_open
    s, want = Scores.load(OLD/name), printed(name)
    assert list(s.schemes) == want['schemes'] and len(s.groups) == want['groups']
    assert s.loss.sum(0).tolist() == want['total']
    with safe_open(OLD/name, 'pt') as f:
        for k in f.keys():     # NaN stands for what was not measured
            assert getattr(s, k).nan_to_num(-1).equal(f.get_tensor(k).nan_to_num(-1)), k
    assert (s.samples is None) == (name == 'run/mse.safetensors')
    assert s.ids.shape == (2, 16)


def test_scores_say_what_they_are_of():
    s = Scores.load(OLD/'run/ints.safetensors')
    want = dict(model='276e6ef678f46498', model_name='./tiny', method='fisher', dtype='float32',
                grouping='fused', source='calibration.jsonl, seed 0', rest_bytes=133376,
                cache=[[256, 0], [256, 0]])
    assert {k: s.meta[k] for k in want} == want and s.meta['ran']['command'] == 'score'
    q, down = s.layers[0], s.layers[-1]
    assert (q.name, q.shape, q.block) == ('model.layers.0.self_attn.q_proj', (128, 128), 0)
    assert (down.kind, down.shape, down.block) == ('mlp.down_proj', (128, 256), 1)
    assert s.groups[0] == tuple(f'model.layers.0.self_attn.{k}_proj' for k in 'qkv')


def test_scores_with_the_head():
    assert Scores.load(OLD/'run/head.safetensors').layers[-1].name == 'lm_head'


def test_old_scores_can_be_merged_and_divided():
    s, other = (Scores.load(OLD/'run'/f'{n}.safetensors') for n in ('scores', 'mixed'))
    assert other.select(['MXFP4']).loss[:, 0].equal(other.loss[:, 0])
    assert len(s.regroup('fused').groups) == 8
    assert Scores.merge([s]).loss.equal(s.loss)


def test_the_tutorials_scores():
    s = Scores.load(ROOT/'nbs/tutorials/demo_scores.safetensors')
    assert s.schemes == ('W2A16G64', 'W4A16G64', 'W8A16G64', 'MXFP4', 'MXFP8', 'BF16')
    assert s.samples.shape == (16, 210, 6) and s.meta['model'] == '6bd870067d91cdda'
    total = [round(v, 4) for v in s.loss.sum(0).tolist()]
    assert total == [6.5935, .4212, .0021, 1.569, .1225, 0]
    assert 4.99 < allocate(s.select(['MXFP4', 'MXFP8']), bits=5).bits <= 5


@pytest.mark.parametrize('name', RECIPES)
def test_recipe(name):
    r, want, stem = Recipe.load(OLD/name), printed(name), Path(name).stem
    assert (r.bits, r.bpw, r.nbytes) == (want['bits'], want['bpw'], want['bytes'])
    assert r.loss == want['predicted_loss']
    assert r.schemes == raw(name)['layers'] and Counter(r.schemes.values()) == want['layers']
    assert list(r.shapes) == list(r.schemes)
    assert r.shapes['model.layers.1.mlp.down_proj'] == (128, 256)
    budget = BUDGETS.get(stem, dict(bits=5))
    assert r.budget == (budget and pytest.approx(budget))
    assert r.made['by'] == MAKERS.get(stem, 'ours')
    assert all(r.made.get(k) == want[k] for k in ('gap', 'refined'))
    rules = {k: r.made[k] for k in ('fixed', 'at_least', 'engine') if k in r.made}
    assert rules == RULES.get(stem, {})
    assert r.has_head == (stem == 'lm_head')


def test_recipe_that_came_from_one_family_of_two():
    made = Recipe.load(OLD/'run/recipes/families.json').made
    assert made['loss_without_engine'] == 0.03531545028090477
    assert list(made['families']) == ['W8A16G32,BF16'] and made['among'] == ['MXFP4', 'BF16']


def test_recipe_that_was_edited_by_hand(tmp_path):
    "Its layers and their shapes are all that a recipe needs."
    d = raw('run/recipes/bits.json')
    lower = {k: v.lower() for k, v in d['layers'].items()}
    (tmp_path/'r.json').write_text(json.dumps(dict(layers=lower, shapes=d['shapes'])))
    r = Recipe.load(tmp_path/'r.json')
    assert (r.schemes, r.bits, r.bpw, r.loss) == (d['layers'], 5, 5.25, None)


@pytest.mark.parametrize('name', SOLVED)
def test_old_scores_are_solved_to_the_old_recipe(name, old, says):
    "By the command that made it."
    *words, _ = command(name)
    got, want = says(*words, 'again.json'), printed(name)
    assert {k: got[k] for k in want} | dict(out=0) == want | dict(out=0)      # today's says more
    assert json.loads(Path('again.json').read_text())['layers'] == raw(name)['layers']


def row_of(source):
    "The row that a file of the run gives."
    row, = (r for r in read_run(OLD/'run').rows if r.get('source') == source)
    return row


@pytest.mark.parametrize('name', ['run/evaluation.json', 'run/packed.json'])
def test_evaluation(name):
    row, want = row_of(name.removeprefix('run/')), printed(name)
    assert {k: row[k] for k in KEYS} == {k: want[k] for k in KEYS}
    assert (row['model'], row['recipe'], row['bits']) == ('./tiny', 'ours', 5)
    assert raw(name)['tokens'] == want['tokens']
    asked = {t['task']: (t['value'], t['se']) for t in want['tasks']
             if t['model'] == 'quantized' and t['metric'] == 'acc'}
    assert row['accuracies'] == asked and len(asked) == (name == 'run/packed.json')


def test_checkpoint():
    "Its recipe, and the proof that it was read back."
    v, row = printed('run/packed')['verification'], row_of('packed/verification.json')
    assert read_run(OLD/'run').checkpoints == {'packed/verification.json': v} and v['ok']
    assert (row['kl'], row['top1']) == (v['kl_original'], v['top1_original'])
    assert (row['bytes'], row['bpw']) == (v['bytes'], v['bpw'])
    made = Recipe.load(OLD/'run/packed/recipe.json').made
    assert made['export'] == dict(format='auto_round', tuned=False, auto_round='0.16.1')
    assert made['written']['command'] == 'quantize'


@pytest.mark.parametrize('name', ['run/packed', 'run/fake'])
def test_a_checkpoint_that_is_there_is_not_made_again(name, old, says):
    "The same command with --resume reads what it left; there is no model here."
    assert says(*command(name), '--resume') == printed(name)


def test_note_of_a_fake_model(tmp_path):
    "Loading it rounds each layer's inputs as the note says."
    import torch
    from mpq_nb.models import load
    tiny(tmp_path)
    shutil.copy(OLD/'run/fake/fake_quantization.json', tmp_path)
    model, note = load(str(tmp_path))[0], raw('run/fake/fake_quantization.json')
    assert note == Recipe.load(OLD/'run/recipes/bits.json').schemes
    assert set(note.values()) == {'MXFP4', 'MXFP8'}
    for name, scheme in note.items():
        layer = model.get_submodule(name)
        x = torch.randn(1, 3, layer.in_features, generator=torch.Generator().manual_seed(0))
        rounded = torch.nn.functional.linear(qdq_activation(x, scheme), layer.weight)
        assert layer(x).equal(rounded), name


def test_study_in_yaml():
    filled = dict(rounding='nearest')     # what the file does not say is what was done then
    assert asdict(Study.load(OLD/'study.yaml')) == filled | dict(
        title='a tiny study', models=('./tiny',), budgets=(5.,), schemes=('mxfp4', 'MXFP8'),
        recipes=('bf16', 'uniform:MXFP4', 'head', 'random:1', 'ours', 'ours:fast'),
        tasks=('piqa',), limit=3, calibration='calibration.jsonl', text='held_out.jsonl',
        samples=2, text_samples=2, length=16, seed=0, format='fake', groups='none', dtype='auto')


def test_rows_of_a_study():
    rows = list(read_rows(OLD/'study').values())
    told = [{k: v for k, v in r.items() if k not in ('kl_rows', 'tasks')} for r in rows]
    assert told == printed('study')['cells'] and len(rows) == 6
    for r in rows:
        tasks = TaskResults.fromdict(r['tasks'])
        assert tasks.accuracy('piqa')[0] == pytest.approx(tasks.results['piqa']['acc,none'])
        assert len(tasks.answers('piqa')[0]) == 3
        assert sum(r['kl_rows'])/2 == pytest.approx(r['kl'], rel=1e-4)


def test_a_finished_study_is_not_run_again(old, says):
    "Its cells are known as finished; there is no model here."
    got = says('study', 'study.yaml', '-o', 'study', '--resume')
    assert got == printed('study') and got['failed'] == 0


def test_report_of_a_study(old, says):
    run = read_run(old/'study')
    assert run.study == Study.load('study.yaml') and not run.missing()
    assert len(run.recipes) == 5 and len(run.scores) == 1
    want = [(c['recipe'], c['kl']) for c in printed('study')['cells']]
    assert [(r['recipe'], r['kl']) for r in run.rows] == want
    says('report', 'study')
    page = text(old/'study/report.html')
    for part in ('a tiny study', 'uniform:MXFP4', 'ours:fast @ 5', 'piqa'):
        assert part in page, part


def test_report_of_a_folder(old, says):
    run = read_run(old/'run')
    assert len(run.scores) == len(SCORES) and len(run.evaluations) == 2
    assert len(run.recipes) == len(RECIPES) + 2     # those of the two checkpoints
    says('report', 'run')
    page = text(old/'run/report.html')
    kl = [f"{printed(n)['kl']:.3f}" for n in ('run/evaluation.json', 'run/packed.json')]
    for part in ('./tiny', 'at least MXFP8', 'held_out.jsonl', 'packed, as loaded', *kl):
        assert part in page, part


def text(page):
    "The words of a page, without tags and styles."
    words = re.sub(r'<style.*?</style>|<[^>]+>', ' ', page.read_text(), flags=re.S)
    return ' '.join(words.split())


@pytest.mark.parametrize('name', [*SCORES, 'run/recipes/bits.json', 'run/recipes/refined.json',
                                  'run/evaluation.json'])
def test_a_file_tells_how_it_was_made(name, old, capsys):
    "Reproducing it gets as far as the model, which is not here."
    assert main(['reproduce', name]) == 2
    err = capsys.readouterr().err
    made_by = command('run/scores.safetensors' if '/recipes/' in name else name)
    assert f"making '{name}' again: mpq {made_by[0]} model='./tiny'" in err
    assert "there is no model at './tiny'" in err


@pytest.mark.timeout(600)
def test_files_are_made_again(old, says):
    "Scores, a recipe and an evaluation; the last digits may be another machine's."
    tiny(old/'tiny')
    same = says('reproduce', 'run/scores.safetensors', status=(0, 1))
    off = re.search(r'up to (\S+) of', same['difference'])
    assert off and float(off[1]) < .05, same
    assert says('reproduce', 'run/recipes/bits.json')['identical']
    judged = says('reproduce', 'run/evaluation.json', status=(0, 1))
    asked = 'model|by|bits|bpw|bytes|text|tokens|sequences|length|of'
    if not judged['identical']: assert not re.search(f'(^|; )({asked}) ', judged['difference'])
