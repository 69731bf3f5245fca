"""A language model inside another one: its decoder is quantized, the rest stays as it is, and the whole model loads. Every checkpoint is tiny and random, and made here.

| promise | |
|---|---|
| the decoder's blocks are found | also where an encoder has as many |
| its layers are scored as in one backward pass | and streamed alike |
| the encoder counts, and is in what we write | with the files of its processor |
| a packed folder loads by every class of transformers that knows the model | and answers to an image as the simulated model |
| names of layers | those of the model in memory, whatever its files call them |
"""
import os

import pytest
import torch
from conftest import tiny_tokenizer

from mpq_nb.allocation import Recipe, allocate
from mpq_nb.core.fisher import effect_loss, fisher, fisher_gradient, uniform_draws, weight_effect
from mpq_nb.models import blocks, layers, load, rest_bytes
from mpq_nb.quantization import export, quantized, save_fake, verify
from mpq_nb.sensitivity import Pass, score

TEXT = dict(hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2, head_dim=16, vocab_size=320,
            max_position_embeddings=512, initializer_range=.2, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False)
IMAGES = dict(hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2, image_size=28, patch_size=14)
BY_DEPTH = dict(depth=2, hidden_size=32, intermediate_size=64, num_heads=2, out_hidden_size=64, patch_size=14)
SECTIONS = dict(rope_parameters=dict(rope_type='default', rope_theta=1e6, mrope_section=[2, 3, 3]))
HYBRID = dict(num_hidden_layers=4, layer_types=['linear_attention']*3 + ['full_attention'], linear_num_key_heads=2, linear_num_value_heads=4,
              linear_key_head_dim=16, linear_value_head_dim=16)
WIDE = dict(layer_types=['sliding_attention', 'full_attention'], num_kv_shared_layers=0, sliding_window=16, global_head_dim=16,
            vocab_size_per_layer_input=320, hidden_size_per_layer_input=16, enable_moe_block=False)

# {name: (class of the configuration, text, encoder, more)}
KINDS = {
    'gemma3': ('Gemma3Config', dict(sliding_window=16, tie_word_embeddings=True), IMAGES, dict(mm_tokens_per_image=4, image_token_index=300, boi_token_index=301, eoi_token_index=302)),
    'gemma4': ('Gemma4Config', WIDE | dict(tie_word_embeddings=True), IMAGES | dict(head_dim=16, num_key_value_heads=2), dict(audio_config=None)),
    'qwen2_5_vl': ('Qwen2_5_VLConfig', SECTIONS, BY_DEPTH | dict(fullatt_block_indexes=[1]), {}),
    'qwen3_vl': ('Qwen3VLConfig', SECTIONS, BY_DEPTH | dict(deepstack_visual_indexes=[0, 1], num_position_embeddings=16), {}),
    'qwen3_5': ('Qwen3_5Config', HYBRID | dict(rope_parameters=SECTIONS['rope_parameters'] | dict(partial_rotary_factor=1.)), BY_DEPTH | dict(num_position_embeddings=16), {}),
    'llava': ('LlavaConfig', dict(model_type='llama'), IMAGES | dict(model_type='clip_vision_model', projection_dim=32), dict(image_token_index=300, image_seq_length=4)),
    'mistral3': ('Mistral3Config', dict(model_type='mistral', sliding_window=None), IMAGES | dict(model_type='pixtral', head_dim=16), dict(image_token_index=300, spatial_merge_size=1)),
    'internvl': ('InternVLConfig', dict(model_type='qwen2'), IMAGES | dict(image_size=[28, 28], patch_size=[14, 14]), {}),
    'qwen2_audio': ('Qwen2AudioConfig', dict(model_type='qwen2'), dict(d_model=32, encoder_layers=2, encoder_attention_heads=2, encoder_ffn_dim=64, num_mel_bins=16, max_source_positions=50), {}),
}
IDS = torch.randint(4, 256, (2, 32), generator=torch.Generator().manual_seed(0))
ALONG = 'preprocessor_config.json', 'processor_config.json'
pytestmark = pytest.mark.filterwarnings('ignore:.*stay as they are')


