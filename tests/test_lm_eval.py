"Unmodified lm-eval tasks in process give what the lm_eval command line prints, to the digit."
import json
import os
import sys
from pathlib import Path
import pytest
from conftest import run
from mpq_nb.evaluation import lm_eval_tasks, manual_text

ACCURACY = {('lambada_openai', 'acc'): 19/60, ('hellaswag', 'acc_norm'): 27/60, ('piqa', 'acc'): 41/60, ('winogrande', 'acc'): 29/60}


@pytest.mark.timeout(900)
def test_tasks_equal_lm_eval(demo, data):
    "Numbers that lm-eval 0.4.13 gave when it was run directly (float32, batch 16, first 60 rows, no BOS)."
    model, tok = demo
    f = lm_eval_tasks(model, tok, [t for t, _ in ACCURACY], data=data, limit=60, batch=16, add_bos_token=False).frame().set_index(['task', 'metric'])
    for k, v in ACCURACY.items():
        assert f.loc[k, 'value'] == pytest.approx(v, abs=5e-4) and f.loc[k, 'n'] == 60
        assert f.loc[k, 'se'] == pytest.approx((v*(1-v)/59)**.5, abs=1e-3)


@pytest.fixture(scope='module')
def mirror(tmp_path_factory):
    "Forty sentences of Python's manual in lambada's schema, where the hub would have them."
    root = tmp_path_factory.mktemp('hub')
    d = root/'EleutherAI'/'lambada_openai'
    d.mkdir(parents=True)
    rows = [s for s in manual_text().replace('\n', ' ').split('. ') if 12 < len(s.split()) < 40 and s.split()[-1].isalpha()][:40]
    (d/'README.md').write_text('---\nconfigs:\n- config_name: default\n  data_files:\n  - split: test\n    path: test.jsonl\n---\n')
    (d/'test.jsonl').write_text('\n'.join(json.dumps(dict(text=' '.join(r.split()))) for r in rows))
    return root


def command_line(folder, mirror, out, limit=40, **model_args):
    "Results of the lm_eval command for lambada_openai."
    args = ','.join(f'{k}={v}' for k, v in dict(pretrained=folder, dtype='float32', **model_args).items())
    r = run(Path(sys.executable).parent/'lm_eval', '--model', 'hf', '--model_args', args, '--tasks', 'lambada_openai', '--batch_size', 16, '--device', 'cpu', '--limit', limit,
            '--output_path', out, cwd=mirror, HF_HUB_OFFLINE='1', HF_DATASETS_CACHE=str(out)+'-cache')
    assert r.returncode == 0, r.stderr[-2000:]
    return json.loads(next(Path(out).rglob('results_*.json')).read_text())['results']['lambada_openai']


@pytest.mark.timeout(600)
def test_the_command_line_says_the_same(demo, mirror, tmp_path):
    "For the unquantized model with BOS, as LLaMA's row of settings has it, and for a packed checkpoint of W4 and W8."
    import torch
    from mpq_nb.allocation import Recipe
    from mpq_nb.models import layers, load
    from mpq_nb.quantization import export
    model, tok = demo
    model.save_pretrained(tmp_path/'demo'); tok.save_pretrained(tmp_path/'demo')
    def same(ours, theirs):
        for m in ('acc,none', 'perplexity,none'): assert ours.results['lambada_openai'][m] == pytest.approx(theirs[m], rel=1e-6)
    with_bos = lm_eval_tasks(model, tok, 'lambada_openai', data=mirror)
    same(with_bos, command_line(tmp_path/'demo', mirror, tmp_path/'a', add_bos_token=True))
    without = lm_eval_tasks(model, tok, 'lambada_openai', data=mirror, add_bos_token=False)
    assert without.results['lambada_openai']['perplexity,none'] != with_bos.results['lambada_openai']['perplexity,none']
    ls = layers(model)
    mixed = {l.name: ('W4A16G64', 'W8A16G64')[i % 2] for i, l in enumerate(ls)}
    export(model, tok, Recipe(mixed, {l.name: l.shape for l in ls}), tmp_path/'w4')
    packed, tok4 = load(str(tmp_path/'w4'))
    ours = lm_eval_tasks(torch.nn.Module.float(packed), tok4, 'lambada_openai', data=mirror)
    theirs = command_line(tmp_path/'w4', mirror, tmp_path/'b', add_bos_token=True)
    assert ours.results['lambada_openai']['acc,none'] == pytest.approx(theirs['acc,none'], abs=1e-6)
    assert ours.results['lambada_openai']['perplexity,none'] == pytest.approx(theirs['perplexity,none'], rel=.01)
