"The `mpq` command in a process of its own, on the demo model and on bad input."
import json

import pytest
from conftest import mpq


@pytest.fixture(scope='module')
def result(tmp_path_factory):
    "The demo as it comes, in a fresh folder."
    out = tmp_path_factory.mktemp('demo')/'demo'
    r = mpq('demo', '-o', out, timeout=900)
    assert r.returncode == 0, r.stderr[-3000:]
    return out, json.loads((out/'table.json').read_text())


@pytest.mark.timeout(900)
def test_demo_writes_everything(result):
    out, _ = result
    assert {p.name for p in out.iterdir()} == {'scores.safetensors', 'recipes', 'table.md', 'table.json', 'figure.png', 'packed', 'report.html'}
    assert (out/'figure.png').read_bytes()[:4] == b'\x89PNG'
    assert 'ours @ 5' in (out/'table.md').read_text()
    page = (out/'report.html').read_text()
    for part in ('What was asked', 'ours @ 5', 'Where it diverges', 'How to serve it', 'packed'): assert part in page
    assert 'ours @ 5 is simulated' not in page      # what the page leads with is the checkpoint that it wrote
    assert json.loads((out/'packed'/'recipe.json').read_text())['layers'] == json.loads((out/'recipes'/'ours-5.json').read_text())['layers']


@pytest.mark.parametrize('b', ['4.5', '5'])
@pytest.mark.parametrize('naive', ['head', 'tail'])
def test_ours_is_below_the_naive_recipes(result, b, naive):
    d = result[1]['paired'][f'ours @ {b} - {naive} @ {b}']
    assert d['diff'] < -2 * d['se'] < 0
    rows = result[1]['rows']
    assert rows[f'ours @ {b}']['bits'] <= float(b) and rows[f'{naive} @ {b}']['bits'] <= float(b)


def test_more_bits_less_kl(result):
    kl = [result[1]['rows'][n]['kl'] for n in ('uniform W4A16G64', 'ours @ 4.5', 'ours @ 5', 'ours @ 6', 'BF16')]
    assert kl == sorted(kl, reverse=True) and kl[-1] < 0.01


def test_packed_checkpoint_is_the_simulated_model(result):
    v = result[1]['packed']
    assert v['ok'] and v['kl'] < 1e-3 and v['top1'] > .99 and v['layers_as_recipe'] == 210 and v['bytes'] == v['bytes_expected']


def test_a_damaged_checkpoint_does_not_verify(result, demo, tmp_path):
    "One layer's scales off by a half: the proof must notice."
    import shutil
    from mpq_nb.allocation import Recipe
    from mpq_nb.calibration import tokens
    from mpq_nb.quantization import verify
    from safetensors.torch import load_file, save_file
    bad = shutil.copytree(result[0]/'packed', tmp_path/'bad')
    t = load_file(bad/'model.safetensors')
    t['model.layers.3.mlp.down_proj.scales'] *= 1.5
    save_file(t, bad/'model.safetensors', metadata={'format': 'pt'})
    r = Recipe.load(bad/'recipe.json')
    v = verify(bad, demo[0], r, tokens('self', demo[1], demo[0], n=4, length=64))
    assert not v['ok'] and v['kl'] > 1e-3


def test_packed_checkpoint_generates_what_the_simulated_model_does(result, demo):
    "Loaded by transformers alone, as its user would."
    import torch
    from mpq_nb.allocation import Recipe
    from mpq_nb.quantization import quantized
    from transformers import AutoModelForCausalLM, AutoTokenizer
    folder = str(result[0]/'packed')
    real, tok = AutoModelForCausalLM.from_pretrained(folder, device_map='cpu'), AutoTokenizer.from_pretrained(folder)
    torch.nn.Module.float(real)   # in the arithmetic of the simulated model, or near ties would decide
    ids = tok('The capital of France is', return_tensors='pt')
    def continuation(m): return tok.decode(m.generate(**ids, max_new_tokens=8, do_sample=False)[0])
    with torch.no_grad(), quantized(demo[0], Recipe.load(result[0]/'packed'/'recipe.json')) as simulated:
        assert continuation(real) == continuation(simulated)


