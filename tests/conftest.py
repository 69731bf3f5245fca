import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*args, cwd=None, timeout=600, **env):
    "Run a command as a user would; what it printed and its status."
    e = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | env   # nbdev does nothing where IN_TEST is set
    return subprocess.run([str(a) for a in args], cwd=cwd, env=e, capture_output=True, text=True, timeout=timeout)


def mpq(*args, **kw): return run(Path(sys.executable).parent/'mpq', *args, **kw)


@pytest.hookimpl(tryfirst=True)     # before pytest-xdist looks for the groups
def pytest_collection_modifyitems(items):
    "A file's tests share what they make, so one process runs them; notebooks go wherever there is room."
    for i in items:
        if 'test_notebook_runs' not in i.name: i.add_marker(pytest.mark.xdist_group(i.path.stem))


@pytest.fixture(scope='session')
def demo():
    "The demo model and its tokenizer."
    from mpq_nb.models import demo_model
    return demo_model()


@pytest.fixture(scope='session')
def data():
    "A folder that mirrors hub names, from the environment."
    d = os.environ.get('MPQ_DATA')
    if not d: pytest.skip('no benchmark data: set MPQ_DATA to a folder that mirrors hub names')
    return d
