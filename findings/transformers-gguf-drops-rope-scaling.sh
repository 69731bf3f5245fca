#!/usr/bin/env bash
# transformers 5.23.0 loads a GGUF of gguf 0.19.0 without its RoPE scaling.
#
# Expected: the scaling that the file declares, or an error or warning.
# Seen: linear and YaRN scaling in a Llama's metadata, and Llama 3's rope_freqs tensor, are dropped
#   without a word: rope_type is 'default' and the frequencies are the unscaled ones.
#   (Its reader takes rope.scaling from GPT-OSS only.)
# Perplexity, scores and a calibration on such a model are those of another model: every Llama 3.1
# and 3.2, and every Llama with a stretched context. Set rope_parameters by hand.
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile torch==2.13.0 transformers==5.23.0 gguf==0.19.0 accelerate==1.15.0
cd "$room"
HF_HUB_OFFLINE=1 "$room/venv/bin/python" - <<'PY'
import contextlib, io, gguf, numpy as np, torch
from transformers import AutoModelForCausalLM

width, heads, vocab = 64, 2, 32
rng = np.random.default_rng(0)

def write(scaling=None, freqs=False):
    "A Llama of one block."
    w = gguf.GGUFWriter('m.gguf', 'llama')
    for add, value in ((w.add_context_length, 4096), (w.add_embedding_length, width), (w.add_block_count, 1),
                       (w.add_feed_forward_length, width), (w.add_head_count, heads), (w.add_head_count_kv, heads),
                       (w.add_layer_norm_rms_eps, 1e-5), (w.add_rope_freq_base, 1e4), (w.add_vocab_size, vocab),
                       (w.add_rope_dimension_count, width // heads)): add(value)
    if scaling:
        w.add_rope_scaling_type(scaling)
        w.add_rope_scaling_factor(8.)
        w.add_rope_scaling_orig_ctx_len(512)
    matrix = lambda rows: rng.standard_normal((rows, width)).astype(np.float32)
    w.add_tensor('token_embd.weight', matrix(vocab))
    w.add_tensor('output.weight', matrix(vocab))
    for name in ('output_norm', 'blk.0.attn_norm', 'blk.0.ffn_norm'):
        w.add_tensor(f'{name}.weight', np.ones(width, np.float32))
    for name in ('attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'):
        w.add_tensor(f'blk.0.{name}.weight', matrix(width))
    if freqs: w.add_tensor('rope_freqs.weight', np.linspace(1, 8, width // heads // 2).astype(np.float32))
    w.write_header_to_file()
    w.write_kv_data_to_file()
    w.write_tensors_to_file()
    w.close()

def load():
    "RoPE parameters, frequencies and whatever was printed about them."
    said = io.StringIO()
    with contextlib.redirect_stderr(said), contextlib.redirect_stdout(said):
        model = AutoModelForCausalLM.from_pretrained('.', gguf_file='m.gguf')
    return model.config.rope_parameters, model.model.rotary_emb.inv_freq, said.getvalue()

write()
_, plain, _ = load()
for case in (dict(scaling=gguf.RopeScalingType.LINEAR), dict(scaling=gguf.RopeScalingType.YARN), dict(freqs=True)):
    write(**case)
    parameters, frequencies, said = load()
    print(case, parameters, 'same frequencies:', torch.equal(frequencies, plain))
    assert parameters['rope_type'] == 'default' and torch.equal(frequencies, plain)
    assert 'rope' not in said.lower() and 'scaling' not in said.lower()
PY
