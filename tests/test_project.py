"The notebooks, the library and the README belong together and are clean."
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
from conftest import ROOT, run
from readme import readme

NOTEBOOKS = sorted(p for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts)
RUN = [p for p in NOTEBOOKS if 'benchmarks' not in p.parts]   # a benchmark takes hours
PROJECT = ('nbs', 'mpq_nb', 'settings.ini', 'setup.py', 'README.md')


@pytest.fixture(scope='module')
def twin(tmp_path_factory):
    "A copy of the sources, exported and cleaned anew."
    d = tmp_path_factory.mktemp('twin')
    for n in PROJECT: (shutil.copytree if (ROOT/n).is_dir() else shutil.copy)(ROOT/n, d/n)
    for p in (d/'mpq_nb').glob('*.py'):
        if p.name != '__init__.py': p.unlink()
    for cmd in ('nbdev_export', 'nbdev_clean'):
        r = run(Path(sys.executable).parent/cmd, cwd=d)
        assert r.returncode == 0, r.stderr
    return d


def test_library_is_what_the_notebooks_export(twin):
    assert len(list((twin/'mpq_nb').glob('*.py'))) > 5   # the export did run
    for p in sorted((ROOT/'mpq_nb').glob('*.py')):
        assert p.read_text() == (twin/'mpq_nb'/p.name).read_text(), f'{p.name} differs from the notebooks: run nbdev_export'
    assert {p.name for p in (ROOT/'mpq_nb').glob('*.py')} == {p.name for p in (twin/'mpq_nb').glob('*.py')}


def test_notebooks_are_clean(twin):
    for p in NOTEBOOKS:
        assert p.read_text() == (twin/p.relative_to(ROOT)).read_text(), f'{p.name} is not clean: run nbdev_clean'


def test_readme_is_the_index():
    assert (ROOT/'README.md').read_text() == readme(ROOT), 'README.md differs from nbs/index.ipynb: run make readme'


def test_a_module_imports_only_lower_numbers():
    order = {re.sub(r'^\d+_', '', p.stem): int(p.stem[:2]) for p in (ROOT/'nbs').glob('[0-9]*.ipynb')}
    for name, n in order.items():
        used = set(re.findall(r'(?:from|import) mpq_nb\.(\w+)', (ROOT/'mpq_nb'/f'{name}.py').read_text()))
        assert all(order[u] < n for u in used), (name, used)


def test_no_name_is_undefined():
    "A notebook may have imported for its examples what the library lacks."
    said = run(sys.executable, '-m', 'pyflakes', *(ROOT/'mpq_nb').glob('*.py')).stdout
    assert 'undefined name' not in said, said


def test_outputs_hold_no_paths_of_this_machine():
    for p in [*NOTEBOOKS, ROOT/'README.md']:
        assert str(ROOT) not in p.read_text() and str(Path.home()/'.cache') not in p.read_text(), p.name


@pytest.mark.timeout(600)
@pytest.mark.parametrize('nb', RUN, ids=lambda p: str(p.relative_to(ROOT/'nbs')))
def test_notebook_runs(nb, tmp_path):
    "Top to bottom, by nbdev's own runner, in a process of its own."
    code = f"from pathlib import Path; from nbdev.test import test_nb; import sys; sys.exit(not test_nb(Path({str(nb)!r}))[0])"
    r = run(sys.executable, '-c', code, cwd=ROOT)
    assert r.returncode == 0, r.stderr[-3000:]


def test_the_readme_says_what_the_benchmark_measured():
    rows = [json.loads(l) for l in (ROOT/'nbs'/'benchmarks'/'allocation.jsonl').read_text().splitlines()]
    kl = {(r['cell'], r['method'], r['draw']): sum(r['kl'])/len(r['kl']) for r in rows}
    said = re.findall(r'^\| ((?:MXFP|W)\S.*) @ (\S+) \| (.*) \| \*\*(\S+)\*\* \| (\S+) \| (\S+) \|$', (ROOT/'README.md').read_text(), re.M)
    assert len(said) == 6
    for formats, bits, peers, ours, ratio, by_default in said:
        cell = formats.replace(', MXFP', '/').replace(', ', '/') + f' @ {bits}'
        all_of = [kl[cell, m, 0] for m in ('AutoScheme', 'modelopt-gradient', 'prismaquant', 'ours, refined')]
        assert [*peers.split(' | '), ours] == [f'{v:.3f}' for v in all_of] and ratio == f'{all_of[3]/all_of[0]:.2f}'
        assert by_default == f"{kl[cell, 'ours, refined', 3]/kl[cell, 'AutoScheme', 3]:.2f}"
