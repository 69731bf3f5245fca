"""What comes from outside is data: every parser gives a valid object or an `InputError`, whatever bytes it is given.

FUZZ inputs a parser (300 by default; `make long` gives 100,000), mutated from valid files by a seed."""
import inspect, json, os, random, time

import pytest
import torch

N = int(os.environ.get('FUZZ', 300))
JUNK = [None, True, -1, 0, 1e308, float('nan'), 10**30, '', 'a'*5000, '<script>alert(1)</script>', '../../etc/passwd', '\0', [], {}, [[]]*50, {'': None}, '__class__', '{0.__init__}', 'W4A16', 'MXFP99', '\ud800']


def mutated_json(v, rng):
    "The value with one place changed to something else."
    if isinstance(v, (dict, list)) and v and rng.random() < .85:
        k = rng.choice(list(v)) if isinstance(v, dict) else rng.randrange(len(v))
        if rng.random() < .15: return {a: b for a, b in v.items() if a != k} if isinstance(v, dict) else v[:k] + v[k+1:]
        if isinstance(v, dict): return v | {rng.choice([k, k, k, str(rng.choice(JUNK))]): mutated_json(v[k], rng)}
        return v[:k] + [mutated_json(v[k], rng)] + v[k+1:]
    return rng.choice(JUNK)


def mutated_bytes(b, rng):
    "The bytes with some flipped, cut, doubled or put elsewhere."
    b = bytearray(b)
    for _ in range(rng.choice((1, 1, 2, 8))):
        i, j = sorted((rng.randrange(len(b) + 1), rng.randrange(len(b) + 1)))
        how = rng.randrange(5)
        if how == 0 and i < len(b): b[i] ^= 1 << rng.randrange(8)
        elif how == 1: del b[i:min(j, i + 40)]
        elif how == 2: b[i:i] = b[i:min(j, i + 40)]
        elif how == 3: b[i:i] = rng.choice((b'\xff\xfe', b'&a ', b'*a', b'[[[[', b'"', b'{', b'9'*30, b'\n', b'!!python/object/apply:os.system', b'null'))
        else: del b[i:]
    return bytes(b)


def tensor_file(b, rng):
    "A safetensors file whose header, that is JSON, was changed; mostly with a hash that fits, so that it is read further."
    from safetensors.torch import load
    from mpq_nb.models import digest
    n = int.from_bytes(b[:8], 'little')
    head = json.loads(b[8:8+n])
    (key, text), = head['__metadata__'].items()
    meta = mutated_json(json.loads(text), rng) if rng.random() < .8 else json.loads(text)
    if isinstance(meta, dict) and rng.random() < .9:
        rest = {k: v for k, v in meta.items() if k != 'sha256'}
        meta = rest | dict(sha256=digest(load(b), list(rest.values()) if key == 'mpq_checkpoint' else rest))
    if rng.random() < .3: head = mutated_json(head, rng)
    if isinstance(head, dict) and rng.random() < .9: head['__metadata__'] = {key: json.dumps(meta)}
    new = json.dumps(head).encode()
    return len(new).to_bytes(8, 'little') + new + b[8+n:]


@pytest.fixture(scope='module')
def valid():
    "{kind: bytes of a valid file}"
    import tempfile
    from pathlib import Path
    from mpq_nb.allocation import allocate
    from mpq_nb.models import Checkpoint, tiny_model
    from mpq_nb.sensitivity import score
    with tempfile.TemporaryDirectory() as d:
        s = score(tiny_model(), torch.randint(3, 256, (2, 8), generator=torch.Generator().manual_seed(0)), ('MXFP4', 'W4A16G32', 'W8A16G32'))
        from mpq_nb.cli import COMMANDS
        from mpq_nb.apps.cli.common import origin_of
        args = {k: p.default for k, p in inspect.signature(COMMANDS['score'][0]).parameters.items()} | dict(model='tiny')
        s.meta.update(model_name='tiny', ran=origin_of('score', args))
        allocate(s, bits=5).save(f'{d}/recipe.json'); s.save(f'{d}/scores.safetensors')
        state = Checkpoint(f'{d}/partial.safetensors', every=0)
        state.of('work', seed=0); state.once('a', lambda: dict(x=torch.arange(9.))); state.once('b', lambda: [1, 'two'])
        Path(d, 'study.yaml').write_text('models: [demo]\nrecipes: [bf16, "uniform:MXFP4", ours]\nbudgets: [4.5, 5]\ntasks: [piqa]\nlimit: 10\nsamples: 4\nlength: 64\n')
        Path(d, 'results.jsonl').write_text(json.dumps(dict(key='0123', model='demo', recipe='head', bits=5., kl=.1, kl_rows=[.1, .2])) + '\n')
        return {p.name: p.read_bytes() for p in Path(d).iterdir()}


