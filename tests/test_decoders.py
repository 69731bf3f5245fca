"Architectures of the table in decoders.py: eight of them always, all of them in `make long`."
import json, os

import pytest
from decoders import KINDS, OUT, result

FEW = 'gemma4_text', 'opt', 'gpt_oss', 'deepseek_v3', 'qwen2_moe', 'qwen3_5_text', 'bamba', 'lfm2_moe'
ALL = [kind for kinds in KINDS.values() for kind in kinds]


@pytest.mark.parametrize('kind', ALL if os.environ.get('LONG') else FEW)
def test_from_scores_to_a_checkpoint_that_is_read_back(kind):
    row = result(kind)
    expected = {r['architecture']: r['answer'] for r in json.loads(OUT.read_text())['rows']}
    assert row['answer'] == expected[kind], row
    if row['answer'] == 'no': assert row['refused'], row['why']       # in one clear line


def test_the_table_holds_what_it_claims():
    rows = json.loads(OUT.read_text())['rows']
    assert [r['architecture'] for r in rows] == ALL
    works = [r for r in rows if r['answer'] == 'yes']
    assert not [r for r in rows if r['answer'] == 'wrong']
    assert len(rows) >= 40 and len(works) >= 36
    assert sum(r['experts'] > 0 for r in works) >= 10 and sum(r['kind'] == 'hybrid' for r in works) >= 8
