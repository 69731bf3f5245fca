"""Does the wheel work where nothing else is? python tests/smoke.py PYTHON...

Builds it from the last commit, and for each Python installs it in an empty environment, imports every module and runs the demo."""
import os, subprocess, sys, tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
IMPORT = "import importlib, pkgutil, mpq_nb; print(*(importlib.import_module(m.name).__name__ for m in pkgutil.walk_packages(mpq_nb.__path__, 'mpq_nb.') if not m.name.rpartition('.')[2].startswith('_')))"


def sh(*args, **kw): return subprocess.run([str(a) for a in args], check=True, stdout=subprocess.PIPE, text=True, **kw).stdout


def wheel(d):
    "The wheel of the last commit, built from its files alone."
    (d/'tree').mkdir()
    subprocess.run(['tar', '-x', '-C', d/'tree'], input=subprocess.run(['git', 'archive', 'HEAD'], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout, check=True)
    sh(sys.executable, '-m', 'pip', 'wheel', '--quiet', '--no-deps', '-w', d, d/'tree')
    return next(d.glob('*.whl'))


def smoke(python, whl, d):
    env = {k: v for k, v in os.environ.items() if not k.startswith('PYTHON')}
    sh(python, '-m', 'venv', d)
    sh(d/'bin'/'python', '-m', 'pip', 'install', '--quiet', whl, cwd=d)
    version = sh(d/'bin'/'python', '-V').strip()
    print(version, sh(d/'bin'/'python', '-c', IMPORT, cwd=d, env=env).strip(), flush=True)
    print(sh(d/'bin'/'mpq', 'demo', cwd=d, env=env).strip().splitlines()[-5], flush=True)
    print(f'{version}: ok', flush=True)


if __name__ == '__main__':
    with tempfile.TemporaryDirectory() as t:
        whl = wheel(Path(t))
        for i, python in enumerate(sys.argv[1:] or [sys.executable]):
            with tempfile.TemporaryDirectory() as d: smoke(python, whl, Path(d))
