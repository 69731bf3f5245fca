"Mixtures of experts from scores to a checkpoint."
import warnings

import pytest
import torch
from decoders import by_autograd
from transformers import AutoModelForCausalLM, GptOssConfig, Qwen3MoeConfig

from mpq_nb.allocation import allocate
from mpq_nb.base.experts import closed_state, expert_part
from mpq_nb.base.files import InputError
from mpq_nb.base.layers import layers
from mpq_nb.base.loading import load
from mpq_nb.base.walk import Pass
from mpq_nb.core.fisher import fisher
from mpq_nb.evaluation import evaluate, reference
from mpq_nb.quantization import export, quantized, save_fake
from mpq_nb.sensitivity import score
from mpq_nb.ship.verification import verify

SMALL = dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=2, head_dim=32,
             initializer_range=.2, num_experts_per_tok=2, bos_token_id=1, eos_token_id=2, pad_token_id=0)
QWEN = dict(norm_topk_prob=True, num_experts=8, moe_intermediate_size=32, intermediate_size=64)
FAMILIES = dict(qwen3_moe=(Qwen3MoeConfig, QWEN),
                gpt_oss=(GptOssConfig, dict(num_local_experts=4, intermediate_size=32, sliding_window=16)))
INTS = 'W4A16G32', 'W8A16G32'

def mixture(family='qwen3_moe', vocab=96):
    config, special = FAMILIES[family]
    torch.manual_seed(0)
    return AutoModelForCausalLM.from_config(config(**SMALL, **special, vocab_size=vocab)).eval()

IDS = torch.randint(3, 96, (3, 64), generator=torch.Generator().manual_seed(1))

@pytest.mark.parametrize('family', FAMILIES)
def test_scores_are_those_of_autograd(family):
    model, schemes = mixture(family), ('W4A16G32', 'MXFP4')
    got = fisher(Pass(model, IDS, layers(model), schemes, batch=2))['samples']
    torch.testing.assert_close(got, by_autograd(model, IDS, layers(model), schemes), rtol=1e-4, atol=1e-9)

def test_an_expert_without_tokens_is_not_free():
    model = mixture()
    few = IDS[:1, :8]                      # 16 pairs for 8 experts in each block
    with pytest.warns(UserWarning, match='saw fewer than 32 tokens'): s = score(model, few, INTS)
    unseen = [i for i, n in enumerate(s.seen.tolist()) if n == 0]
    assert unseen and (s.loss[unseen] > 0).all()
    assert s.seen[0] == 8 and s.doubt[unseen].min() > 0 and s.doubt[0].max() == 0

@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "A mixture as others store it, with the demo model's tokenizer."
    out, tok = tmp_path_factory.mktemp('mixture')/'model', load('demo')[1]
    model = mixture(vocab=len(tok))
    model.bfloat16().save_pretrained(out)        # its router is not rounded again by what reads a checkpoint
    tok.save_pretrained(out)
    return out

def quiet_score(model, ids, **kw):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return score(model, ids, INTS, **kw)

def test_an_interrupted_scoring_goes_on(tmp_path, monkeypatch):
    "Every step is kept on the disk, and a run that takes them up again ends with the same numbers."
    from mpq_nb.base.resume import Checkpoint
    monkeypatch.setenv('MPQ_CHECKPOINT_SECONDS', '0')
    model = mixture()
    with Checkpoint(tmp_path/'kept') as state: first = quiet_score(model, IDS, state=state)
    with Checkpoint(tmp_path/'kept') as state: again = quiet_score(model, IDS, state=state)
    assert torch.equal(first.samples, again.samples) and torch.equal(first.seen, again.seen)

def test_streamed_stored_and_packed(folder, tmp_path):
    model, tok = load(folder, device='cpu')
    scores = quiet_score(model, IDS)
    streamed, _ = load(folder, device='cpu', stream=True)
    again = quiet_score(streamed, IDS)
    assert torch.equal(scores.samples, again.samples)
    recipe, ref = allocate(scores, bits=5), reference(model, IDS, cache=False)
    with quantized(model, recipe): kl = evaluate(model, IDS, ref).kl.tolist()
    with quantized(streamed, recipe): assert evaluate(streamed, IDS, ref).kl.tolist() == kl
    save_fake(model, tok, recipe, tmp_path/'fake')
    assert evaluate(load(tmp_path/'fake', device='cpu')[0], IDS, ref).kl.tolist() == kl
    with pytest.raises(InputError, match='reads all experts'): export(model, tok, recipe, tmp_path/'no', format='llm_compressor')
    one = allocate(scores, bits=5, fixed={'*.experts.*': 'W4A16G32'})
    export(model, tok, one, tmp_path/'one', format='llm_compressor')
    assert verify(tmp_path/'one', model, one, IDS, fresh=False)['ok']
    export(model, tok, recipe, tmp_path/'packed', format='auto_round')
    assert verify(tmp_path/'packed', model, recipe, IDS, fresh=False)['ok']

@pytest.mark.parametrize('key, value', [('num_local_experts', 4), ('moe_intermediate_size', 64)])
def test_a_config_that_contradicts_the_file_is_refused_while_streaming(folder, tmp_path, key, value):
    import json, shutil
    bad = shutil.copytree(folder, tmp_path/'bad')
    config = json.loads((bad/'config.json').read_text())
    (bad/'config.json').write_text(json.dumps(config | {key: value}))
    with pytest.raises(InputError, match='configuration says|cannot load|lacks'): load(bad, device='cpu', stream=True)

def test_the_state_is_transformers_own():
    model = mixture()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    assert sum(expert_part(l.name) is not None for l in layers(model)) == 2 * 8 * 3
    after = closed_state(model)
    assert after.keys() == before.keys() and all(torch.equal(after[k], v) for k, v in before.items())
