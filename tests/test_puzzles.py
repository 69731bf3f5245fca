"The puzzles judge the reader's own lines: right ones pass as the reader's, wrong ones fail where they are asked."
import json
import re

import pytest
from conftest import ROOT

PAGE = ROOT/'nbs'/'tutorials'/'puzzles.ipynb'
CELLS = json.loads(PAGE.read_text(encoding='utf-8'))['cells']
CODE = [''.join(c['source']) for c in CELLS if c['cell_type'] == 'code']
TEXT = '\n'.join(''.join(c['source']) for c in CELLS if c['cell_type'] == 'markdown')
STUB = 'raise NotImplementedError   # ← your line'
WRONG = dict(
    quantize='return (w / scale).round() * scale',                          # no last code
    best_scale='return max(scales)',                                        # never clips
    mx_quantize='return fp4(w, w.abs().max() / 6)',                         # no power of two
    score='return (((x @ error.T) * g) ** 2).sum() / 2',                    # squares token by token
    knapsack='return greedy(loss, size, limit)',
    bound='return (loss + price * size).min(1).values.sum()',               # keeps the budget's price
    damp='return knapsack(G, size, limit)')                                 # no damping


@pytest.fixture(autouse=True)
def pictures(monkeypatch):
    "Draw nowhere, and let go of every picture."
    monkeypatch.setenv('MPLBACKEND', 'Agg')
    yield
    import matplotlib.pyplot as plt
    plt.close('all')


def name_of(cell):
    "The puzzle that a cell poses, or None."
    found = re.search(r'^@puzzle\ndef (\w+)\(', cell, re.M)
    return found and found[1]


def folded(name):
    "The line that the page's fold gives for a puzzle."
    return re.search(rf'^def {name}\(.*\n    (return .*)$', TEXT, re.M)[1]


def play(lines, monkeypatch, until=None):
    "Run the page with these lines in its stubs, to the end or to a puzzle's check; returns its names."
    monkeypatch.chdir(PAGE.parent)
    space = {}
    for cell in CODE:
        line = lines.get(name_of(cell))
        if line:
            assert cell.count(STUB) == 1, cell
            cell = cell.replace(STUB, line)
        exec(cell, space)
        if cell.split('\n')[-1] == until: break
    return space


def test_there_is_a_puzzle_for_each_wrong_line():
    assert [n for n in map(name_of, CODE) if n] == list(WRONG)


def test_the_readers_own_lines_are_the_readers(monkeypatch):
    space = play({n: folded(n) for n in WRONG}, monkeypatch)
    assert [p.by for p in space['puzzles']] == ['you'] * len(WRONG)


def test_the_page_without_lines_says_who_answered(monkeypatch):
    space = play({}, monkeypatch)
    assert {p.by for p in space['puzzles']} == {'the folded solution'}


@pytest.mark.parametrize('name', WRONG)
def test_a_wrong_line_fails(name, monkeypatch):
    play({name: folded(name)}, monkeypatch, until=name)
    with pytest.raises(AssertionError): play({name: WRONG[name]}, monkeypatch, until=name)


def test_an_error_in_a_line_is_the_readers(monkeypatch):
    "A mistake is raised, and never covered by the solution."
    with pytest.raises(ZeroDivisionError): play(dict(quantize='return 1/0'), monkeypatch)
