"""Make the environments of the engines, as versions.json pins them: python tests/engines/install.py [NAME ...]

Each lies in .engines/NAME, which git ignores. One that is whole is left alone."""
import json
import shutil
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parent
HOME = HERE.parent.parent/'.engines'
ENGINES = json.loads((HERE/'versions.json').read_text())


def python(name): return HOME/name/'bin'/'python'


def is_whole(name):
    "Was this environment made by these pins, to the end?"
    done = HOME/name/'.installed'
    return done.is_file() and json.loads(done.read_text()) == ENGINES[name]


def lacking(name):
    "What speaks against making it here; nothing if nothing does."
    pins = ENGINES[name]
    need, free = pins.get('free_gigabytes', 5), shutil.disk_usage(HERE).free / 1e9
    if free < need: return f'takes a disk with {need} GB free, and {free:.0f} GB are'
    if 'npm' in pins and not shutil.which('npm'): return 'takes npm, which is not installed'
    return ''


def pip(name, *args): subprocess.run([python(name), '-m', 'pip', '--quiet', *args], check=True)


def install(name):
    pins, home = ENGINES[name], HOME/name
    home.mkdir(parents=True, exist_ok=True)
    if 'npm' in pins:
        flags = ('--ignore-scripts', '--no-audit', '--no-fund')
        subprocess.run(['npm', 'install', *flags, pins['npm']], cwd=home, check=True)
    else:
        subprocess.run([sys.executable, '-m', 'venv', home], check=True)
        first, *rest = pins['install']
        pip(name, 'install', first)          # torch, which builds of some others look for
        pip(name, 'install', first, *rest)
        if 'remove' in pins: pip(name, 'uninstall', '--yes', *pins['remove'])
    (home/'.installed').write_text(json.dumps(pins))


def main(names):
    for name in names or ENGINES:
        if is_whole(name): print(f'{name}: there already')
        elif why := lacking(name): print(f'{name}: skipped, since it {why}')
        else:
            print(f'{name}: {ENGINES[name].get("npm") or " ".join(ENGINES[name]["install"])}', flush=True)
            install(name)


if __name__ == '__main__': main(sys.argv[1:])
