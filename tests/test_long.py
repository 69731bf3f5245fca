"A study of 200 cells in one process: memory, open files and speed stay what they were. `make long` runs it."
import os, time
from statistics import median
from unittest import mock

import pytest
from conftest import tiny_checkpoint


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('KILLS'), reason='takes minutes: make long')
@pytest.mark.timeout(3600)
def test_two_hundred_cells_leave_nothing_behind(demo, tmp_path):
    import psutil
    from mpq_nb import study as S
    tiny_checkpoint(tmp_path/'tiny', demo[1])
    st = S.Study((str(tmp_path/'tiny'),), tuple(f'random:{i}' for i in range(200)), (5.,), tasks=(), samples=2, length=32, text_samples=2)
    me, seen, real = psutil.Process(), [], S._append
    def note(out, row):
        real(out, row)
        seen.append((me.memory_info().rss, me.num_fds(), time.monotonic()))
    with mock.patch.object(S, '_append', note): rows = S.run(st, tmp_path/'run')
    assert len(rows) == len(seen) == 200 and not any('error' in r for r in rows)
    rss, fds, at = zip(*seen)
    took = [b - a for a, b in zip(at, at[1:])]
    warm, end = median(rss[40:60]), median(rss[-20:])
    print(f'memory {warm/2**20:.0f} MiB after 50 cells, {end/2**20:.0f} MiB after 200; files {fds[40]} and {fds[-1]}; {median(took[40:60])*1e3:.0f} ms and {median(took[-20:])*1e3:.0f} ms a cell')
    assert abs(end/warm - 1) < .05 and fds[-1] <= fds[40]
