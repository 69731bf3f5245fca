"""Makes the files of this folder, by the commands that a user types.

    MPQ_DATA=FOLDER python make.py OUT

mpq_nb 0.1.0 made them, once, and they stand for what that version wrote. When a format
changes, add new files and leave these as they are.  `expected.json` holds what each
command printed with --json as it wrote its file.
"""
import io
import json
import os
import shutil
import sys
import tempfile
from contextlib import redirect_stdout
from pathlib import Path

# Of a folder with a model in it.
KEPT = ('fake_quantization.json', 'recipe.json', 'verification.json')


def byte_tokenizer():
    "Make a tokenizer of one token a byte: there is nothing to download."
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = ['<s>', '</s>', *alphabet]
    t = Tokenizer(models.BPE({c: i for i, c in enumerate(vocabulary)}, []))
    t.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    t.decoder = decoders.ByteLevel()
    special = dict(bos_token='<s>', eos_token='</s>', pad_token='</s>')
    return PreTrainedTokenizerFast(tokenizer_object=t, **special)


def scatter(p, seed):
    "Draw weights from -0.3 to 0.3 by whole numbers alone: the same on every machine."
    import torch
    i = torch.arange(p.numel(), dtype=torch.int64) + 100_003*seed
    h = (i * 2_654_435_761) % 2**32
    h = ((h ^ (h >> 15)) * 2_246_822_519) % 2**32
    return (((h ^ (h >> 13)) % 2**16).double() / 2**16 - .5).mul(.6).float().view_as(p)


def tiny(folder):
    "Write a Llama of two blocks and its tokenizer, the same on every machine."
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM
    tok = byte_tokenizer()
    config = LlamaConfig(
        hidden_size=128, intermediate_size=256, num_hidden_layers=2, vocab_size=len(tok),
        num_attention_heads=4, num_key_value_heads=2, head_dim=32, tie_word_embeddings=False,
        max_position_embeddings=2048, bos_token_id=0, eos_token_id=1, pad_token_id=1)
    model = LlamaForCausalLM(config)
    with torch.no_grad():
        for n, (_, p) in enumerate(sorted(model.named_parameters())):
            p.copy_(torch.ones_like(p) if p.ndim == 1 else scatter(p, n))
    model.save_pretrained(folder)
    tok.save_pretrained(folder)


def text(path, of):
    "Write sentences about numbers, a document a line."
    lines = [f'{n} times {of} is {n*of}, and {n*of} less {n} is {n*of - n}.'
             for n in range(2, 14)]
    path.write_text(''.join(json.dumps(dict(text=l)) + '\n' for l in lines))


SCORE = '--calibration calibration.jsonl --samples 2 --length 16'
JUDGE = '--text held_out.jsonl --samples 2 --length 16'
MX, INTS, MIXED = (f'run/{n}.safetensors' for n in ('scores', 'ints', 'mixed'))
RECIPES = {
    'bits': f'{MX} --bits 5',
    'bpw': f'{MX} --bpw 5.5',
    'gib': f'{MX} --gib 0.00032',
    'fit': f'{MX} --fit 0.52MiB --context 128 --contexts 2',
    'fixed': f'{MX} --bits 6 --fixed down_proj=MXFP8,layers.0.self_attn=MXFP4',
    'at_least': f'{MX} --bits 6 --at-least v_proj=MXFP8',
    'fused': f'{MX} --bits 5 --groups fused',
    'refined': f'{MX} --bits 5 --refine',
    'head': f'{MX} --bits 5 --by head',
    'tail': f'{MX} --bits 5 --by tail',
    'random': f'{MX} --bits 5 --by random:1',
    'uniform': f'{MX} --by uniform:MXFP4',
    'ints': f'{INTS} --bits 4.5',
    'vllm': f'{INTS} --bits 5 --schemes W4A16G32,W8A16G32 --engine vllm',
    'families': f'{MIXED} --bits 6 --engine transformers',
    'lm_head': 'run/head.safetensors --bits 5'}
MAKE = {
    MX: f'score ./tiny {SCORE}',
    INTS: f'score ./tiny --schemes W2A16G32,W4A16G32,W8A16G32 --groups fused {SCORE}',
    MIXED: 'score ./tiny --schemes MXFP4,W8A16G32,BF16 --calibration self '
           '--samples 2 --length 16 --seed 3',
    'run/mse.safetensors': f'score ./tiny --method mse {SCORE}',
    'run/head.safetensors': f'score ./tiny --head {SCORE}',
    **{f'run/recipes/{k}.json': f'allocate {v}' for k, v in RECIPES.items()},
    'run/evaluation.json': f'evaluate ./tiny --recipe run/recipes/bits.json {JUDGE}',
    'run/fake': 'quantize ./tiny run/recipes/bits.json --format fake',
    'run/packed': 'quantize ./tiny run/recipes/vllm.json',
    'run/packed.json': 'evaluate ./tiny --against run/packed --tasks piqa --data hub '
                       f'--limit 3 {JUDGE}',
    'study': 'study study.yaml --data hub'}
COMMANDS = {name: f'{c} -o {name}' for name, c in MAKE.items()}
STUDY = """# A study as 0.1.0 reads it.
title: a tiny study
models: ./tiny
recipes: [bf16, "uniform:MXFP4", head, "random:1", ours, "ours:fast"]
budgets: [5]
schemes: [mxfp4, MXFP8]
tasks: [piqa]
limit: 3
calibration: calibration.jsonl
text: held_out.jsonl
samples: 2
text_samples: 2
length: 16
"""


def run(command):
    "Run a command; returns what it prints with --json."
    from mpq_nb.cli import main
    out = io.StringIO()
    with redirect_stdout(out): status = main([*command.split(), '--json'])
    if status: sys.exit(f'mpq {command} ended with {status}')
    return json.loads(out.getvalue())


def copied(folder, out):
    "Keep the files that are no model's and no data set's."
    for p in sorted(folder.rglob('*')):
        at = p.relative_to(folder)
        model = at.parts[:2] in (('run', 'fake'), ('run', 'packed')) and at.name not in KEPT
        foreign = at.parts[0] in ('tiny', 'hub') or at.name.startswith('.')
        if p.is_dir() or model or foreign: continue
        (out/at).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(p, out/at)


def make(data):
    "Make every file in the folder that one is in; paths are relative, since files hold them."
    here = Path()
    (here/'hub').symlink_to(data)
    tiny(here/'tiny')
    text(here/'calibration.jsonl', 7)
    text(here/'held_out.jsonl', 6)
    (here/'study.yaml').write_text(STUDY)
    (here/'run/recipes').mkdir(parents=True)
    expected = {name: dict(command=f'mpq {c}', printed=run(c))
                for name, c in COMMANDS.items()}
    (here/'expected.json').write_text(json.dumps(expected, indent=1) + '\n')


def main(out, data):
    out, back = Path(out).resolve(), Path.cwd()
    with tempfile.TemporaryDirectory() as d:
        os.chdir(d)
        try: make(data)
        finally: os.chdir(back)
        copied(Path(d), out)


if __name__ == '__main__': main(sys.argv[1], os.environ['MPQ_DATA'])
