"""Every architecture in a table, each as a tiny random model, from scores to a checkpoint that is read back.

    python tests/decoders.py            # all of them, for the page nbs/benchmarks/decoders.ipynb
    python tests/decoders.py llama      # some
"""
import json, sys, tempfile, warnings
from pathlib import Path

import torch
import transformers
from conftest import tiny_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from mpq_nb.allocation import allocate
from mpq_nb.base.experts import expert_part
from mpq_nb.base.files import atomic, InputError
from mpq_nb.base.quantizers import Simulation
from mpq_nb.core.fisher import fisher_gradient, token_effects, uniform_draws, weight_errors
from mpq_nb.evaluation import evaluate, reference
from mpq_nb.models import load
from mpq_nb.quantization import quantized, save_fake
from mpq_nb.sensitivity import score

SCHEMES = 'W4A16G32', 'MXFP4'
SIZES = {   # what architectures call their sizes; each is set where the architecture knows it
    64: ('hidden_size', 'n_embd', 'd_model', 'embed_dim', 'word_embed_proj_dim'),
    128: ('intermediate_size', 'n_inner', 'ffn_dim', 'shared_intermediate_size', 'moe_shared_expert_intermediate_size',
          'intermediate_size_mlp', 'shared_expert_intermediate_size', 'dense_intermediate_size', 'ffn_hidden_size'),
    32: ('moe_intermediate_size', 'expert_ffn_hidden_size'),
    4: ('num_attention_heads', 'n_head', 'n_heads', 'num_heads'),
    2: ('num_key_value_heads', 'num_kv_heads', 'num_experts_per_tok', 'num_experts_per_token', 'moe_k', 'moe_topk', 'top_k_experts'),
    16: ('head_dim', 'qk_rope_head_dim', 'qk_nope_head_dim', 'v_head_dim', 'sliding_window', 'rotary_dim',
         'linear_key_head_dim', 'linear_value_head_dim', 'mamba_d_state', 'mamba_d_head', 'state_size', 'ssm_state_size', 'mamba_head_dim',
         'hidden_size_per_layer_input', 'global_head_dim'),
    8: ('num_experts', 'n_routed_experts', 'num_local_experts', 'moe_num_experts'),
    512: ('max_position_embeddings', 'n_positions', 'max_seq_len')}
GENERAL = dict(initializer_range=.2, bos_token_id=1, eos_token_id=2, pad_token_id=0, tie_word_embeddings=False,
               q_lora_rank=32, kv_lora_rank=32, n_group=1, topk_group=1, n_shared_experts=1, mamba_n_heads=8, mamba_n_groups=1,
               linear_num_key_heads=2, linear_num_value_heads=4, mamba_chunk_size=32, chunk_size=32,
               mamba_expand=2, expand=2, first_k_dense_replace=1, n_groups=1)
DENSE = ('llama qwen2 qwen3 gemma gemma2 gemma3_text gemma4_text phi phi3 mistral ministral olmo olmo2 olmo3 cohere cohere2 granite glm glm4 '
         'smollm3 stablelm starcoder2 exaone4 nemotron gpt_neox gptj gpt2 opt falcon bloom mpt helium seed_oss apertus hunyuan_v1_dense '
         'ernie4_5 arcee diffllama').split()
MIXTURES = ('mixtral qwen2_moe qwen3_moe olmoe gpt_oss deepseek_v2 deepseek_v3 granitemoe granitemoeshared phimoe llama4_text glm4_moe '
            'minimax dots1 ernie4_5_moe hunyuan_v1_moe flex_olmo jetmoe dbrx').split()
HYBRIDS = ('qwen3_next qwen3_5_text qwen3_5_moe_text granitemoehybrid bamba falcon_h1 lfm2 lfm2_moe jamba mamba mamba2 falcon_mamba nemotron_h '
           'zamba2 recurrent_gemma kimi_linear olmo_hybrid').split()
KINDS = dict(dense=DENSE, mixture=MIXTURES, hybrid=HYBRIDS)
SPECIAL = dict(
    qwen3_next=dict(num_hidden_layers=4), qwen3_5_text=dict(num_hidden_layers=4), qwen3_5_moe_text=dict(num_hidden_layers=4),
    jamba=dict(attn_layer_period=2, attn_layer_offset=1, expert_layer_period=2, expert_layer_offset=1, use_mamba_kernels=False),
    bamba=dict(attn_layer_indices=[1]), granitemoehybrid=dict(layer_types=['mamba', 'attention'], shared_intermediate_size=128),
    gemma2=dict(query_pre_attn_scalar=16), gemma3_text=dict(query_pre_attn_scalar=16),
    gemma4_text=dict(num_hidden_layers=4, vocab_size_per_layer_input=261, head_dim=..., global_head_dim=..., layer_types=['sliding_attention', 'full_attention']*2, num_kv_shared_layers=2, enable_moe_block=False),
    lfm2=dict(layer_types=['conv', 'full_attention'], block_auto_adjust_ff_dim=False), lfm2_moe=dict(layer_types=['conv', 'full_attention'], num_dense_layers=1),
    llama4_text=dict(moe_layers=[1]), minimax=dict(layer_types=['linear_attention', 'full_attention']),
    nemotron_h=dict(hybrid_override_pattern='M*E-', num_hidden_layers=4), zamba2=dict(num_hidden_layers=4, layer_types=['mamba', 'hybrid']*2, hybrid_layer_ids=[1, 3], num_mem_blocks=1),
    deepseek_v2=dict(num_key_value_heads=4), deepseek_v3=dict(num_key_value_heads=4), falcon=dict(head_dim=..., num_kv_heads=4),
    falcon_h1=dict(mamba_d_ssm=128), mamba2=dict(num_heads=8, head_dim=16),
    recurrent_gemma=dict(num_hidden_layers=3, lru_width=64), dbrx=dict(attn_config=dict(kv_n_heads=2, rope_theta=1e4), ffn_config=dict(ffn_hidden_size=64, moe_num_experts=4, moe_top_k=2)), mpt=dict(expansion_ratio=2))

