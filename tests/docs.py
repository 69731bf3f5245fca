"Stage the documentation in _proc/ and have Quarto render it to _docs/.  With --stage: no Quarto, only the first half."
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

MISSING = '''The pages are rendered by Quarto, which is not on the PATH.
  Get it from https://quarto.org/docs/get-started (a .deb, .pkg or .msi, or a folder to unpack), then run `make docs` again.
  Without it: `make docs-stage` runs everything but the rendering, and the notebooks in nbs/ read the same in Jupyter.'''


def stage(root):
    "Process the notebooks as nbdev does for Quarto, every `show_doc` executed; the folder that Quarto renders."
    os.chdir(root)
    from nbdev import doclinks
    from nbdev.quarto import refresh_quarto_yml
    from nbdev.serve import proc_nbs
    table = doclinks._build_lookup_table
    # `score` in a text is the function, not the command of the same name; what is a link already is not linked again, and private names have no page.
    commands = tuple(['mpq_nb.cli', *('.'.join(('mpq_nb', 'apps', 'cli', p.stem)) for p in (root/'mpq_nb'/'apps'/'cli').glob('*.py'))])
    doclinks._build_lookup_table = lambda *a, **kw: table(skip_mods=commands)
    doclinks._re_backticks = re.compile(r'(?<!\[)(?!`_)' + doclinks._re_backticks.pattern)
    refresh_quarto_yml()
    return proc_nbs(n_workers=0, force=True)     # in this process, or these two changes would be lost


def render(root):
    "Stage, render, and put the site into _docs/."
    out = stage(root)
    subprocess.run(['quarto', 'render', '--no-cache'], cwd=out, check=True)
    shutil.rmtree(root/'_docs', ignore_errors=True)
    shutil.move(out/'_docs', root/'_docs')
    print(f"{root/'_docs'/'index.html'}")


if __name__ == '__main__':
    if '--stage' in sys.argv: print(stage(Path.cwd()))
    elif not shutil.which('quarto'): sys.exit(MISSING)
    else: render(Path.cwd())
