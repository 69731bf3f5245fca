"What `servable` promises of engines, against what was seen when every cell was run: nbs/benchmarks/engines.jsonl."
from dataclasses import replace

import mpq_nb.core.engines as A
import pytest

from judge import promise, settled, wrong
from run import SETTINGS, key, read_lines

CELLS = [settled(dict(c, exact=c['settings'] == SETTINGS.get(c['engine'], ('',))[0])) for c in read_lines().values()]
PROMISES = A.PROMISES
HERE = [p for p in PROMISES if p.source == A.RAN]
OPPOSITE = dict(loads='refused', refused='loads')


@pytest.mark.parametrize('cell', CELLS, ids=lambda c: ' | '.join(key(c)))
def test_a_promise_is_kept(cell):
    assert not wrong(cell)


@pytest.mark.parametrize('row', HERE, ids=lambda p: f"{p.engine} {p.platform} {'+'.join(p.formats)} {p.about} {p.answer}")
def test_a_row_that_says_ran_was_run_and_would_be_noticed_if_it_were_wrong(row, monkeypatch):
    "Say the opposite in this row alone, or leave it out: some cell has to object, for every kind of checkpoint that it names."
    for format in row.formats:
        rest = tuple(p for p in PROMISES if p is not row)
        others = tuple(f for f in row.formats if f != format)
        changed = replace(row, formats=(format,), answer=OPPOSITE[row.answer])
        mine = [c for c in CELLS if (c['engine'], c['format']) == (row.engine, format)]
        kept = (replace(row, formats=others),) if others else ()
        monkeypatch.setattr(A, 'PROMISES', (*rest, *kept, changed))
        assert any(map(wrong, mine)), f'nothing was run that would tell for {format}'


def test_what_nobody_ran_is_unknown():
    "A platform, or a version, of which no cell speaks."
    for c in CELLS:
        if c['answer'] == 'loads':
            assert promise(dict(c, platform='rocm')).answer != 'loads'
            assert promise(dict(c, version='0.0.1')).answer == 'unknown'


def test_all_engines_and_formats_were_tried():
    assert {c['engine'] for c in CELLS} == {p.engine for p in HERE}
    assert {c['format'] for c in CELLS} == {*A.HOLDS, 'fake'}
