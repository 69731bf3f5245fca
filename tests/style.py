"""Measures the notebooks' habits and prints them: how long exported cells are, how much prose and how many assertions stand beside them.

An exported cell's lines are those that are neither blank nor a directive: signature, docments and docstring count.
Prose is Markdown cells.  Assertions are `assert` and fastcore's `test_…` and `np.testing` calls in cells that are not exported.
Exit status 1 if a notebook misses a habit: median at most 10 lines, none above 30, at least 1.5 prose cells and 0.8 assertions an exported cell."""
import ast
import json
import re
import sys
from pathlib import Path
from statistics import median

HABITS = dict(median=10, longest=30, prose=1.5, asserts=.8)


def source(cell): return ''.join(cell['source'])


def exported(cell): return cell['cell_type'] == 'code' and re.search(r'^#\|\s*exporti?s?\b', source(cell), re.M)


def lines(text): return sum(bool(l.strip()) and not l.startswith('#|') for l in text.splitlines())


def assertions(text):
    "Number of assertions in a cell's code."
    tree = ast.parse(re.sub(r'^[%!].*$', '', text, flags=re.M))
    name = lambda f: f.id if isinstance(f, ast.Name) else f.attr if isinstance(f, ast.Attribute) else ''
    return sum(isinstance(n, ast.Assert) or isinstance(n, ast.Call) and bool(re.match('(test_|assert_|expect_fail)', name(n.func))) for n in ast.walk(tree))


def measure(path):
    "The figures of a notebook; None if it exports nothing."
    cells = json.loads(Path(path).read_text())['cells']
    out = [lines(source(c)) for c in cells if exported(c)]
    if not out: return None
    checks = sum(assertions(source(c)) for c in cells if c['cell_type'] == 'code' and not exported(c))
    return dict(exported=len(out), median=median(out), longest=max(out), prose=sum(c['cell_type'] == 'markdown' for c in cells)/len(out), asserts=checks/len(out))


def missed(m): return [k for k, v in HABITS.items() if (m[k] > v if k in ('median', 'longest') else round(m[k], 2) < v)]


def report(root):
    "{notebook: (figures, habits that it misses)}"
    found = {p.name: measure(p) for p in sorted((root/'nbs').glob('[0-9]*.ipynb'))}
    return {n: (m, missed(m)) for n, m in found.items() if m}


if __name__ == '__main__':
    rows = report(Path(__file__).parent.parent)
    print(f"{'notebook':24}{'exported':>9}{'median':>8}{'longest':>9}{'prose':>7}{'asserts':>9}   (wanted: median ≤ 10, longest ≤ 30, prose ≥ 1.5, asserts ≥ 0.8)")
    for n, (m, bad) in rows.items():
        print(f"{n:24}{m['exported']:>9}{m['median']:>8g}{m['longest']:>9}{m['prose']:>7.2f}{m['asserts']:>9.2f}   {'misses ' + ', '.join(bad) if bad else ''}")
    total = sum(m['exported'] for m, _ in rows.values())
    print(f"{'all':24}{total:>9}{'':>8}{'':>9}{sum(m['prose']*m['exported'] for m, _ in rows.values())/total:>7.2f}{sum(m['asserts']*m['exported'] for m, _ in rows.values())/total:>9.2f}")
    sys.exit(any(bad for _, bad in rows.values()))
