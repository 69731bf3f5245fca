"""What people bring from outside: files of other writers, odd tokenizers and names. Every checkpoint is tiny, random, and made here.

| brought | promise |
|---|---|
| a GGUF file whose positions are scaled | loads with the frequencies that it states, or is refused with the reason |
| a GGUF file of NVFP4 | its second scale is multiplied in |
| settings and tensors that nobody reads | named in a warning |
"""
import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer, write_gguf

from mpq_nb.models import load, tiny_model
from mpq_nb.schemes import InputError

IDS = torch.randint(4, 256, (2, 48), generator=torch.Generator().manual_seed(0))


def predictions(model, ids=IDS):
    with torch.no_grad(): return model(ids).logits.log_softmax(-1)


def far(a, b):
    "KL of two models' predictions, nats a token."
    p, q = predictions(a), predictions(b)
    return (p.exp() * (p - q)).sum(-1).mean().item()


# (family, rope_parameters of the model, settings of its GGUF file, tensors of its GGUF file)
LLAMA3 = dict(rope_type='llama3', rope_theta=1e4, factor=8., low_freq_factor=1., high_freq_factor=4., original_max_position_embeddings=64)
FACTORS = [1.5, 2., 2.5, 3., 3.5, 4., 4.5, 5.]
LONG = dict(rope_type='longrope', rope_theta=1e4, factor=1., attention_factor=1., original_max_position_embeddings=512)


def llama3_factors(model):
    plain = 1e4 ** (-torch.arange(0, 16, 2) / 16)
    return (plain / model.model.rotary_emb.inv_freq).numpy()


SCALED = {
    'linear': ('llama', dict(rope_type='linear', factor=4., rope_theta=1e4), {'rope.scaling.type': 'linear', 'rope.scaling.factor': 4.}, {}),
    'yarn': ('qwen2', dict(rope_type='yarn', factor=4., rope_theta=1e4, original_max_position_embeddings=128),
             {'rope.scaling.type': 'yarn', 'rope.scaling.factor': 4., 'rope.scaling.original_context_length': 128}, {}),
    'llama3': ('llama', LLAMA3, {}, {'rope_freqs.weight': llama3_factors}),
    'factors of nobody': ('llama', LONG | dict(short_factor=FACTORS, long_factor=FACTORS), {}, {'rope_freqs.weight': lambda m: np.array(FACTORS)}),
    'gemma3': ('gemma3', dict(full_attention=dict(rope_type='linear', factor=8., rope_theta=1e6), sliding_attention=dict(rope_type='default', rope_theta=5e3)),
               {'rope.scaling.type': 'linear', 'rope.scaling.factor': 8., 'rope.freq_base': 1e6, 'rope.freq_base_swa': 5e3}, {}),
}


@pytest.mark.parametrize('kind', SCALED)
def test_a_gguf_keeps_the_scaling_of_its_positions(tmp_path, kind):
    family, rope, settings, tensors = SCALED[kind]
    more = dict(layers=6) if family == 'gemma3' else {}
    model = tiny_model(family, rope_parameters=rope, vocab_size=261, **more)
    write_gguf(tmp_path/'m.gguf', model, settings, {k: f(model) for k, f in tensors.items()})
    loaded, _ = load(tmp_path/'m.gguf')
    assert far(model, loaded) < 1e-9
    assert far(model, tiny_model(family, vocab_size=261, **more)) > 1e-4      # without the scaling it is another model


def nvfp4(shape, seed=0):
    "Random NVFP4 blocks [outputs, bytes]: for 64 weights four scales of E4M3 around 1 and 32 bytes of two weights each."
    out, inp = shape
    g = np.random.default_rng(seed)
    scales, weights = g.integers(0x34, 0x3c, (out, inp//64, 4), np.uint8), g.integers(0, 256, (out, inp//64, 32), np.uint8)
    return np.concatenate([scales, weights], -1).reshape(out, -1)


def test_a_gguf_of_nvfp4_is_loaded_with_both_of_its_scales(tmp_path):
    from gguf import GGMLQuantizationType as T, dequantize
    model, name = tiny_model(vocab_size=261), 'blk.1.ffn_up'
    weight = model.model.layers[1].mlp.up_proj.weight
    raw = nvfp4(weight.shape)
    scale = 2e-2
    weight.data = torch.from_numpy(dequantize(raw, T.NVFP4)) * scale
    write_gguf(tmp_path/'m.gguf', model, {}, {f'{name}.scale': [scale], f'{name}.input_scale': [1.]}, {f'{name}.weight': (raw, T.NVFP4)})
    loaded = load(tmp_path/'m.gguf')[0]
    assert torch.allclose(loaded.model.layers[1].mlp.up_proj.weight, weight) and far(model, loaded) < 1e-9


def test_a_gguf_with_what_transformers_cannot_hold_is_refused(tmp_path):
    model = tiny_model(vocab_size=261)
    def refused(settings, tensors, why):
        write_gguf(tmp_path/'m.gguf', model, settings, tensors)
        with pytest.raises(InputError, match=why): load(tmp_path/'m.gguf')
    refused({'rope.scaling.type': 'longrope'}, {}, "scaled by 'longrope'.*Load the checkpoint that it was made from")
    refused({'rope.scaling.type': 'linear', 'rope.scaling.factor': 2.}, {'rope_freqs.weight': FACTORS}, 'scaled in two ways')
    refused({}, {'blk.0.ffn_norm.bias': np.ones(64)}, r'blk\.0\.ffn_norm\.bias has no place')
    refused({}, {'blk.0.ffn_up.scale': np.ones(160)}, 'has 160 numbers')


def test_what_nobody_reads_of_a_gguf_is_said(tmp_path):
    write_gguf(tmp_path/'m.gguf', tiny_model(vocab_size=261), {'expert_count': 0, 'residual_scale': .5}, {'blk.1.nextn.eh_proj.weight': np.ones((64, 128))})
    with pytest.warns(UserWarning, match='not read.*expert_count, residual_scale, blk.1.nextn.eh_proj.weight'): load(tmp_path/'m.gguf')


def test_a_gguf_keeps_windows_and_the_share_of_a_head_that_is_rotated(tmp_path):
    model = tiny_model('phi3', vocab_size=261, sliding_window=8, rope_parameters=dict(rope_type='default', rope_theta=1e4, partial_rotary_factor=.75))
    write_gguf(tmp_path/'m.gguf', model, {'rope.dimension_count': 12})
    loaded = load(tmp_path/'m.gguf')[0]
    assert far(model, loaded) < 1e-9 and far(model, tiny_model('phi3', vocab_size=261)) > 1e-4


def test_heads_of_a_width_of_their_own(tmp_path):
    model = tiny_model('qwen3', vocab_size=261, head_dim=32)
    write_gguf(tmp_path/'m.gguf', model)
    assert far(model, load(tmp_path/'m.gguf')[0]) < 1e-9