def small_config(kind, vocab):
    "The configuration of an architecture, with small sizes wherever it has a size of a known name."
    default = AutoConfig.for_model(kind)
    wanted = GENERAL | {name: size for size, names in SIZES.items() for name in names}
    wanted |= dict(vocab_size=vocab, num_hidden_layers=2, n_layer=2, n_layers=2, num_layers=2)
    names = {*default.attribute_map, *default.to_dict()}
    known = {k: v for k, v in wanted.items() if k in names} | SPECIAL.get(kind, {})
    return AutoConfig.for_model(kind, **{k: v for k, v in known.items() if v is not ...})     # ... leaves one as it is

def tiny(kind, vocab):
    "A random model of an architecture."
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(small_config(kind, vocab)).eval().requires_grad_(False)
    if model.num_parameters() > 5e6: raise ValueError(f'{model.num_parameters()} weights: a size has another name')
    return model

def by_autograd(model, ids, ls, schemes=SCHEMES):
    "The scores of each layer from one ordinary backward pass a sequence, [N, L, Q]."
    sim, draws = Simulation(), uniform_draws(ids)
    total = torch.zeros(len(ids), len(ls), len(schemes))
    for n, row in enumerate(ids):
        calls = {}
        def note(name):
            def hook(m, args, out):
                if not out.requires_grad: return
                out.retain_grad()
                calls.setdefault(name, []).append((args[0].detach(), out, getattr(m, 'places', None)))
                return out.clone()          # some models change it in place
            return hook
        hooks = [model.get_submodule(l.name).register_forward_hook(note(l.name)) for l in ls]
        start = model.get_input_embeddings().register_forward_hook(lambda m, args, out: out.requires_grad_())
        with torch.enable_grad(): logits = model(row[None], use_cache=False).logits
        logits.backward(fisher_gradient(logits.detach(), draws[n:n+1]))
        for h in (*hooks, start): h.remove()
        for i, l in enumerate(ls):
            w = model.get_submodule(l.name).weight.detach()
            errors = weight_errors(w, schemes, sim)
            for x, out, places in calls.get(l.name, []):
                if out.grad is None: continue
                x, g = x.detach(), out.grad
                if places is None: x, g = x.reshape(1, len(row), -1), g.reshape(1, len(row), -1)
                h, weight = g @ w, token_effects(x, g, errors)
                inputs = torch.stack([((sim.inputs(x, s) - x) * h).sum(-1) if sim.rounds_inputs(s) else torch.zeros(x.shape[:-1]) for s in schemes], -1)
                if places is not None: weight, inputs = places.spread(weight)[None], places.spread(inputs)[None]
                segments = torch.stack([s.sum(1) for s in weight.split(32, 1)], 1)
                total[n, i] += ((segments**2).sum((0, 1)) + (inputs**2).sum((0, 1))) / 2 / len(row)
    return total

def largest_difference(got, want):
    "Of two tables of scores, relative to the largest score of the same format."
    return ((got - want).abs().amax((0, 1)) / want.amax((0, 1)).clamp(min=1e-30)).max().item()

def try_out(kind, folder):
    "Take an architecture from scores to a checkpoint that is read back; what came out."
    tok = tiny_tokenizer()
    model = tiny(kind, len(tok))
    ids = torch.randint(3, len(tok), (2, 64), generator=torch.Generator().manual_seed(1))
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        scores = score(model, ids, SCHEMES, rescale=False, correct_experts=False)
    names = {l.name for l in scores.layers}
    want = by_autograd(model, ids, list(scores.layers))
    got = scores.samples
    if scores.seen is not None:             # where all was seen, nothing leans on a mean
        enough = scores.seen >= 32
        got, want = got[:, enough], want[:, enough]
    row = dict(layers=len(names), experts=sum(expert_part(n) is not None for n in names), error=largest_difference(got, want))
    recipe, ref = allocate(scores, bits=5), reference(model, ids, cache=False)
    with quantized(model, recipe): row['kl'] = evaluate(model, ids, ref).kl.mean().item()
    save_fake(model, tok, recipe, Path(folder)/'fake')
    again, _ = load(Path(folder)/'fake', 'float32', 'cpu')
    row['again'] = evaluate(again, ids, ref).kl.mean().item()
    return row

def result(kind):
    "A row of the table."
    try:
        with tempfile.TemporaryDirectory() as folder: row = try_out(kind, folder)
    except Exception as e: return dict(answer='no', why=f'{type(e).__name__}: {str(e).splitlines()[0][:150] if str(e) else ""}', refused=isinstance(e, InputError))
    good = row['error'] < 1e-4 and abs(row['kl'] - row['again']) < 1e-5 + .01*row['kl']
    return dict(answer='yes' if good else 'wrong') | row

OUT = Path(__file__).parent.parent/'nbs'/'benchmarks'/'decoders.json'   # what the page of the docs shows

def main(wanted):
    "Try architectures out; keep what came of all of them."
    transformers.logging.set_verbosity_error()
    rows = []
    for group, kinds in KINDS.items():
        for kind in kinds:
            if wanted and kind not in wanted: continue
            rows.append(dict(kind=group, architecture=kind) | result(kind))
            print(rows[-1], flush=True)
    if wanted: return
    with atomic(OUT) as tmp: tmp.write_text(json.dumps(dict(transformers=transformers.__version__, rows=rows), indent=1))

if __name__ == '__main__': main(sys.argv[1:])
