"Odd architectures: what our pass finds, block by block, is what one ordinary backward pass finds."
import pytest, torch, transformers
from gradients import agreement, streamed_copy

from mpq_nb.base import walk
from mpq_nb.base.layers import layers, SMALL
from mpq_nb.base.simulation import simulated
from mpq_nb.evaluation import evaluate, evaluate_each, reference
from mpq_nb.allocation import allocate
from mpq_nb.sensitivity import score

WIDE = dict(SMALL, head_dim=None)     # of architectures that have no such setting
MAMBA = dict(mamba_n_heads=4, mamba_d_head=32, mamba_d_state=8, mamba_n_groups=1, mamba_expand=2)
PAIRS = ['sliding_attention', 'full_attention'] * 3
GEMMA = dict(num_hidden_layers=6, layer_types=PAIRS, num_kv_shared_layers=2, sliding_window=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=256)
FAMILIES = {   # configuration, settings, how many layers stay at 16 bits
    'shared keys and values': ('Gemma4TextConfig', SMALL | GEMMA | dict(global_head_dim=16, enable_moe_block=False), 0),
    'streams, a layer called twice': ('Gemma3nTextConfig', SMALL | GEMMA | dict(laurel_rank=8, intermediate_size=[160]*6, activation_sparsity_pattern=[0.]*6), 0),
    'a tuple of two': ('BambaConfig', WIDE | MAMBA | dict(num_hidden_layers=2, attn_layer_indices=[1]), 0),
    'a weight of several blocks': ('Zamba2Config', WIDE | dict(num_hidden_layers=2, layers_block_type=['hybrid']*2, hybrid_layer_ids=[0, 1], mamba_d_state=8, mamba_ngroups=1, n_mamba_heads=4, mamba_headdim=32, attention_head_dim=32, num_mem_blocks=1, use_shared_attention_adapter=True, adapter_rank=8, num_key_value_heads=4, tie_word_embeddings=True), 44),
    'all tokens in a row': ('OPTConfig', dict(hidden_size=64, ffn_dim=96, num_hidden_layers=2, num_attention_heads=4, vocab_size=256, word_embed_proj_dim=64, max_position_embeddings=64, init_std=.2), 0),
    'a class of its own, changed in place': ('FalconConfig', dict(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, vocab_size=256, initializer_range=.2), 0),
}


def made(name):
    "A tiny random model."
    config, settings, left = FAMILIES[name]
    torch.manual_seed(0)
    config = getattr(transformers, config)(**{k: v for k, v in settings.items() if v is not None})
    return transformers.AutoModelForCausalLM.from_config(config).eval().requires_grad_(False), left


@pytest.fixture(scope='module')
def ids(): return torch.randint(4, 250, (3, 40), generator=torch.Generator().manual_seed(5))

@pytest.fixture(scope='module')
def sharing(): return made('shared keys and values')[0]


@pytest.mark.parametrize('name', FAMILIES)
def test_gradients_are_those_of_the_whole_model(name, ids, tmp_path):
    model, left = made(name)
    whole = agreement(model, ids)
    assert whole.worst[1] < 1e-4 and not whole.unmeasured and len(whole.left) == left
    assert agreement(model, ids, streamed_copy(model, tmp_path)).errors == whole.errors


def test_shared_keys_and_values_measured_one_layer_at_a_time(sharing, ids):
    "To the last bit: earlier blocks are not run again, and what they left for later ones is there."
    found = score(sharing, ids[:1], 'W2A16G32', 'kl').loss[:, 0]
    with torch.no_grad():
        p = sharing(ids[:1]).logits.log_softmax(-1)
        for i, l in list(enumerate(layers(sharing)))[::5]:
            with simulated(sharing, {l.name: 'W2A16G32'}): q = sharing(ids[:1]).logits.log_softmax(-1)
            assert found[i] == pytest.approx((p.exp() * (p - q)).sum(-1).mean().item(), rel=1e-3)


def test_a_pass_over_shared_states_is_resumed(sharing, ids, monkeypatch, tmp_path):
    "Below the blocks whose gradients are on their way to another."
    want, path = score(sharing, ids), tmp_path/'state'
    once = walk.backward
    def stopped(block, *rest):
        if block is sharing.model.layers[0]: raise KeyboardInterrupt
        return once(block, *rest)
    monkeypatch.setattr(walk, 'backward', stopped)
    with pytest.raises(KeyboardInterrupt), walk.Checkpoint(path) as state: score(sharing, ids, state=state)
    monkeypatch.setattr(walk, 'backward', once)
    with walk.Checkpoint(path) as state: assert torch.equal(score(sharing, ids, state=state).samples, want.samples)


def test_recipes_do_not_read_each_others_states(sharing, ids):
    "Judged together as alone."
    scores = score(sharing, ids, 'W2A16G32,W8A16G32')
    recipes = {b: allocate(scores, bits=b) for b in (3, 6)}
    ref = reference(sharing, ids)
    together = evaluate_each(sharing, recipes, ids, ref)
    for b, r in recipes.items():
        with simulated(sharing, r.schemes): alone = evaluate(sharing, ids, ref)
        assert torch.equal(alone.kl, together[b].kl)
