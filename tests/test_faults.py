"""What goes wrong around a run, and what is promised then.

| fault | promise |
|---|---|
| the disk is full | what was finished is kept, and the run continues once there is room |
| a folder cannot be written | said before any work |
| a file was cut off | refused, or read up to the last whole line |
| a bit flipped | scores and what an interrupted run left are refused |
| another model, other tokens, another version | refused, with the difference named |
| two processes in one run | the second one is told who the first is; a dead one's lock is none |
| no memory in one cell | recorded as that cell's error; the others go on |
| a clock that is set back | nothing that is computed or kept depends on it |
| a hub that never answers | one line that says so, after one try; nothing is left behind |
| a kept reference or text of another content | not used: made again (the notebooks base/text and judge/references hold it to that) |
"""
import itertools, os, random, signal, socket, subprocess, sys
from unittest import mock

import pytest
import torch
from conftest import mpq, tiny_checkpoint

from mpq_nb import sensitivity
from mpq_nb.models import Checkpoint, owned, tiny_model
from mpq_nb.schemes import InputError
from mpq_nb.sensitivity import Scores, score

IDS = torch.randint(3, 256, (4, 16), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope='module')
def study(tmp_path_factory, demo):
    "A study of four cells on a tiny model, and the file of an undisturbed run."
    from mpq_nb.study import Study, run
    d = tmp_path_factory.mktemp('faults')
    tiny_checkpoint(d/'tiny', demo[1])
    st = Study((str(d/'tiny'),), ('bf16', 'uniform:MXFP4', 'tail', 'ours'), (5.,), tasks=(), samples=2, length=32, text_samples=2)
    run(st, d/'whole')
    return st, (d/'whole/results.jsonl').read_text()


def full(after):
    "`os.fsync` of a disk that is full after so many writings."
    left, real = [after], os.fsync
    def fsync(f):
        left[0] -= 1
        if left[0] < 0: raise OSError(28, 'No space left on device')
        return real(f)
    return mock.patch('os.fsync', fsync)


def test_a_full_disk_costs_nothing_that_was_finished(study, tmp_path):
    from mpq_nb import study as S
    st, whole = study
    seen, again, real, run = 0, [], S.run_cell, S.run
    def once(bench, cell):
        if (key := S.cell_key(st, cell)) in kept: again.append(key)
        return real(bench, cell)
    for after in range(0, 60):
        kept = {k for k, r in S.read_rows(tmp_path/'run').items() if 'error' not in r}
        with full(after), mock.patch.object(S, 'run_cell', once):
            try: run(st, tmp_path/'run', resume=True)
            except InputError as e: assert 'No space left' in str(e)
            else: break
        lines = (tmp_path/'run/results.jsonl').read_text().splitlines() if (tmp_path/'run/results.jsonl').exists() else []
        done = [l for l in lines if '"error"' not in l]
        assert all(l in whole for l in done) and len(done) >= seen      # nothing is lost again
        seen = len(done)
    run(st, tmp_path/'run', resume=True)
    assert (tmp_path/'run/results.jsonl').read_text() == whole and after > 3 and not again


def test_a_folder_that_cannot_be_written_is_named_before_any_work(study, tmp_path):
    from mpq_nb.study import run
    with mock.patch('os.access', return_value=False), mock.patch('mpq_nb.apps.study.plan.load', side_effect=AssertionError('work was begun')):
        with pytest.raises(InputError, match='not writable'): run(study[0], tmp_path/'run')


def test_a_results_file_cut_off_anywhere_keeps_its_whole_lines(study, tmp_path):
    from mpq_nb.study import read_rows
    whole, rng = study[1].encode(), random.Random(0)
    for cut in rng.sample(range(len(whole)), 50):
        (tmp_path/'results.jsonl').write_bytes(whole[:cut])
        assert len(read_rows(tmp_path)) in (whole[:cut].count(b'\n'), whole[:cut].count(b'\n') + 1)


