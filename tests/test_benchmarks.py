"The benchmark of a GPU runs where there is none, with tiny shapes, and leaves the rows of real cards alone."
import json

import nbformat
from conftest import ROOT
from nbclient import NotebookClient

HERE = ROOT/'nbs'/'benchmarks'


def test_the_gpu_benchmark_runs_on_a_cpu(tmp_path, monkeypatch):
    for k, v in dict(MPQ_RUN='1', MPQ_RESULTS=str(tmp_path/'rows.jsonl'), CUDA_VISIBLE_DEVICES='').items(): monkeypatch.setenv(k, v)
    before = (HERE/'gpu.jsonl').read_text()
    nb = nbformat.read(HERE/'gpu.ipynb', as_version=4)
    NotebookClient(nb, timeout=500, kernel_name='python3', coalesce_streams=True, resources={'metadata': {'path': str(HERE)}}).execute()
    rows = [json.loads(l) for l in (tmp_path/'rows.jsonl').read_text().splitlines()]
    assert len(rows) > 10 and not [r for r in rows if 'error' in r]
    assert {r['card'] for r in rows} == {'CPU, tiny shapes'}
    said = ''.join(o.text for o in nb.cells[-1].outputs if o.output_type == 'stream' and o.name == 'stdout')
    assert said.strip() == 'CPU, tiny shapes: nothing'                  # is missing
    assert (HERE/'gpu.jsonl').read_text() == before


def test_rows_of_cards_are_real_and_fair():
    rows = [json.loads(l) for l in (HERE/'gpu.jsonl').read_text().splitlines()]
    assert len({(r['key'], r['card']) for r in rows}) == len(rows)
    for r in rows:
        assert 'CPU' not in r['card'] and 'error' not in r and {'torch', 'transformers', 'auto-round'} <= set(r)
        if 'AutoScheme, low memory' in r['key'] or 'as it comes' in r['key']: assert r['workers'] > 0
