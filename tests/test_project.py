"The notebooks, the library and the README belong together and are clean."
import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from conftest import ROOT, run
from readme import readme
from scipy.stats import ttest_1samp

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
RUN = [p for p in NOTEBOOKS if 'benchmarks' not in p.parts]   # a benchmark takes hours
PROJECT = ('nbs', 'mpq_nb', 'settings.ini', 'setup.py', 'README.md')


@pytest.fixture(scope='module')
def twin(tmp_path_factory):
    "A copy of the sources, exported and cleaned anew."
    d = tmp_path_factory.mktemp('twin')
    for n in PROJECT: (shutil.copytree if (ROOT/n).is_dir() else shutil.copy)(ROOT/n, d/n)
    for p in (d/'mpq_nb').rglob('*.py'):
        if p.name != '__init__.py': p.unlink()
    for cmd in ('nbdev_export', 'nbdev_clean'):
        r = run(Path(sys.executable).parent/cmd, cwd=d)
        assert r.returncode == 0, r.stderr
    return d


def modules(root):
    "The library's source: {path within it: text}."
    return {str(p.relative_to(root/'mpq_nb')): p.read_text() for p in (root/'mpq_nb').rglob('*.py')}


def test_library_is_what_the_notebooks_export(twin):
    mine, made = modules(ROOT), modules(twin)
    assert len(made) > 50   # the export did run
    for name, text in mine.items(): assert text == made.get(name), f'{name} differs from the notebooks: run nbdev_export'
    assert set(mine) == set(made)


def test_notebooks_are_clean(twin):
    for p in NOTEBOOKS:
        assert p.read_text() == (twin/p.relative_to(ROOT)).read_text(), f'{p.name} is not clean: run nbdev_clean'


def test_readme_is_the_index():
    assert (ROOT/'README.md').read_text() == readme(ROOT), 'README.md differs from nbs/index.ipynb: run make readme'


def lint_imports(cwd):
    "What import-linter says of the contracts in .importlinter."
    return run(Path(sys.executable).parent/'lint-imports', '--no-cache', cwd=cwd, PYTHONPATH=str(cwd))


def test_arrows_go_down_only():
    r = lint_imports(ROOT)
    assert r.returncode == 0 and ' 0 broken' in r.stdout, r.stdout


def test_an_arrow_that_goes_up_is_seen(tmp_path):
    "The test above can fail: the same library with one import too many breaks its contract."
    shutil.copytree(ROOT/'mpq_nb', tmp_path/'mpq_nb', ignore=shutil.ignore_patterns('__pycache__'))
    shutil.copy(ROOT/'.importlinter', tmp_path)
    low = tmp_path/'mpq_nb'/'base'/'schemes.py'
    low.write_text(low.read_text() + '\nfrom mpq_nb.core import knapsack\n')
    r = lint_imports(tmp_path)
    assert r.returncode != 0 and 'mpq_nb.base.schemes -> mpq_nb.core.knapsack' in r.stdout, r.stdout


def private_imports(path):
    "Private names that a module takes from another one of the library."
    tree = ast.parse(path.read_text())
    for n in ast.walk(tree):
        own = isinstance(n, ast.ImportFrom) and (n.level or (n.module or '').startswith('mpq_nb'))
        if own: yield from (a.name for a in n.names if a.name.startswith('_') and not a.name.startswith('__'))


def test_no_module_uses_a_private_name_of_another():
    for p in (ROOT/'mpq_nb').rglob('*.py'):
        assert not list(private_imports(p)), p


def test_no_name_is_undefined():
    "A notebook may have imported for its examples what the library lacks."
    said = run(sys.executable, '-m', 'pyflakes', *(ROOT/'mpq_nb').rglob('*.py')).stdout
    assert 'undefined name' not in said, said


def test_outputs_hold_no_paths_of_this_machine():
    for p in [*NOTEBOOKS, ROOT/'README.md']:
        assert str(ROOT) not in p.read_text() and str(Path.home()/'.cache') not in p.read_text(), p.name


# Importing these takes longer than most notebooks run, so they are imported once, and each notebook gets a fork. Nothing of ours is
# among them.
RUNNER = """
from pathlib import Path
import auto_round, datasets, lm_eval, matplotlib.pyplot, pandas, scipy.optimize, torch, transformers
from nbdev.test import test_nb
from mpq_nb.apps.engines.ask import serve
def ask(notebook, _, out):
    if not test_nb(Path(notebook))[0]: raise SystemExit(1)
serve(ask)
"""


@pytest.fixture(scope='session')
def runner():
    "A process that runs notebooks in forks."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    pipes = dict(stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    p = subprocess.Popen([sys.executable, '-c', RUNNER], cwd=ROOT, env=env, text=True, **pipes)
    yield p
    p.kill()
    p.communicate()


@pytest.mark.timeout(600)
@pytest.mark.parametrize('nb', RUN, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_notebook_runs(nb, runner, tmp_path):
    "Top to bottom, by nbdev's own runner, in a process of its own."
    job = dict(folder=str(nb), tokens='', out=str(tmp_path/'out'), seconds=580, env={})
    runner.stdin.write(json.dumps(job) + '\n')
    runner.stdin.flush()
    code = json.loads(runner.stdout.readline())['code']
    assert code == 0, (tmp_path/'out.stderr').read_text(errors='replace')[-3000:]


def over_draws(kl, cell):
    "By how much ours is lower than each rival, ± the standard error over three draws; empty where there is one draw."
    if (cell, 'prismaquant', 2) not in kl: return []
    out = []
    for rival in ('modelopt-gradient', 'prismaquant'):
        d = np.array([kl[cell, rival, i] - kl[cell, 'ours, refined, fused', i] for i in range(3)])
        assert ttest_1samp(d, 0).pvalue > .05       # level: no row of these is in bold
        out.append(f'{d.mean():.3f} ± {d.std(ddof=1) / 3**.5:.3f}'.replace('0.', '.'))
    return out


def test_the_readme_says_what_the_benchmark_measured():
    rows = [json.loads(l) for l in (ROOT/'nbs'/'benchmarks'/'allocation.jsonl').read_text().splitlines()]
    kl = {(r['cell'], r['method'], r['draw']): sum(r['kl'])/len(r['kl']) for r in rows}
    line = r'^\| ((?:MXFP|W)\S.*) @ (\S+) \| (.*) \| (\S+) \| (\S+) \|$'
    text = (ROOT/'README.md').read_text()
    said = re.findall(line, text, re.M)
    assert len(said) == 6
    for formats, bits, fused, free, ratio in said:
        cell = formats.replace(', MXFP', '/').replace(', ', '/') + f' @ {bits}'
        methods = ('AutoScheme', 'modelopt-gradient', 'prismaquant', 'ours, refined, fused', 'ours, refined')
        measured = [kl[cell, m, 0] for m in methods]
        differences = over_draws(kl, cell)
        best = None if differences else min(measured[:4])       # in bold, whoever's it is
        for mean_se in differences: assert mean_se in text
        shown = [f'**{v:.3f}**' if v == best else f'{v:.3f}' for v in measured]
        assert [*fused.split(' | '), free] == shown
        assert ratio == f'{measured[3] / min(measured[:3]):.2f}'
