"Run notebooks top to bottom and keep what they show: results and figures, not progress bars or warnings of other libraries."
import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient


def telling(output):
    "Is this output for a reader? A widget is, as the figure that it brings for those without widgets."
    if output.output_type == 'stream': return output.name == 'stdout'
    data = output.get('data', {})
    return data.pop('application/vnd.jupyter.widget-view+json', None) is None or 'image/png' in data


def execute(path):
    nb = nbformat.read(path, as_version=4)
    NotebookClient(nb, timeout=3600, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': str(path.parent)}}).execute()
    for c in nb.cells:
        if c.cell_type == 'code': c.outputs = [o for o in c.outputs if telling(o)]
    nb.metadata.pop('widgets', None)
    nbformat.write(nb, path)


if __name__ == '__main__':
    for p in sys.argv[1:]: print(p, flush=True); execute(Path(p))
