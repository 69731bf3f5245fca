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


# What takes minutes begins first, so that at the end no process waits for another.
LONGEST = ('test_cli', 'test_lm_eval', 'test_serving', '05_', 'serve.ipynb', '03_', '06_', '07_', 'index', '11_', 'test_study')


def pytest_collection_modifyitems(items):
    items.sort(key=lambda i: next((k for k, n in enumerate(LONGEST) if n in i.nodeid), len(LONGEST)))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    "A file's tests share what they make, so one process runs them; notebooks go wherever there is room."
    from xdist.scheduler import LoadScopeScheduling
    config.option.loadscopereorder = False
    class ByFile(LoadScopeScheduling):
        def _split_scope(self, nodeid): return nodeid if 'test_notebook_runs' in nodeid else nodeid.partition('::')[0]
    return ByFile(config, log)


def tiny_checkpoint(folder, tokenizer, **config):
    "A tiny random model with a real tokenizer, in a folder."
    from mpq_nb.models import tiny_model
    tiny_model(vocab_size=len(tokenizer), **config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)


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
