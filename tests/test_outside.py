"""What people bring from outside: files of other writers, odd tokenizers and names. Every checkpoint is tiny, random, and made here.

| brought | promise |
|---|---|
| a GGUF file whose positions are scaled | loads with the frequencies that it states, or is refused with the reason |
| a GGUF file of NVFP4 | its second scale is multiplied in |
| settings and tensors that nobody reads | named in a warning |
| a token that only the tokenizer has | never drawn; the commands work |
| a checkpoint that is quantized already | refused before it is loaded, with the name of the original |
| code of the checkpoint's own | runs if it is allowed, and nobody is asked on the terminal |
| a config that contradicts the file (tied or not) | said, and the file is believed |
| files of an image processor; layers that predict ahead | taken along, counted and said |
| blocks with a state, with heads of another width, with keys and values of other blocks, without attention | `--fit` counts what they keep, to the byte |
"""
import json
import os
import stat

import numpy as np
import pytest
import torch
from conftest import tiny_tokenizer, write_gguf

from mpq_nb.cli import main
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


def test_a_token_that_only_the_tokenizer_has_stops_nothing(tmp_path):
    "Padding was added to the tokenizer, and the embedding left as it was: the default calibration and the proof of a checkpoint work."
    tiny_model(vocab_size=261).save_pretrained(tmp_path/'m')
    tiny_tokenizer(extra=1).save_pretrained(tmp_path/'m')
    m = str(tmp_path/'m')
    assert main(['score', m, '--schemes', 'W4A16G32,W8A16G32', '-n', '2', '--length', '32', '-o', f'{m}.safetensors']) == 0
    assert main(['allocate', f'{m}.safetensors', '--bits', '6', '-o', f'{m}.json']) == 0
    assert main(['quantize', m, f'{m}.json', '-o', f'{m} packed']) == 0


def checkpoint(folder, dtype=torch.float32, **config):
    model = tiny_model(vocab_size=261, **config).to(dtype)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return folder


def change(path, **entries):
    "Change entries of a JSON file."
    path.write_text(json.dumps(json.loads(path.read_text()) | entries))


def recipe_of(folder, scheme='W8A16G32'):
    "A uniform recipe for a checkpoint."
    from mpq_nb.allocation import Recipe
    from mpq_nb.models import layers
    ls = layers(load(folder)[0])
    return Recipe({l.name: scheme for l in ls}, {l.name: l.shape for l in ls})


SCORE = ('--schemes', 'W4A16G32,W8A16G32', '-n', '2', '--length', '32')


def said(capsys, *args):
    "The status of a command, and what it said."
    status = main([str(a) for a in args])
    out = capsys.readouterr()
    return status, out.out, out.err


@pytest.mark.parametrize('method', ['gptq', 'auto-round', 'awq', 'compressed-tensors'])
def test_a_quantized_source_is_refused_before_it_is_loaded(tmp_path, capsys, method):
    m = checkpoint(tmp_path/'m')
    change(m/'config.json', quantization_config=dict(quant_method=method, bits=4, group_size=32, sym=True, config_groups={}, format='pack-quantized'))
    (m/'README.md').write_text('---\nbase_model: some/original\n---\n')
    status, _, err = said(capsys, 'score', m, *SCORE, '-o', tmp_path/'s.safetensors')
    assert status == 2 and f"is quantized already ({method})" in err and 'some/original' in err
    assert not list(tmp_path.glob('*.partial'))


def test_own_checkpoints_are_refused_as_a_source(tmp_path):
    "Loaded as it is in Python, where nothing asked before."
    from mpq_nb.models import layers
    from mpq_nb.quantization import export
    m = checkpoint(tmp_path/'m')
    for format in ('auto_round', 'llm_compressor'):
        out = export(load(m)[0], load(m)[1], recipe_of(m), tmp_path/format, format)
        with pytest.raises(InputError, match='is quantized already'): layers(load(out)[0])


def test_code_of_a_checkpoints_own_runs_only_if_it_is_allowed(tmp_path, capsys, monkeypatch):
    m = checkpoint(tmp_path/'m')
    change(m/'config.json', model_type='mine', architectures=['MineForCausalLM'], auto_map=dict(AutoConfig='modeling_mine.MineConfig', AutoModelForCausalLM='modeling_mine.MineForCausalLM'))
    (m/'modeling_mine.py').write_text('from transformers import LlamaConfig, LlamaForCausalLM\n'
                                      "class MineConfig(LlamaConfig): model_type = 'mine'\n"
                                      'class MineForCausalLM(LlamaForCausalLM): config_class = MineConfig\n')
    def asked(*_): raise AssertionError('somebody was asked on the terminal')
    monkeypatch.setattr('builtins.input', asked)
    status, out, err = said(capsys, 'score', m, *SCORE, '-o', tmp_path/'s.safetensors')
    assert status == 2 and '--trust-remote-code' in err and '[y/N]' not in out + err
    status, out, err = said(capsys, 'score', m, *SCORE, '--trust-remote-code', '-o', tmp_path/'s.safetensors')
    assert status == 0 and '[y/N]' not in out + err and 'MPQ_TRUST_REMOTE_CODE' not in os.environ


