"No family whose first command was never run: each goes through every command, on a tiny checkpoint made here; from a folder, and from a GGUF file."
import contextlib, io, json

import pytest
import torch
from conftest import tiny_tokenizer, write_gguf

from mpq_nb.allocation import Recipe
from mpq_nb.cli import main
from mpq_nb.models import layers, load, tiny_model

SCALED = dict(rope_type='llama3', rope_theta=5e5, factor=32., low_freq_factor=1., high_freq_factor=4., original_max_position_embeddings=128)
FAMILIES = {
    'gemma3': dict(family='gemma3', layers=6, tie_word_embeddings=True),
    'gemma2': dict(family='gemma2', tie_word_embeddings=True),
    'qwen2.5': dict(family='qwen2', tie_word_embeddings=True),
    'llama3.2': dict(family='llama', tie_word_embeddings=True, rope_parameters=SCALED),
    'phi3': dict(family='phi3', rope_parameters=dict(rope_type='default', rope_theta=1e4, partial_rotary_factor=.75)),
}
SHORT = ('-n', '2', '--length', '32')


@pytest.fixture(scope='module')
def text(tmp_path_factory):
    path = tmp_path_factory.mktemp('text')/'text.txt'
    path.write_text('\n\n'.join(f'the number {i} is followed by {i + 1}' for i in range(100)))
    return path


def mpq(*args):
    "What the command says as JSON; it has to end well."
    out = io.StringIO()
    with contextlib.redirect_stdout(out): status = main([*map(str, args), '--json'])
    assert status == 0, args
    return json.loads(out.getvalue())


def every_command(model, folder, text, format, schemes):
    "Score, allocate, quantize, evaluate; what the last two found."
    folder.mkdir()
    scores, recipe, out = folder/'scores.safetensors', folder/'recipe.json', folder/'out'
    mpq('score', model, '--schemes', schemes, '--calibration', text, *SHORT, '-o', scores)
    mpq('allocate', scores, '--bits', 6, '-o', recipe)
    mpq('evaluate', model, '--recipe', recipe, *SHORT)
    written = mpq('quantize', model, recipe, '--format', format, '-o', out)['verification']
    return written, mpq('evaluate', model, '--against', out, *SHORT)


@pytest.mark.parametrize('name', FAMILIES)
def test_every_command_runs(tmp_path, text, name):
    tok = tiny_tokenizer()
    tiny_model(**FAMILIES[name], vocab_size=len(tok), hidden_size=64, intermediate_size=128).bfloat16().save_pretrained(tmp_path/'model')
    tok.save_pretrained(tmp_path/'model')
    written, judged = every_command(tmp_path/'model', tmp_path/'packed', text, 'auto_round', 'W4A16G32,W8A16G32')
    assert written['ok'] and not written['wrong_buffers'] and written['kl_far'] < 1e-3
    assert 0 < judged['kl'] < 1


def stated(model):
    "What a GGUF file says of a model's positions beside their base: settings and tensors."
    rope = model.config.rope_parameters
    if rope.get('rope_type') == 'llama3':
        plain = rope['rope_theta'] ** (-torch.arange(0, 16, 2) / 16)
        return {'rope.freq_base': rope['rope_theta']}, {'rope_freqs.weight': (plain / model.model.rotary_emb.inv_freq).numpy()}
    if 'full_attention' in rope: return {'rope.freq_base': 1e6}, {}
    return {'rope.dimension_count': int(16 * rope.get('partial_rotary_factor', 1))}, {}


@pytest.mark.parametrize('name', FAMILIES)
def test_every_command_runs_on_a_gguf(tmp_path, text, name):
    model = tiny_model(**FAMILIES[name], vocab_size=261, hidden_size=64, intermediate_size=128)
    write_gguf(tmp_path/'model.gguf', model, *stated(model))
    ids = torch.randint(4, 256, (2, 48), generator=torch.Generator().manual_seed(0))
    with torch.no_grad(): assert (load(tmp_path/'model.gguf')[0](ids).logits - model(ids).logits).abs().max() < 1e-3
    written, judged = every_command(tmp_path/'model.gguf', tmp_path/'packed', text, 'auto_round', 'W4A16G32,W8A16G32')
    assert written['ok'] and not written['wrong_buffers'] and 0 < judged['kl'] < 1


@pytest.mark.parametrize('name', ['gemma3', 'llama3.2'])
def test_a_gguf_that_is_written_is_read_as_it_was_meant(tmp_path, demo, name):
    "By llama.cpp's converter, which knows the demo's tokenizer and not every family with it."
    from mpq_nb.calibration import sample
    from mpq_nb.quantization import export, verify
    model = tiny_model(**FAMILIES[name], vocab_size=len(demo[1]), hidden_size=64, intermediate_size=128)
    r = Recipe({l.name: 'GGUF:Q8_0' for l in layers(model)}, {l.name: l.shape for l in layers(model)})
    v = verify(export(model, demo[1], r, tmp_path/'gguf', 'gguf'), model, r, sample(model, 2, 32), fresh=False)
    assert v['ok'] and not v['wrong_buffers'] and v['kl_far'] < 1e-5
