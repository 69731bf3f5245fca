"The models and texts of the table: the demo model, and tiny random ones in bfloat16."
from pathlib import Path

import torch
from mpq_nb.apps.engines.check import check_model, SHAPE
from mpq_nb.calibration import tokens
from mpq_nb.models import demo_model

LENGTH = 512
LICENCE = Path(__file__).parent.parent.parent/'LICENSE'      # English that stays as it is
# The demo model is 576 wide, which neither 128 nor 256 divides; the tiny ones are 128 wide.
TINY = dict(llama=SHAPE,
            qwen3=dict(hidden_size=128, intermediate_size=256, num_attention_heads=2, num_key_value_heads=1, head_dim=128))
# Layers of the demo model's names and shapes, in two blocks.
SHAPES = TINY | dict(demo=dict(hidden_size=576, intermediate_size=1536, num_attention_heads=9, num_key_value_heads=3, head_dim=64))


def model_of(name):
    "(model, tokenizer) of demo, or of a name among `TINY`."
    if name == 'demo': return demo_model(device='cpu')
    return check_model(name, TINY[name])


def text_of(name, model, tok):
    "Token ids [LENGTH]: English for the demo model, any at all for one that is random."
    if name == 'demo': return tokens(str(LICENCE), tok, model, n=1, length=LENGTH).ids[0]
    return torch.randint(3, len(tok), (LENGTH,), generator=torch.Generator().manual_seed(0))