def test_every_file_of_a_checkpoint_has_the_rights_of_the_umask(tmp_path):
    from mpq_nb.quantization import export, save_fake
    m = checkpoint(tmp_path/'m')
    model, tok = load(m)
    before = os.umask(0o027)
    try: folders = [export(model, tok, recipe_of(m), tmp_path/'packed'), save_fake(model, tok, recipe_of(m), tmp_path/'fake')]
    finally: os.umask(before)
    files = [p for d in folders for p in d.iterdir()]
    assert len(files) > 8 and {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o640}


def test_an_output_layer_of_its_own_is_kept_whatever_the_config_says(tmp_path):
    from mpq_nb.calibration import sample
    from mpq_nb.quantization import export, verify
    from safetensors.torch import load_file, save_file
    m = checkpoint(tmp_path/'m', tie_word_embeddings=True)
    t = load_file(m/'model.safetensors')
    t['lm_head.weight'] = torch.randn(261, 64, generator=torch.Generator().manual_seed(3))
    save_file(t, m/'model.safetensors', metadata=dict(format='pt'))
    with pytest.warns(UserWarning, match='tie_word_embeddings'): model, tok = load(m)
    assert torch.equal(model.lm_head.weight, t['lm_head.weight'])
    r = recipe_of(m)
    for format in ('auto_round', 'llm_compressor'):
        assert verify(export(model, tok, r, tmp_path/format, format), model, r, sample(model, 2, 32, prefix=[1]), fresh=False)['ok']


def test_what_the_architecture_has_no_place_for_is_copied_counted_and_said(tmp_path):
    from mpq_nb.calibration import sample
    from mpq_nb.models import rest_bytes
    from mpq_nb.quantization import export, save_fake, verify
    from safetensors.torch import load_file, save_file
    m = checkpoint(tmp_path/'m')
    before = rest_bytes(load(m)[0])
    ahead = {'mtp.fc.weight': torch.randn(64, 128), 'mtp.norm.weight': torch.ones(64).bfloat16()}
    t = load_file(m/'model.safetensors') | ahead
    save_file(t, m/'model.safetensors', metadata=dict(format='pt'))
    change(m/'config.json', mtp_num_hidden_layers=1)
    for name in ('preprocessor_config.json', 'processor_config.json'): (m/name).write_text('{"of": "images"}')
    with pytest.warns(UserWarning, match=r'no place \(mtp\.fc\.weight, mtp\.norm\.weight\); they are copied as they are \(33 kB\)'): model, tok = load(m)
    assert rest_bytes(model) - before == 4*64*128 + 2*64
    r = recipe_of(m)
    for out in (export(model, tok, r, tmp_path/'packed'), export(model, tok, r, tmp_path/'ct', 'llm_compressor'), save_fake(model, tok, r, tmp_path/'fake')):
        index = json.loads((out/'model.safetensors.index.json').read_text())['weight_map']
        for name, tensor in ahead.items(): assert torch.equal(load_file(out/index[name])[name], tensor)
        assert json.loads((out/'config.json').read_text())['mtp_num_hidden_layers'] == 1
        assert (out/'preprocessor_config.json').read_text() == (out/'processor_config.json').read_text() == '{"of": "images"}'
        assert far(load(out)[0], model) < .01
    toks = sample(model, 2, 32, prefix=[1])
    for out in ('packed', 'ct'): assert verify(tmp_path/out, model, r, toks, fresh=False)['ok']
    assert 're:mtp(\\..*)?' in json.loads((tmp_path/'ct'/'config.json').read_text())['quantization_config']['ignore']
    save_file({'mtp.fc.weight': ahead['mtp.fc.weight']}, next((tmp_path/'packed').glob('model-carried-*')))
    v = verify(tmp_path/'packed', model, r, toks, fresh=False)
    assert not v['ok'] and v['lost_tensors'] == ['mtp.norm.weight']


