"""Commands that are killed at random moments and resumed end with the same result, bit for bit.

KILLS moments a command (none by default, since that takes minutes: `make long` gives 20)."""
import hashlib, os, random, signal, subprocess, sys, time
from pathlib import Path

import pytest
from conftest import ROOT, tiny_checkpoint

KILLS = int(os.environ.get('KILLS', 0))
MPQ = Path(sys.executable).parent/'mpq'
COMMANDS = dict(
    score=('score TINY -n 400 --length 64 --schemes W2A16G32,W4A16G32,MXFP4,MXFP8', 'scores.safetensors'),
    refine=('allocate SCORES --bits 5 --refine', 'recipe.json'),
    evaluate=('evaluate TINY --recipe RECIPE -n 64 --length 128', 'evaluation.json'),
    study=('study STUDY', 'run'),
    quantize=('quantize TINY --bits 5 --schemes W4A16G32,W8A16G32', 'quantized'))


@pytest.fixture(scope='module')
def files(tmp_path_factory, demo):
    "A tiny model, its scores, a recipe and a study, by the names that stand in `COMMANDS`."
    from mpq_nb.allocation import allocate
    from mpq_nb.sensitivity import Scores
    d = tmp_path_factory.mktemp('kills')
    tiny_checkpoint(d/'tiny', demo[1], num_hidden_layers=6)
    subprocess.run([MPQ, 'score', d/'tiny', '-n', '24', '--length', '64', '-o', d/'s.safetensors'], check=True, capture_output=True)
    allocate(Scores.load(d/'s.safetensors'), bits=5).save(d/'r.json')
    (d/'s.yaml').write_text(f'models: [{d}/tiny]\nrecipes: [bf16, "uniform:MXFP4", head, tail, ours]\nbudgets: [4.5, 5]\ntasks: []\nsamples: 8\nlength: 64\ntext_samples: 8\n')
    return dict(TINY=d/'tiny', SCORES=d/'s.safetensors', RECIPE=d/'r.json', STUDY=d/'s.yaml')


def content(path):
    "Hashes of what a command wrote, by file."
    files = [path] if path.is_file() else sorted(p for p in path.rglob('*') if p.is_file() and p.name not in ('README.md', 'study.json', 'verification.json'))
    return {str(p.relative_to(path)): hashlib.sha256(p.read_bytes()).hexdigest() for p in files}


def something(d, out): return any(p.is_file() and not p.name.startswith('.') for p in d.rglob('*partial*')) or any(d.rglob('partial/*.safetensors')) or (d/out/'results.jsonl').exists()


@pytest.mark.slow
@pytest.mark.skipif(not KILLS, reason='takes minutes: KILLS=20, or make long')
@pytest.mark.timeout(3600)
@pytest.mark.parametrize('name', COMMANDS)
def test_killed_at_any_moment_it_ends_the_same(files, tmp_path, name):
    line, out = COMMANDS[name]
    rng, env = random.Random(name), os.environ | dict(MPQ_CHECKPOINT_SECONDS='0', PYTHONPATH=str(ROOT))
    def start(folder, *more):
        args = [str(files.get(w, w)) for w in line.split()]
        return subprocess.Popen([MPQ, *args, '-o', out, *more], cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=env)
    def finish(p):
        err = p.communicate()[1]
        assert p.returncode == 0, err[-2000:]
    def killed_once(d):
        "Start, and kill at a random moment; was it killed, and did it leave something?"
        p = start(d, '--resume')
        if rng.random() < .5: time.sleep(took * rng.uniform(.3, 1))      # the first third is Python's imports
        else:                                                            # while there is work to lose
            while p.poll() is None and not something(d, out): time.sleep(.01)
            time.sleep(rng.uniform(0, took/5))
        p.send_signal(signal.SIGKILL if rng.random() < .7 else signal.SIGTERM)
        err = p.communicate()[1]
        assert p.returncode in (0, -signal.SIGKILL, -signal.SIGTERM, 143), err[-2000:]
        return p.returncode != 0, something(d, out)
    (whole := tmp_path/'whole').mkdir()
    began = time.monotonic(); finish(start(whole)); took = time.monotonic() - began
    want, killed, resumed = content(whole/out), 0, 0
    for i in range(10*KILLS):
        (d := tmp_path/f'{i}').mkdir()
        while True:
            was, left = killed_once(d)
            if not was: break
            killed, resumed = killed + 1, resumed + left
            if killed >= KILLS: finish(start(d, '--resume')); break
        assert content(d/out) == want
        if killed >= KILLS: break
    left = [p for p in d.rglob('*') if '.partial' in p.name]
    assert not left, left
    print(f'{name}: {killed} killed, {resumed} of them with something to resume, {i + 1} runs, all the same')