def recipe(path):
    from mpq_nb.allocation import Recipe
    r = Recipe.load(path)
    assert r.bits > 0 and r.nbytes > 0 and repr(r)
    return r

def scores(path):
    from mpq_nb.sensitivity import Scores
    s = Scores.load(path)
    assert repr(s) and len(s.frame()) == len(s.groups)
    return s

def partial(path):
    from mpq_nb.models import Checkpoint
    with Checkpoint(path) as state:
        state.unfinished = KeyboardInterrupt()
        state.of('work', seed=0)
    return state.steps

def study(path):
    from mpq_nb.study import Study
    st = Study.load(path)
    assert st.cells()
    return st

def origin(path):
    from mpq_nb.apps.cli.reproduce import check_repeatable, read_origin
    from mpq_nb.allocation import Recipe
    if path.suffix == '.json': check_repeatable(Recipe.load(path))
    return read_origin(path)

def results(path):
    from mpq_nb.study import read_rows
    return read_rows(path.parent)


@pytest.mark.timeout(3600)
@pytest.mark.parametrize('parse, name, kind', [(recipe, 'recipe.json', mutated_json), (recipe, 'recipe.json', mutated_bytes), (scores, 'scores.safetensors', tensor_file), (scores, 'scores.safetensors', mutated_bytes),
                                               (partial, 'partial.safetensors', tensor_file), (partial, 'partial.safetensors', mutated_bytes), (study, 'study.yaml', mutated_bytes), (study, 'study.yaml', mutated_json), (results, 'results.jsonl', mutated_bytes), (results, 'results.jsonl', mutated_json),
                                               (origin, 'recipe.json', mutated_json), (origin, 'scores.safetensors', tensor_file)],
                         ids=lambda v: getattr(v, '__name__', ''))
def test_any_file_is_valid_or_refused(valid, tmp_path, parse, name, kind):
    import resource, yaml
    from mpq_nb.schemes import InputError
    path, whole, refused, slowest = tmp_path/name, valid[name], 0, 0
    text = json.loads(whole) if name.endswith(('.json', '.jsonl')) else yaml.safe_load(whole) if name.endswith('.yaml') else None
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for i in range(N):
        rng = random.Random(f'{name} {kind.__name__} {i}')
        b = json.dumps(mutated_json(text, rng)).encode() if kind is mutated_json else kind(whole, rng)
        path.write_bytes(b)
        began = time.monotonic()
        try: parse(path)
        except InputError as e:
            refused += 1
            assert 0 < len(str(e)) < 20000
        except Exception as e: raise AssertionError(f'input {i}: {type(e).__name__}: {e}\n{b[:3000]!r}') from e
        slowest = max(slowest, time.monotonic() - began)
    assert 0 < refused or parse is results
    assert slowest < 20 and resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000, (slowest, before)
    print(f'{N} inputs, {refused} refused, slowest {slowest:.3f} s')


@pytest.mark.parametrize('text', ['models: [&a [x, x, x, x, x, x, x, x], &b [*a, *a, *a, *a, *a, *a], &c [*b, *b, *b, *b, *b, *b], &d [*c, *c, *c, *c, *c], &e [*d, *d, *d, *d, *d, *d, *d], [*e, *e, *e, *e, *e, *e]]\nrecipes: [bf16]\n',
                                  'models: [demo]\nrecipes: [bf16]\ntitle: [&a [x, x, x, x, x, x, x, x], &b [*a, *a, *a, *a, *a, *a], [*b, *b, *b, *b]]\n', '!!bool maybe', 'models: [demo]\nrecipes: [bf16]\ntitle: 2020-13-45\n',
                                  'models: [demo]\nrecipes: [bf16]\nseed: ' + '9'*5000 + '\n', '!!timestamp abc', '!!float abc',
                                  'models: [!!python/object/apply:os.system ["true"]]\nrecipes: [bf16]\n', 'models: [demo]\nrecipes: [bf16]\ntasks: {a: [' + '['*5000, '- '*3000])
def test_hostile_yaml_is_refused(tmp_path, text):
    from mpq_nb.schemes import InputError
    from mpq_nb.study import Study
    (tmp_path/'s.yaml').write_text(text)
    with pytest.raises(InputError) as e: Study.load(tmp_path/'s.yaml')
    assert len(str(e.value)) < 1000


def test_a_header_cannot_claim_what_the_file_lacks(tmp_path):
    from mpq_nb.schemes import InputError
    head = json.dumps({'__metadata__': {'mpq_scores': '{}'}, 'loss': dict(dtype='F32', shape=[10**12, 4], data_offsets=[0, 16*10**12])}).encode()
    for size in (len(head), 2**62):
        (tmp_path/'s.safetensors').write_bytes(size.to_bytes(8, 'little') + head)
        with pytest.raises(InputError): scores(tmp_path/'s.safetensors')