def test_what_a_run_on_another_model_left_is_in_nobodys_way(tmp_path, capsys):
    from mpq_nb.models import Checkpoint
    m, out = checkpoint(tmp_path/'m'), tmp_path/'s.safetensors'
    kept = Checkpoint(f'{out}.partial')
    kept.about['command'] = dict(model='another')
    kept.write()
    status, _, err = said(capsys, 'score', m, *SCORE, '-o', out)
    assert status == 0 and 'an interrupted run on another had left' in err


def test_a_number_that_was_not_measured_is_null_in_json(tmp_path, capsys):
    status, out, _ = said(capsys, 'evaluate', checkpoint(tmp_path/'m'), '-n', '1', '--length', '32', '--json')
    def no(constant): raise AssertionError(f'{constant} is no JSON')
    assert status == 0 and json.loads(out, parse_constant=no)['kl_se'] is None


def test_a_rule_says_which_layers_it_takes_and_what_is_proposed_can_be_pasted(tmp_path, capsys):
    m = checkpoint(tmp_path/'my model', layers=12)
    assert said(capsys, 'score', m, *SCORE, '--method', 'mse', '-o', tmp_path/'s.safetensors')[0] == 0
    status, out, _ = said(capsys, 'allocate', tmp_path/'s.safetensors', '--bits', 4.34, '--fixed', 'model.layers.1=W8A16G32', '-o', tmp_path/'r.json')
    assert status == 0 and '--fixed model.layers.1=W8A16G32: 7 of 84 layers, model.layers.1.self_attn.q_proj' in out
    assert f"next: mpq evaluate '{m}' --recipe" in out
    chosen = json.loads((tmp_path/'r.json').read_text())['layers']
    assert {s for n, s in chosen.items() if '.layers.1.' in n} == {'W8A16G32'}
    assert {s for n, s in chosen.items() if '.layers.1.' not in n} == {'W4A16G32'}
    assert said(capsys, 'allocate', tmp_path/'s.safetensors', '--gib', '0.5MiB', '-o', tmp_path/'r.json')[0] == 0


MIXED = dict(layer_types=['sliding_attention', 'full_attention']*2, num_hidden_layers=4, sliding_window=16, global_head_dim=32,
             hidden_size_per_layer_input=32, vocab_size_per_layer_input=261, enable_moe_block=False)
KEEPS = {   # (configuration, its sizes, what each block keeps)
    'heads of two widths': ('Gemma4TextConfig', MIXED | dict(num_kv_shared_layers=0), [[128, 16], [256, 0]]*2),
    'keys and values of other blocks': ('Gemma4TextConfig', MIXED | dict(num_kv_shared_layers=2), [[128, 16], [256, 0], [0, 0], [0, 0]]),
    'linear attention': ('Qwen3_5TextConfig', dict(layer_types=['linear_attention', 'full_attention'], num_hidden_layers=2, linear_num_key_heads=2,
                         linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16), [[0, 0, 5120], [128, 0]]),
    'no attention': ('Mamba2Config', dict(num_hidden_layers=2, expand=2, num_heads=8, head_dim=16, state_size=16, n_groups=1), [[0, 0, 9472]]*2)}


@pytest.mark.parametrize('kind', KEEPS)
def test_a_device_has_room_for_what_blocks_keep(tmp_path, capsys, kind):
    import transformers
    from mpq_nb.base.layers import SMALL
    from mpq_nb.schemes import stored_bits
    from mpq_nb.sensitivity import Scores
    name, sizes, keeps = KEEPS[kind]
    shared = SMALL if kind != 'no attention' else dict(hidden_size=64, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
    config = getattr(transformers, name)(**shared | sizes | dict(vocab_size=261))
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path/'m')
    tiny_tokenizer().save_pretrained(tmp_path/'m')
    scores, recipe = tmp_path/'s.safetensors', tmp_path/'r.json'
    assert said(capsys, 'score', tmp_path/'m', '--schemes', 'W4A16G32,W8A16G32', '-n', 1, '--length', 8, '--method', 'mse', '-o', scores)[0] == 0
    s = Scores.load(scores)
    assert s.meta['cache'] == keeps
    by_hand = sum(a*min(1000, window or 1000) + sum(state) for a, window, *state in keeps)
    weights = sum(stored_bits('W8A16G32', l.shape) for l in s.layers) // 8
    room = (s.meta['rest_bytes'] + by_hand + weights) / .9
    def fitting(nbytes): return said(capsys, 'allocate', scores, '--fit', nbytes / 2**30, '--context', 1000, '-o', recipe)[0]
    assert fitting(room + 64) == 0
    assert set(json.loads(recipe.read_text())['layers'].values()) == {'W8A16G32'}
    assert fitting(room - 64) == 0
    assert 'W4A16G32' in json.loads(recipe.read_text())['layers'].values()
