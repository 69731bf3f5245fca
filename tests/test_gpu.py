"On a GPU everything is as on the CPU, to rounding. Without a GPU these tests are skipped, and say so."
import pytest
import torch
import transformers
from transformers import AutoModelForCausalLM

from mpq_nb.allocation import allocate
from mpq_nb.calibration import sample
from mpq_nb.evaluation import evaluate, evaluate_each, logprobs, reference
from mpq_nb.base.loading import streaming_arguments
from mpq_nb.models import fingerprint, layers, streamed, tiny_model
from mpq_nb.quantization import quantized
from mpq_nb.refinement import refine
from mpq_nb.schemes import KNOWN, qdq, qdq_activation, quantizes_activations
from mpq_nb.sensitivity import METHODS, score

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason='no GPU here')
MX = ('MXFP4', 'MXFP8')
INT = ('W2A16G32', 'W3A16G32', 'W4A16G32', 'W8A16G32')
FORMATS = [n for n in (*KNOWN, 'W4A16G64') if n not in ('BF16', 'FP16')]


def pair(family='qwen3', **config):
    "The same random model on the CPU and on the GPU."
    model = tiny_model(family, initializer_range=.1, **config).requires_grad_(False)
    gpu = tiny_model(family, initializer_range=.1, **config).requires_grad_(False).to('cuda')
    return model, gpu


def text(n=8, T=64):
    return torch.randint(3, 256, (n, T), generator=torch.Generator().manual_seed(0))


def far(a, b):
    "The difference of two tensors, relative to the second."
    a, b = a.double().cpu(), b.double().cpu()
    return ((a - b).norm() / b.norm()).item()


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
@pytest.mark.parametrize('name', FORMATS)
def test_formats(name, dtype):
    w = torch.randn(64, 512, generator=torch.Generator().manual_seed(0)).to(dtype)
    w[0] = 0
    pairs = [(qdq(w, name), qdq(w.cuda(), name))]
    if quantizes_activations(name): pairs.append((qdq_activation(w, name), qdq_activation(w.cuda(), name)))
    for here, there in pairs:
        assert there.is_cuda and there.dtype == dtype
        if name.startswith('GGUF'):     # scales are searched for, and sums in another order find others that are as good
            assert abs(far(there, w)/far(here, w) - 1) < .02
        else: assert torch.isclose(there.cpu(), here, rtol=1e-2).float().mean() > .999 and far(there, here) < 1e-2


@pytest.mark.parametrize('name', MX)
def test_mx_to_the_bit(name):
    w = torch.randn(256, 4096, generator=torch.Generator().manual_seed(0)) * torch.logspace(-30, 30, 256)[:, None]
    for t in (w, w.bfloat16()): assert torch.equal(qdq(t, name), qdq(t.cuda(), name).cpu())


@pytest.mark.parametrize('family', ['llama', 'qwen2', 'qwen3', 'gemma3'])
@pytest.mark.parametrize('schemes', [MX, INT, ('MXFP4', 'NVFP4', 'W4A16G32', 'BF16')])
def test_scores(family, schemes):
    cpu, gpu = pair(family)
    a, b = (score(m, text(), schemes, batch=4) for m in (cpu, gpu))      # NVFP4's inputs share a scale, so it depends on the batch
    assert fingerprint(cpu) == fingerprint(gpu) and a.meta['model'] == b.meta['model']
    assert far(b.loss, a.loss) < .05 and far(b.cross, a.cross) < .05
    if a.uniform is not None: assert far(b.uniform.nan_to_num(), a.uniform.nan_to_num()) < .05


@pytest.mark.parametrize('method', METHODS)
def test_methods(method):
    a, b = (score(m, text(4, 32), MX, method) for m in pair())
    assert far(b.loss, a.loss) < .05


@pytest.mark.parametrize('dtype', [torch.float32, torch.bfloat16])
def test_flow(dtype):
    cpu, gpu = (m.to(dtype) for m in pair())
    ids, out = text(), []
    for m in (cpu, gpu):
        s = score(m, ids, MX)
        r, ref = allocate(s, bits=5), reference(m, ids, cache=False)
        with quantized(m, r): e = evaluate(m, ids, ref)
        each = evaluate_each(m, {'ours': r, 'plain': None}, ids, ref)
        better = refine(m, ids, s, r, rounds=1)
        out.append((s, r, e, each, better))
    (s, r, e, each, better), (s2, r2, e2, each2, better2) = out
    loose = .05 if dtype == torch.float32 else .2
    assert far(s2.loss, s.loss) < loose and r2.bits <= 5
    assert sum(r.schemes[l] != r2.schemes[l] for l in r.schemes) <= (0 if dtype == torch.float32 else 4)
    for a, b in ((e, e2), (each['ours'], each2['ours'])):
        a, b = a.summary(), b.summary()
        assert abs(b['kl']/a['kl'] - 1) < 2*loose and abs(b['ppl']/a['ppl'] - 1) < loose and abs(b['top1'] - a['top1']) < loose
    assert torch.equal(each2['ours'].kl, e2.kl) or far(each2['ours'].kl, e2.kl) < 1e-3
    assert each2['plain'].summary()['kl'] < 1e-3
    assert abs(better2.made['refined']['kl']/better.made['refined']['kl'] - 1) < 2*loose


def test_the_model_is_as_before():
    gpu = pair()[1]
    before = {k: v.clone() for k, v in gpu.state_dict().items()}
    ids = text(4, 32)
    s = score(gpu, ids, MX)
    with quantized(gpu, allocate(s, bits=5)): evaluate(gpu, ids)
    assert all(torch.equal(v, gpu.state_dict()[k]) for k, v in before.items())


def test_streamed_from_the_disk(tmp_path):
    cpu, gpu = pair(layers=3)
    cpu.save_pretrained(tmp_path)
    dtype, kw = streaming_arguments(str(tmp_path), 'auto', 'cuda', False)
    disk = AutoModelForCausalLM.from_pretrained(tmp_path, dtype=dtype, **kw).eval().requires_grad_(False)
    assert streamed(disk) and not streamed(gpu) and fingerprint(disk) == fingerprint(gpu)
    ids, out = text(6, 32), []
    for m in (gpu, disk):
        s = score(m, ids, (*MX, 'W4A16G32'))
        r, ref = allocate(s.select(MX), bits=5), reference(m, ids, cache=False)
        with quantized(m, r): e = evaluate(m, ids, ref)
        out.append((s.loss, s.cross, s.uniform.nan_to_num(), e.kl, torch.tensor(refine(m, ids, s.select(MX), r, rounds=1).made['refined']['kl'])))
    for a, b in zip(*out): assert far(b, a) < 1e-4
    assert all(disk.get_submodule(l.name).weight.is_meta for l in layers(disk))


def test_sampling_and_slices(monkeypatch):
    cpu, gpu = pair()
    ids = sample(gpu, 4, 32, prefix=[1])
    assert ids.shape == (4, 32) and not ids.is_cuda
    whole = score(gpu, ids, MX)
    monkeypatch.setattr('mpq_nb.base.walk.LOGITS', 16*256)
    assert far(score(gpu, ids, MX).loss, whole.loss) < 1e-3
    assert far(logprobs(gpu, ids), logprobs(cpu, ids)) < 1e-3
