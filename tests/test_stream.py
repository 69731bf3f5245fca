"A model whose blocks are read from the disk one by one, beside the same model in memory."

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM

from mpq_nb.allocation import allocate
from mpq_nb.calibration import tokens
from mpq_nb.evaluation import evaluate, reference
from mpq_nb.base.loading import load_demo, streaming_arguments
from mpq_nb.models import fingerprint, layers, load, streamed
from mpq_nb.quantization import quantized
from mpq_nb.refinement import refine
from mpq_nb.schemes import InputError
from mpq_nb.sensitivity import score

FAMILIES = dict(llama='LlamaConfig', qwen2='Qwen2Config', qwen3='Qwen3Config', gemma2='Gemma2Config', gemma3='Gemma3TextConfig', mistral='MistralConfig',
                phi='PhiConfig', phi3='Phi3Config', olmo2='Olmo2Config', gpt_neox='GPTNeoXConfig', starcoder2='Starcoder2Config', granite='GraniteConfig')
MX = ('MXFP4', 'MXFP8')


def tiny(config, n=3):
    torch.manual_seed(0)
    c = getattr(transformers, config)(vocab_size=256, hidden_size=64, intermediate_size=128, num_hidden_layers=n, num_attention_heads=2, num_key_value_heads=1, max_position_embeddings=64,
                                      pad_token_id=0, bos_token_id=1, eos_token_id=2, **({'sliding_window': 8} if config.startswith('Gemma') else {}))
    return AutoModelForCausalLM.from_config(c).eval().requires_grad_(False)


def from_disk(folder):
    dtype, kw = streaming_arguments(str(folder), 'auto', 'cpu', False)
    return AutoModelForCausalLM.from_pretrained(folder, dtype=dtype, **kw).eval().requires_grad_(False)


def everything(model, ids):
    "Scores, the divergence of their recipe, and what refinement measured."
    s = score(model, ids, (*MX, 'W4A16G32'))
    r, ref = allocate(s.select(MX), bits=5), reference(model, ids, cache=False)
    with quantized(model, r): e = evaluate(model, ids, ref)
    return s.loss, s.cross, s.uniform.nan_to_num(), e.kl, refine(model, ids, s.select(MX), r, rounds=1).made['refined']['measured']


@pytest.mark.parametrize('family', FAMILIES)
def test_streamed_is_whole(family, tmp_path):
    whole = tiny(FAMILIES[family])
    whole.save_pretrained(tmp_path)
    disk = from_disk(tmp_path)
    assert streamed(disk) and not streamed(whole) and fingerprint(disk) == fingerprint(whole)
    ids = torch.randint(3, 256, (6, 24), generator=torch.Generator().manual_seed(0))
    *a, measured = everything(whole, ids)
    *b, again = everything(disk, ids)
    assert all(torch.equal(x, y) for x, y in zip(a, b)) and measured == again
    assert all(disk.get_submodule(l.name).weight.is_meta for l in layers(disk))     # nothing stayed behind


@pytest.mark.parametrize('family', ['llama', 'gemma2', 'gpt_neox'])
def test_streamed_is_whole_in_slices(family, tmp_path, monkeypatch):
    whole = tiny(FAMILIES[family])
    whole.save_pretrained(tmp_path)
    ids = torch.randint(3, 256, (4, 48), generator=torch.Generator().manual_seed(0))
    *at_once, _ = everything(whole, ids)
    monkeypatch.setattr('mpq_nb.base.walk.LOGITS', 32*256)              # slices of 32 and 16 tokens
    *a, measured = everything(whole, ids)
    *b, again = everything(from_disk(tmp_path), ids)
    assert all(torch.equal(x, y) for x, y in zip(a, b)) and measured == again
    for x, y in zip(a[:3], at_once): torch.testing.assert_close(x, y, rtol=1e-3, atol=1e-6)


@pytest.mark.parametrize('method', ['output_fisher', 'delta_loss', 'kl', 'mse'])
def test_other_methods(method, tmp_path):
    whole = tiny('LlamaConfig')
    whole.save_pretrained(tmp_path)
    ids = torch.randint(3, 256, (3, 16), generator=torch.Generator().manual_seed(0))
    a, b = (score(m, ids, MX, method).loss for m in (whole, from_disk(tmp_path)))
    assert torch.equal(a, b)


def test_one_block(tmp_path):
    whole = tiny('LlamaConfig', 1)
    whole.save_pretrained(tmp_path)
    ids = torch.arange(3, 35).view(2, 16)
    assert torch.equal(score(whole, ids, MX).loss, score(from_disk(tmp_path), ids, MX).loss)


def test_load_streams_and_refuses(tmp_path):
    model, tok = load('demo', stream=True)
    assert streamed(model) and len(tok) == 49152
    with pytest.raises(InputError, match='read whole'): load(str(load_demo().parent/next(p.name for p in load_demo().parent.glob('*.gguf'))), stream=True)
    tiny('LlamaConfig').save_pretrained(tmp_path)
    tok.save_pretrained(tmp_path)
    assert streamed(load(str(tmp_path), stream=True)[0])
    shard = tmp_path/'model.safetensors'
    shard.write_bytes(shard.read_bytes()[:-1000])                      # truncated
    with pytest.raises(InputError, match='cannot load'): load(str(tmp_path), stream=True)
    shard.unlink()
    with pytest.raises(InputError, match='cannot load'): load(str(tmp_path), stream=True)


def test_not_finite_names_the_layer(tmp_path):
    tiny('LlamaConfig').save_pretrained(tmp_path)
    w = load_file(tmp_path/'model.safetensors')
    w['model.layers.1.mlp.up_proj.weight'][0, 0] = float('nan')
    save_file(w, tmp_path/'model.safetensors', metadata={'format': 'pt'})
    with pytest.raises(InputError, match='model.layers.1.mlp.up_proj'): score(from_disk(tmp_path), torch.arange(3, 35).view(2, 16), MX)


def test_sampling_is_refused():
    model, tok = load('demo', stream=True)
    with pytest.raises(InputError, match='is streamed, and sampling from it'): tokens('self', tok, model, n=2, length=8)
