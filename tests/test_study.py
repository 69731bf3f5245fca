"A study survives being killed, gives the same file on a cluster, and plans without weights or network."
import json, random, signal, subprocess, sys, threading, time
from pathlib import Path
import pytest
from conftest import mpq, tiny_checkpoint

MPQ = Path(sys.executable).parent/'mpq'


@pytest.fixture(scope='module', autouse=True)
def one_thread():
    "As Ray's workers have it: the order of a sum depends on the number of threads."
    with pytest.MonkeyPatch.context() as m:
        m.setenv('OMP_NUM_THREADS', '1')
        yield


@pytest.fixture(scope='module')
def study(tmp_path_factory, demo):
    "A study of a tiny model in a folder, eight cells, and the file of an undisturbed run."
    d = tmp_path_factory.mktemp('study')
    tiny_checkpoint(d/'tiny', demo[1])
    (d/'s.yaml').write_text(f'models: [{d}/tiny]\nrecipes: [bf16, "uniform:MXFP4", head, tail, "random:1", "ours:fast"]\nbudgets: [4.5, 5]\ntasks: []\nsamples: 2\nlength: 32\ntext_samples: 2\n')
    r = mpq('study', d/'s.yaml', '-o', d/'whole', '--json')
    assert r.returncode == 0, r.stderr[-2000:]
    assert len(json.loads(r.stdout)['cells']) == 10
    return d


def lose_one(task, while_):
    "Kill the first process which does a task of that name; its number, or None if it never appears."
    import psutil
    while while_():
        time.sleep(.05)
        for p in psutil.process_iter(['cmdline']):
            if (p.info['cmdline'] or [''])[0].startswith(task): p.kill(); return p.pid


def lines(p): return p.read_text().count('\n') if p.exists() else 0


@pytest.mark.timeout(600)
def test_killed_and_resumed(study):
    rng, out = random.Random(0), study/'killed'
    for target in sorted(rng.sample(range(0, 7), 5)):      # so that a cell or two are left, however late the kill comes
        p = subprocess.Popen([MPQ, 'study', study/'s.yaml', '-o', out, '--resume'], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        while lines(out/'results.jsonl') <= target and p.poll() is None: time.sleep(.01)
        time.sleep(rng.random() * .1)
        p.send_signal(signal.SIGKILL)
        p.wait()
    before = (out/'results.jsonl').read_text()
    assert 0 < before.count('\n') < 10
    assert mpq('study', study/'s.yaml', '-o', out, '--resume').returncode == 0
    assert (out/'results.jsonl').read_text() == (study/'whole/results.jsonl').read_text()
    for line in before.splitlines()[:-1]: assert line in (out/'results.jsonl').read_text()     # what was finished is not computed again


@pytest.mark.timeout(600)
def test_ray_cluster_of_two(study):
    "The same file as in one process, though a worker is lost in the middle of a cell."
    ray = pytest.importorskip('ray')
    from ray.cluster_utils import Cluster
    from mpq_nb.study import Study, run
    cluster, lost = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1)), []
    try:
        cluster.add_node(num_cpus=1)
        ray.init(address=cluster.address, log_to_driver=False)
        assert len([n for n in ray.nodes() if n['Alive']]) == 2
        threading.Thread(target=lambda: lost.append(lose_one('ray::cell', lambda: True)), daemon=True).start()
        run(Study.load(study/'s.yaml'), study/'ray', ray=cluster.address)
    finally:
        ray.shutdown()
        cluster.shutdown()
    assert lost and (study/'ray/results.jsonl').read_text() == (study/'whole/results.jsonl').read_text()


def test_a_streamed_model_is_scored_on_a_cluster_of_two_nodes(study, tmp_path):
    import ray
    from ray.cluster_utils import Cluster
    (tmp_path/'text.jsonl').write_text('\n'.join(json.dumps(dict(text=f'Sentence number {i} is about {i**2} things, all of them different.')) for i in range(400)))
    args = ['score', study/'tiny', '--calibration', tmp_path/'text.jsonl', '-n', 20, '--length', 32, '--schemes', 'MXFP4,MXFP8,W4A16G32']
    r = mpq(*args, '-o', tmp_path/'one.safetensors')
    assert r.returncode == 0, r.stderr[-2000:]
    cluster = Cluster(initialize_head=True, head_node_args=dict(num_cpus=1))
    try:
        cluster.add_node(num_cpus=1)
        p = subprocess.Popen([MPQ, *map(str, args), '--stream', '--ray', cluster.address, '-o', tmp_path/'many.safetensors'], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        lost = lose_one('ray::shard', lambda: p.poll() is None)
        said = p.communicate()[0]
        assert p.returncode == 0 and lost, said[-2000:]
    finally:
        ray.shutdown()
        cluster.shutdown()
    from mpq_nb.sensitivity import Scores
    one, many = (Scores.load(tmp_path/f'{n}.safetensors') for n in ('one', 'many'))
    assert (one.samples - many.samples).abs().max() <= 1e-6 * one.samples.abs().max()      # streamed and whole differ in rounding, if at all
    assert one.loss.shape == many.loss.shape and abs(one.loss/many.loss - 1).max() < 1e-4 and one.meta['tokens'] == many.meta['tokens']


def test_plans_need_no_network(monkeypatch):
    from dataclasses import replace
    from mpq_nb.study import STUDIES, plan
    r = mpq('study', 'table1', '--dry-run', '--tasks', 'none', '--json', HF_HUB_OFFLINE='1')
    assert r.returncode == 0, r.stderr[-1000:]
    cells = json.loads(r.stdout)['cells']
    assert len(cells) == 20 and all(c['budget'] is None or abs(c['bits'] - c['budget']) < .01 for c in cells)
    for t in ('table2', 'table3', 'table4'):
        p = plan(replace(STUDIES[t], tasks=()))
        assert len(p) == 12 and ((p.bits - p.budget).abs().fillna(0) < .01).all()
