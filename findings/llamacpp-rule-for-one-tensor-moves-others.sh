#!/usr/bin/env bash
# llama.cpp v0.5.0 (in the npm package @node-llama-cpp/linux-x64 3.22.1): a type rule for one tensor
# changes the types of fifteen others.
#
# Expected: a rule for block 4's ffn_down, Q4_K in a Q4_K_M file (the type that it has anyway),
#   changes nothing, as a rule is for the tensors that it names.
# Seen: of 30 blocks, eight other ffn_down fall from Q6_K to Q4_K and seven rise. Q4_K_M
#   picks the blocks that it favours by counting tensors, and a named tensor is not counted, so that
#   all after it move by one. Rules for all ffn_down and attn_v together, or a flat type, are safe.
# (This is what llama-quantize's --tensor-type does: the rules are passed as the library's own structure.)
set -euo pipefail
room=$(mktemp -d)
trap 'rm -rf "$room"' EXIT
python3 -m venv "$room/venv"
"$room/venv/bin/pip" install -q --no-compile gguf==0.19.0 numpy==2.4.6
cd "$room"
npm install --silent --no-audit --no-fund --ignore-scripts @node-llama-cpp/linux-x64@3.22.1
"$room/venv/bin/python" - <<'PY' 2>/dev/null
import ctypes as c, pathlib
import gguf, numpy as np

class Rule(c.Structure):
    "A pattern and the type of the tensors that it matches."
    _fields_ = [('pattern', c.c_char_p), ('type', c.c_int)]

class Params(c.Structure):
    "The library's parameters of a quantization."
    _fields_ = [('threads', c.c_int32), ('ftype', c.c_int), ('output', c.c_int), ('embedding', c.c_int),
                ('flags', c.c_bool * 6), ('imatrix', c.c_void_p), ('metadata', c.c_void_p),
                ('rules', c.POINTER(Rule)), ('prune', c.c_void_p), ('rest', c.c_int32 * 2)]

folder = next(pathlib.Path('node_modules').rglob('libllama.v0.5.0.so')).parent
for name in ('libggml-base.so', 'libggml.v0.5.0.so'): c.CDLL(str(folder/name), mode=c.RTLD_GLOBAL)
llama = c.CDLL(str(folder/'libllama.v0.5.0.so'))
llama.llama_model_quantize_default_params.restype = Params
llama.llama_model_quantize.argtypes = [c.c_char_p, c.c_char_p, c.POINTER(Params)]
Q4_K_M, Q4_K = 15, 12

width, blocks = 256, 30
w = gguf.GGUFWriter('m.gguf', 'llama')
for add, value in ((w.add_context_length, 64), (w.add_embedding_length, width), (w.add_block_count, blocks),
                   (w.add_feed_forward_length, width), (w.add_head_count, 4), (w.add_head_count_kv, 4),
                   (w.add_layer_norm_rms_eps, 1e-5), (w.add_rope_dimension_count, 64), (w.add_vocab_size, 32),
                   (w.add_tokenizer_model, 'no_vocab')): add(value)
rng = np.random.default_rng(0)
def matrix(rows): return rng.standard_normal((rows, width)).astype(np.float32)
w.add_tensor('token_embd.weight', matrix(32))
w.add_tensor('output.weight', matrix(32))
w.add_tensor('output_norm.weight', np.ones(width, np.float32))
for i in range(blocks):
    for name in ('attn_norm', 'ffn_norm'): w.add_tensor(f'blk.{i}.{name}.weight', np.ones(width, np.float32))
    for name in ('attn_q', 'attn_k', 'attn_v', 'attn_output', 'ffn_gate', 'ffn_up', 'ffn_down'):
        w.add_tensor(f'blk.{i}.{name}.weight', matrix(width))
w.write_header_to_file()
w.write_kv_data_to_file()
w.write_tensors_to_file()
w.close()

def types(*patterns):
    "Every tensor's type in Q4_K_M, with rules that ask for Q4_K."
    params = llama.llama_model_quantize_default_params()
    assert (params.ftype, params.output, params.embedding) == (7, 43, 43)      # the layout is as we think
    params.ftype, params.threads = Q4_K_M, 1
    rules = (Rule * (len(patterns) + 1))(*[Rule(p, Q4_K) for p in patterns])
    if patterns: params.rules = rules
    assert llama.llama_model_quantize(b'm.gguf', b'q.gguf', c.byref(params)) == 0
    return {t.name: t.tensor_type.name for t in gguf.GGUFReader('q.gguf').tensors}

plain, ruled = types(), types(rb'blk\.4\.ffn_down')
name = 'blk.4.ffn_down.weight'
moved = [n for n in plain if plain[n] != ruled[n]]
fell = [int(n.split('.')[1]) for n in moved if ruled[n] == 'Q4_K']
rose = [int(n.split('.')[1]) for n in moved if ruled[n] == 'Q6_K']
print('the named tensor:', plain[name], ruled[name], '\nfrom Q6_K to Q4_K in blocks', fell, '\nfrom Q4_K to Q6_K in blocks', rose)
assert plain[name] == ruled[name] == 'Q4_K'
assert len(fell) == 8 and len(rose) == 7 and all('ffn_down' in n for n in moved)
PY
