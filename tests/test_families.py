"No family whose first command was never run: each goes through every command, on a tiny checkpoint made here; from a folder, and as the GGUF file that the folder is written to."
import contextlib, io, json

import pytest
from conftest import tiny_tokenizer

from mpq_nb.cli import main
from mpq_nb.models import tiny_model

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


@pytest.mark.parametrize('name', [n for n in FAMILIES if n != 'phi3'])
def test_every_command_runs_on_its_gguf(tmp_path, text, demo, name):
    "Llama.cpp's converter knows the demo's tokenizer; the file that it writes is loaded, quantized again, and is the model that the folder is."
    tok = demo[1]
    tiny_model(**FAMILIES[name], vocab_size=len(tok), hidden_size=64, intermediate_size=128).bfloat16().save_pretrained(tmp_path/'model')
    tok.save_pretrained(tmp_path/'model')
    mpq('score', tmp_path/'model', '--schemes', 'GGUF:Q8_0,BF16', '--calibration', text, *SHORT, '-o', tmp_path/'s.safetensors')
    mpq('allocate', tmp_path/'s.safetensors', '--bits', 8, '-o', tmp_path/'r.json')
    assert mpq('quantize', tmp_path/'model', tmp_path/'r.json', '--format', 'gguf', '-o', tmp_path/'gguf')['verification']['ok']
    written, judged = every_command(tmp_path/'gguf', tmp_path/'again', text, 'auto_round', 'W4A16G32,W8A16G32')
    assert written['ok'] and not written['wrong_buffers'] and 0 < judged['kl'] < 1