def checkpoint(folder, kind):
    "Save a random model whose decoder has an encoder next to it."
    import transformers
    name, text, encoder, more = KINDS[kind]
    senses = 'audio_config' if kind == 'qwen2_audio' else 'vision_config'
    torch.manual_seed(0)
    config = getattr(transformers, name)(text_config=TEXT | text, **{senses: encoder}, **more)
    model = transformers.AutoModelForMultimodalLM.from_config(config).bfloat16().eval()
    for p in model.parameters():
        if p.ndim > 1: p.data.normal_(0, .1)
    model.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    for file in ALONG: (folder/file).write_text('{"of": "images"}')
    return folder


def cycle(model, *schemes):
    "A recipe that takes schemes in turn, and leaves what is too small in 16 bits."
    ls = layers(model)
    chosen = {l.name: schemes[i % len(schemes)] if min(l.shape) >= 32 else 'BF16' for i, l in enumerate(ls)}
    return Recipe(chosen, {l.name: l.shape for l in ls})


def sees(model):
    "Logits for an image of noise and a few words."
    pixels = torch.randn(1, 3, 28, 28, generator=torch.Generator().manual_seed(1)).to(model.dtype)
    ids = torch.tensor([[1, 301, 300, 300, 300, 300, 302, 70, 71, 72]])
    with torch.no_grad(): return model(input_ids=ids, pixel_values=pixels).logits.float()


def test_a_model_that_sees_goes_all_the_way(tmp_path):
    "Scored, streamed alike; a simulated folder that predicts what the simulated model does, with an image and without; a packed one."
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText
    m = checkpoint(tmp_path/'m', 'gemma3')
    with pytest.warns(UserWarning, match=r'model\.vision_tower, model\.multi_modal_projector .* stay as they are'): model, tok = load(m)
    assert blocks(model)[0] == 'model.language_model.layers' and len(layers(model)) == 14
    inside = sum(l.numel for l in layers(model))
    assert rest_bytes(model) == 2 * (model.num_parameters() - inside)
    s = score(model, IDS, ('W4A16G32', 'W8A16G32'))
    assert torch.equal(score(load(m, stream=True)[0], IDS, ('W4A16G32', 'W8A16G32')).loss, s.loss)
    r = allocate(s, bits=5)
    with quantized(model, r): expected, shown = model(IDS).logits, sees(model)
    fake = save_fake(model, tok, r, tmp_path/'fake')
    packed = export(model, tok, r, tmp_path/'packed')
    assert verify(packed, model, r, IDS, fresh=False)['ok']
    for folder in (fake, packed):
        for file in ALONG: assert (folder/file).read_text() == '{"of": "images"}'
    for kind in (AutoModelForImageTextToText, AutoModelForCausalLM):
        again = kind.from_pretrained(fake).eval()
        assert torch.equal(again(IDS).logits, expected) and torch.equal(sees(again), shown)
    again = AutoModelForImageTextToText.from_pretrained(packed).eval()
    assert (sees(again) - shown).abs().max() < .05 * shown.std()


def test_what_holds_a_language_model_alone_is_refused_before_the_work(tmp_path, capsys):
    from mpq_nb.cli import main
    from mpq_nb.schemes import InputError
    model, tok = load(checkpoint(tmp_path/'m', 'qwen2_5_vl'))
    for format, names in dict(auto_gptq=['W4A16G32'], auto_awq=['W4A16G32'], gguf=['GGUF:Q4_0']).items():
        with pytest.raises(InputError, match=r'has model\.visual next to it; write it as auto_round'):
            export(model, tok, cycle(model, *names), tmp_path/'out', format)
    from transformers import CLIPConfig
    CLIPConfig().save_pretrained(tmp_path/'clip')
    tok.save_pretrained(tmp_path/'clip')
    assert main(['score', str(tmp_path/'clip'), '-o', str(tmp_path/'s.safetensors')]) == 2
    assert 'is of type clip, which has no text decoder' in capsys.readouterr().err


