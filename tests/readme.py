"Print README.md as made from nbs/index.ipynb: its Markdown, its visible code and the text of its outputs."
import re
import sys
from pathlib import Path

from nbconvert import MarkdownExporter
from nbconvert.preprocessors import Preprocessor
import nbformat


class Visible(Preprocessor):
    "Drops hidden cells, progress bars, and nbdev's directives."
    def preprocess(self, nb, resources):
        nb.cells = [c for c in nb.cells if not c.source.startswith('#| hide')]
        for c in nb.cells:
            if c.cell_type == 'code': c.outputs = [o for o in c.outputs if o.output_type != 'stream']
        return nb, resources


def readme(root):
    nb = nbformat.read(Path(root)/'nbs'/'index.ipynb', as_version=4)
    nb.metadata.language_info = dict(name='python')
    body, _ = MarkdownExporter(preprocessors=[Visible]).from_notebook_node(nb)
    body = re.sub(r'\n{3,}', '\n\n', body.strip())
    body = re.sub(r'\]\((?![a-z]+:|#|nbs/)', '](nbs/', body)     # links are relative to the notebook
    return '<!-- Made from nbs/index.ipynb by `make readme`; edit that. -->\n\n' + body + '\n'


if __name__ == '__main__': sys.stdout.write(readme(Path(__file__).parent.parent))