@pytest.mark.parametrize('args, says', [
    (['score', 'demo', '--schemes', 'MXFP4,MXFP9'], "unknown scheme 'MXFP9'"),
    (['score', './nowhere'], "there is no model at './nowhere'"),
    (['score', 'EMPTY'], 'has no config.json'),
    (['allocate', 'SCORES', '--bits', '3.9'], 'feasible is 4 to 8 bits'),
    (['allocate', 'TRUNCATED', '--bits', '5'], 'is not a whole scores file'),
    (['evaluate', 'demo', '--recipe', 'OTHER'], 'this recipe is for another model: '),
    (['quantize', 'demo', 'MXFP', '-o', 'TMP/x'], 'is not a weight-only integer format'),
], ids=lambda a: a[0] if isinstance(a, list) else '')
def test_bad_input_is_one_line_and_status_2(result, tmp_path, args, says):
    out, _ = result
    (tmp_path/'empty').mkdir()
    whole = (out/'scores.safetensors').read_bytes()
    (tmp_path/'cut.safetensors').write_bytes(whole[:len(whole)//2])
    recipe = out/'recipes'/'ours-MXFP-simulated-5.json'
    (tmp_path/'other.json').write_text(recipe.read_text().replace('model.layers.0.', 'model.layers.99.'))
    mx = mpq('allocate', out/'scores.safetensors', '--bits', 5, '--schemes', 'MXFP4,MXFP8', '-o', tmp_path/'mx.json') if 'SCORES' in args else None
    assert mx is None or mx.returncode == 0
    names = dict(EMPTY=tmp_path/'empty', SCORES=out/'scores.safetensors', TRUNCATED=tmp_path/'cut.safetensors',
                 OTHER=tmp_path/'other.json', MXFP=recipe)
    r = mpq(*[str(names.get(a, a)).replace('TMP', str(tmp_path)) for a in args])
    errors = [l for l in r.stderr.splitlines() if l.startswith('mpq: error: ')]
    assert r.returncode == 2 and len(errors) == 1 and says in errors[0] and 'Traceback' not in r.stderr, r.stderr


def test_json_is_all_there_is_on_stdout(result, tmp_path):
    r = mpq('allocate', result[0]/'scores.safetensors', '--bits', 5, '--json', '-o', tmp_path/'r.json')
    assert r.returncode == 0 and json.loads(r.stdout)['bits'] <= 5


def test_interrupted_demo_resumes_from_its_scores(result):
    "A second run uses the scores of the first: nothing is scored twice."
    from mpq_nb.models import demo_model
    from mpq_nb.sensitivity import Scores
    import torch
    from mpq_nb import calibration as C
    from mpq_nb.apps.cli.demo import demo_scores
    half, tok = demo_model(torch.bfloat16)
    toks = C.tokens('self', tok, half, 16, 256)
    before = (result[0]/'scores.safetensors').stat().st_mtime_ns
    assert torch.equal(demo_scores(result[0], toks, half).loss, Scores.load(result[0]/'scores.safetensors').loss)
    assert (result[0]/'scores.safetensors').stat().st_mtime_ns == before


@pytest.fixture(scope='module')
def own(tmp_path_factory):
    "A tiny model, a format of one's own in a file, and the scores and the recipe that were made with it."
    from conftest import tiny_checkpoint, tiny_tokenizer
    out = tmp_path_factory.mktemp('own')
    tiny_checkpoint(out/'tiny', tiny_tokenizer())
    (out/'own.toml').write_text('[THREE]\nvalues = [-1, -0.4, -0.1, 0, 0.1, 0.4, 1]\ngroup = 32\nscale = "E8M0"\n')
    (out/'text.txt').write_text('the quick brown fox jumps over the lazy dog. ' * 40)
    for line in (['score', out/'tiny', '-n', 2, '--length', 32, '--calibration', out/'text.txt', '--schemes', 'THREE,W8A16G32', '-o', out/'s.safetensors'],
                 ['allocate', out/'s.safetensors', '--bits', 5, '-o', out/'r.json']):
        r = mpq(*line, '--formats', out/'own.toml')
        assert r.returncode == 0, r.stderr
    return out


def test_a_format_of_ones_own_is_quantized(own):
    "The weights that are written are the file's values, times a power of two for each group of 32."
    from mpq_nb.allocation import Recipe
    from mpq_nb.schemes import known_formats
    from safetensors.torch import load_file
    r = mpq('quantize', own/'tiny', own/'r.json', '--format', 'fake', '--formats', own/'own.toml', '--dtype', 'float32', '-o', own/'fake')
    assert r.returncode == 0, r.stderr
    with known_formats(own/'own.toml'): recipe = Recipe.load(own/'r.json')
    layer = next(l for l, s in recipe.schemes.items() if s == 'THREE')
    w = load_file(own/'fake'/'model.safetensors')[f'{layer}.weight'].float()
    groups = w.unflatten(1, (-1, 32))
    by = groups.abs().amax(-1, keepdim=True)
    exponent = by.log2().round().exp2()
    steps = (groups / exponent).abs().unique()
    allowed = {0, .1, .4, 1}
    assert all(min(abs(v - a * 2**k) for a in allowed for k in (0, 1)) < 1e-6 for v in steps.tolist()), steps


@pytest.mark.parametrize('line', [['allocate', 's.safetensors', '--bits', 5], ['evaluate', 'tiny', '--recipe', 'r.json'],
                                  ['quantize', 'tiny', 'r.json', '--format', 'fake'], ['reproduce', 's.safetensors']], ids=lambda l: l[0])
def test_without_its_file_a_format_is_named(own, line):
    r = mpq(*[own/a if a in ('s.safetensors', 'tiny', 'r.json') else a for a in line], cwd=own)
    errors = [l for l in r.stderr.splitlines() if l.startswith('mpq: error: ')]
    assert r.returncode == 2 and len(errors) == 1, r.stderr
    assert "names the format 'THREE'" in errors[0] and '--formats FILE.toml' in errors[0]


@pytest.mark.parametrize('text, says', [
    ('[MXFP4]\nelement = "INT4"', 'line 1, [MXFP4]'),
    ('[MINE]\nelement = "INT4"\ngruop = 32', 'line 3, [MINE], gruop'),
    ('[MINE]\nelement = "INT4"\ngroup = 48', 'line 3, [MINE], group: 48 divides the inputs of no layer'),
    ('[MINE\nelement = "INT4"', 'is not TOML'),
], ids=['taken', 'field', 'group', 'broken'])
def test_a_wrong_file_of_formats_is_refused_at_once(own, text, says):
    (own/'wrong.toml').write_text(text)
    r = mpq('score', own/'tiny', '--schemes', 'MINE', '--formats', own/'wrong.toml', '-o', own/'never.safetensors')
    errors = [l for l in r.stderr.splitlines() if l.startswith('mpq: error: ')]
    assert r.returncode == 2 and len(errors) == 1, r.stderr
    assert 'wrong.toml' in errors[0] and says in errors[0]
    assert not (own/'never.safetensors').exists()


OWN = '[OWN]\nelement = "INT4"\ngroup = 32\ninputs = "INT8"\n'

def edited(file):
    "Another format of the same name: only how it rounds inputs differs, so that every weight stays as it is."
    file.write_text(OWN.replace('INT8', 'INT2'))


@pytest.fixture
def owner(tmp_path):
    "A tiny model, its scores in a format of one's own, the recipe, and the file of the format."
    from types import SimpleNamespace
    import torch
    from mpq_nb.allocation import allocate
    from mpq_nb.base.layers import tiny_model
    from mpq_nb.schemes import known_formats
    from mpq_nb.sensitivity import score
    file, model = tmp_path/'own.toml', tiny_model()
    file.write_text(OWN)
    ids = torch.randint(3, 256, (4, 16), generator=torch.Generator().manual_seed(0))
    with known_formats(file): scores = score(model, ids, ('OWN', 'W8A16G32'))
    with known_formats(file): recipe = allocate(scores, bits=5)
    return SimpleNamespace(model=model, ids=ids, scores=scores, recipe=recipe, file=file, left=tmp_path/'left.partial')


def interrupted(owner, work):
    "Do the work in the format of the file, and interrupt it when it is done."
    from mpq_nb.base.resume import Checkpoint
    from mpq_nb.schemes import known_formats
    with pytest.raises(KeyboardInterrupt), known_formats(owner.file), Checkpoint(owner.left, every=0) as state:
        work(state)
        raise KeyboardInterrupt


def resumed(owner, work):
    from mpq_nb.base.resume import Checkpoint
    from mpq_nb.schemes import known_formats
    with known_formats(owner.file), Checkpoint(owner.left, every=0) as state: return work(state)


def check_resumption(owner, work):
    "An interrupted run goes on with the same file, and not with an edited one."
    from mpq_nb.base.files import InputError
    interrupted(owner, work)
    kept = owner.left.read_bytes()
    same = resumed(owner, work)
    owner.left.write_bytes(kept)
    edited(owner.file)
    with pytest.raises(InputError, match='does not go with this one.*formats was') as e: resumed(owner, work)
    assert 'OWN' in str(e.value) and owner.left.read_bytes() == kept
    owner.left.unlink()
    return same, resumed(owner, work)


def test_a_refinement_is_not_resumed_with_an_edited_format(owner):
    from mpq_nb.refinement import refine
    a, b = check_resumption(owner, lambda state: refine(owner.model, owner.ids, owner.scores, owner.recipe, rounds=1, state=state))
    assert a.made.refined['start'] != b.made.refined['start']      # it would have mattered


def test_an_evaluation_is_not_resumed_with_an_edited_format(owner):
    from mpq_nb.evaluation import evaluate
    from mpq_nb.quantization import quantized
    def work(state):
        with quantized(owner.model, owner.recipe) as m: return evaluate(m, owner.ids, batch=2, state=state)
    a, b = check_resumption(owner, work)
    assert a.nll.mean() != b.nll.mean()


def test_an_evaluation_of_a_simulated_checkpoint_is_not_resumed_with_an_edited_format(owner, tmp_path):
    from conftest import tiny_tokenizer
    from mpq_nb.evaluation import evaluate
    from mpq_nb.quantization import reload, save_fake
    from mpq_nb.schemes import known_formats
    with known_formats(owner.file): save_fake(owner.model, tiny_tokenizer(), owner.recipe, tmp_path/'fake')
    a, b = check_resumption(owner, lambda state: evaluate(reload(tmp_path/'fake')[0], owner.ids, batch=2, state=state))
    assert a.nll.mean() != b.nll.mean()


def test_a_checkpoint_is_not_written_half_in_an_edited_format(owner, tmp_path):
    from conftest import tiny_tokenizer
    from mpq_nb.apps.cli.quantize import write_once
    from mpq_nb.base.layers import tiny_model
    def work(state): return write_once(tiny_model(), tiny_tokenizer(), owner.recipe, tmp_path/'out', 'fake', True, False, True, state)
    check_resumption(owner, work)


def test_a_finished_checkpoint_is_not_that_of_an_edited_format(own, tmp_path):
    "With --resume, the folder of the same command is its result; with another definition of the format it is in the way."
    (tmp_path/'own.toml').write_text((own/'own.toml').read_text())
    line = ['quantize', own/'tiny', own/'r.json', '--format', 'fake', '--formats', tmp_path/'own.toml', '-o', tmp_path/'out']
    assert mpq(*line).returncode == 0
    r = mpq(*line, '--resume')
    assert r.returncode == 0 and 'finished by this command already' in r.stderr
    (tmp_path/'own.toml').write_text((own/'own.toml').read_text().replace('0.4', '0.5'))
    r = mpq(*line, '--resume')
    assert r.returncode == 2 and 'is not empty' in r.stderr, r.stderr