FORMATS = {'auto_round': ('W4A16G32', 'W8A16G32', 'BF16'), 'llm_compressor': ('MXFP4', 'MXFP8', 'BF16'), 'llm_compressor, one scheme': ('W4A16G32',)}


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('KILLS'), reason='takes minutes: make long')
@pytest.mark.parametrize('kind', KINDS)
def test_scores_of_every_kind_are_those_of_one_backward_pass(tmp_path, kind):
    "The pass over the decoder's blocks gives the numbers of plain autograd through the whole model, at every layer."
    model, seen = load(checkpoint(tmp_path/'m', kind), 'float32')[0], {}
    ls = layers(model)
    p = Pass(model, IDS, ls, ('W4A16G32', 'W8A16G32'))
    samples = fisher(p)['samples'].mean(0)
    for l in ls: model.get_submodule(l.name).register_forward_hook(lambda m, args, y: seen.update({m: (args[0].detach(), y)}))
    at = [model.get_submodule(l.name) for l in ls]
    model.get_input_embeddings().weight.requires_grad_()
    logits = model(IDS, use_cache=False).logits
    gradients = torch.autograd.grad(logits, [seen[m][1] for m in at], fisher_gradient(logits.detach(), uniform_draws(IDS)))
    for m, g, row in zip(at, gradients, samples):
        x, w = seen[m][0], m.weight.detach()
        for s, got in zip(p.schemes, row):
            want = effect_loss(weight_effect(x, g, p.sim.weight(w, s) - w), torch.zeros(IDS.shape))
            assert got.item() == pytest.approx(want.item(), rel=1e-4)


@pytest.mark.slow
@pytest.mark.skipif(not os.environ.get('KILLS'), reason='takes minutes: make long')
@pytest.mark.parametrize('kind', KINDS)
def test_packed_folders_of_every_kind_load_as_a_whole(tmp_path, kind):
    "By every class of transformers that knows the model; each predicts the same."
    from transformers import AutoModelForCausalLM, AutoModelForImageTextToText, AutoModelForMultimodalLM
    model, tok = load(checkpoint(tmp_path/'m', kind))
    for format, schemes in FORMATS.items():
        r = cycle(model, *schemes)
        out = export(model, tok, r, tmp_path/format, format.split(',')[0])
        v = verify(out, model, r, IDS, fresh=False)
        assert v['ok'] and v['layers_as_recipe'] == len(r.schemes), (format, v)
        known = [c for c in (AutoModelForMultimodalLM, AutoModelForImageTextToText, AutoModelForCausalLM) if type(model.config) in c._model_mapping]
        found = [c.from_pretrained(out, output_loading_info=True) for c in known]
        for again, info in found:
            assert not info['missing_keys'] and not info['unexpected_keys'], (format, type(again))
            with torch.no_grad(): assert torch.equal(again(IDS).logits, found[0][0](IDS).logits), (format, type(again))


@pytest.fixture
def hub(tmp_path, monkeypatch):
    "A hub that serves the folder `hub` as the model own/er."
    import http.server, threading
    folder, commit = tmp_path/'hub', 'a'*40
    class Hub(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self): self.answer()
        def do_GET(self): self.wfile.write(self.answer())
        def log_message(self, *args): pass
        def answer(self):
            _, found, name = self.path.partition('/own/er/resolve/')
            file = folder/name.partition('/')[2]
            there = bool(found) and file.is_file()
            content = file.read_bytes() if there else b''
            self.send_response(200 if there else 404)
            headers = {'ETag': f'"{name}"', 'X-Repo-Commit': commit} if there else {'X-Error-Code': 'EntryNotFound'}
            for k, v in (headers | {'Content-Length': str(len(content))}).items(): self.send_header(k, v)
            self.end_headers()
            return content
    with http.server.ThreadingHTTPServer(('127.0.0.1', 0), Hub) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        at = f'http://127.0.0.1:{server.server_port}'
        for name, value in dict(ENDPOINT=at, HUGGINGFACE_CO_URL_TEMPLATE=at + '/{repo_id}/resolve/{revision}/{filename}', HF_HUB_OFFLINE=False, HF_HUB_CACHE=str(tmp_path/'cache')).items():
            monkeypatch.setattr(f'huggingface_hub.constants.{name}', value)
        yield folder
        server.shutdown()


def test_the_files_of_a_processor_are_fetched_from_the_hub(tmp_path, hub):
    model, tok = load(checkpoint(hub, 'gemma3'))
    model, tok = load('own/er')
    out = save_fake(model, tok, cycle(model, 'W8A16G32'), tmp_path/'fake')
    for file in ALONG: assert (out/file).read_text() == '{"of": "images"}'
