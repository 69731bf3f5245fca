"The recipes and the tiny models' shapes, without anything that takes time to import."
from mpq_nb.models import groups

# The demo model is 576 wide, which neither 128 nor 256 divides; the tiny ones are 128 wide.
TINY = dict(llama=dict(num_attention_heads=4, num_key_value_heads=2, head_dim=32),
            qwen3=dict(num_attention_heads=2, num_key_value_heads=1, head_dim=128))


def by_group(*schemes):
    "Layers that engines fuse alike, and one group after another in the next scheme."
    return lambda ls: {n: schemes[i % len(schemes)] for i, g in enumerate(groups(ls, 'fused')) for n in g}


def by_layer(*schemes):
    "Each layer in the next scheme, whatever engines fuse."
    return lambda ls: {l.name: schemes[i % len(schemes)] for i, l in enumerate(ls)}


def apart(q, k, v):
    "Query, key and value in formats of their own, everything else as the query."
    one = dict(q_proj=q, k_proj=k, v_proj=v)
    return lambda ls: {l.name: one.get(l.name.rpartition('.')[2], q) for l in ls}


RECIPES = {'W4': by_group('W4A16G64'),
           'W4 + W8': by_group('W4A16G64', 'W8A16G64'), 'W4 + BF16': by_group('W4A16G64', 'BF16'),
           'q/k/v 4, 8, 4': apart('W4A16G64', 'W8A16G64', 'W4A16G64'),
           'q/k/v 4, 4, 16': apart('W4A16G64', 'W4A16G64', 'BF16'),
           'W3 + W2': by_group('W3A16G64', 'W2A16G64'),
           'MXFP4 + MXFP8': by_group('MXFP4', 'MXFP8'), 'NVFP4': by_group('NVFP4'),
           'Q4_0 + Q8_0 by layer': by_layer('GGUF:Q4_0', 'GGUF:Q8_0')}
FAKE = ('W4', 'MXFP4 + MXFP8', 'NVFP4')       # a fake checkpoint holds anything; these stand for all