def test_every_flipped_bit_is_noticed(tmp_path):
    path, rng = tmp_path/'s.safetensors', random.Random(0)
    s = score(tiny_model(), IDS, ('MXFP4', 'MXFP8'))
    s.save(path)
    whole = path.read_bytes()
    for i in rng.sample(range(8*len(whole)), 300):
        b = bytearray(whole)
        b[i//8] ^= 1 << i % 8
        path.write_bytes(b)
        try: same = Scores.load(path)
        except InputError: continue
        assert torch.equal(same.loss, s.loss) and same.meta == s.meta and same.groups == s.groups      # in the padding of the header
    for cut in rng.sample(range(len(whole)), 50):
        path.write_bytes(whole[:cut])
        with pytest.raises(InputError): Scores.load(path)


@pytest.mark.parametrize('change', ['model', 'tokens', 'schemes', 'seed', 'version'])
def test_what_an_interrupted_run_left_serves_only_that_run(tmp_path, change):
    class Stopped(Exception): pass      # no KeyboardInterrupt: one that gets away would end the whole test run
    class Cut(Checkpoint):
        def write(self): super().write(); raise Stopped
    def go(model=tiny_model(), tokens=IDS, schemes=('MXFP4', 'MXFP8'), seed=0):
        with Cut(tmp_path/'partial', every=0) as state: score(model, tokens, schemes, seed=seed, state=state)
    with pytest.raises(Stopped): go()
    other = dict(model=dict(model=tiny_model('qwen3')), tokens=dict(tokens=IDS + 1), schemes=dict(schemes=('MXFP4', 'MXFP6')), seed=dict(seed=1), version={})[change]
    found = '9.9' if change == 'version' else sensitivity.__version__
    with mock.patch.object(sensitivity, '__version__', found), pytest.raises(InputError, match=f'does not go with this one.*{change} was'): go(**other)


@pytest.mark.skipif(sys.platform == 'win32', reason='Windows has no such locks')
def test_a_second_process_is_told_of_the_first_one_and_a_dead_one_holds_nothing(tmp_path):
    hold = 'import sys, time; from mpq_nb.models import owned\nwith owned(sys.argv[1]): print("held", flush=True); time.sleep(600)'
    p = subprocess.Popen([sys.executable, '-c', hold, str(tmp_path/'run')], stdout=subprocess.PIPE, text=True)
    assert p.stdout.readline() == 'held\n'
    with pytest.raises(InputError, match=f'worked on by process {p.pid} on '), owned(tmp_path/'run'): pass
    p.send_signal(signal.SIGKILL); p.wait()
    with owned(tmp_path/'run'): pass
    assert not list(tmp_path.iterdir())


def test_no_memory_in_one_cell_is_that_cells_error(study, tmp_path):
    from mpq_nb import study as S
    from mpq_nb.apps.study import cells
    st, whole = study
    real = cells.quantized
    def greedy(model, recipe, **kwargs):
        if len(set(recipe.schemes.values())) > 1 and recipe.made['by'] == 'tail': raise MemoryError('cannot allocate 900 GiB')
        return real(model, recipe, **kwargs)
    with mock.patch.object(cells, 'quantized', greedy): rows = S.run(st, tmp_path/'run')
    assert ['error' in r for r in rows] == [False, False, True, False] and 'MemoryError' in rows[2]['error']
    S.run(st, tmp_path/'run', resume=True)
    assert (tmp_path/'run/results.jsonl').read_text() == whole


def test_a_command_killed_after_its_last_step_is_finished_when_it_is_resumed(study, tmp_path):
    "A scheduler starts it again with --resume: what the same command has written is its result, what another has is not touched."
    from mpq_nb.allocation import Recipe
    from mpq_nb.models import layers
    tiny, ls = study[0].models[0], layers(tiny_model())
    Recipe({l.name: 'MXFP4' for l in ls}, {l.name: l.shape for l in ls}).save(tmp_path/'r.json')
    again = lambda *more: mpq('quantize', tiny, tmp_path/'r.json', '--format', 'fake', '-o', tmp_path/'q', *more)
    def files(): return {p.name: p.stat().st_mtime_ns for p in (tmp_path/'q').iterdir()}
    assert (r := again()).returncode == 0, r.stderr
    before = files()
    assert (r := again('--resume')).returncode == 0 and 'finished by this command already' in r.stderr and 'next: mpq evaluate' in r.stdout, r.stderr
    assert (r := again('--resume', '--dtype', 'bfloat16')).returncode == 2 and 'is not empty' in r.stderr
    assert files() == before


def test_a_clock_set_back_changes_nothing(study, tmp_path):
    from mpq_nb.study import run
    st, whole = study
    back = itertools.count(2e9, -3600)
    with mock.patch('time.time', lambda: next(back)):
        with full(4), pytest.raises(InputError): run(st, tmp_path/'run')
        run(st, tmp_path/'run', resume=True)
    assert (tmp_path/'run/results.jsonl').read_text() == whole


def test_a_hub_that_never_answers_ends_in_one_line(tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as s:       # connections are taken, and that is all
        r = mpq('score', 'some/model', '-o', tmp_path/'s.safetensors', HF_ENDPOINT=f'http://127.0.0.1:{s.getsockname()[1]}', HF_HUB_ETAG_TIMEOUT='1', HF_HUB_OFFLINE='0', HF_HOME=str(tmp_path/'hf'), timeout=50)
    assert r.returncode == 2 and r.stderr.strip().splitlines()[-1].startswith("mpq: error: cannot load model 'some/model'"), r.stderr
    assert 'Traceback' not in r.stderr and not list(tmp_path.glob('s.*'))
