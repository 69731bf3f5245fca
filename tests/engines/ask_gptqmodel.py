"The logits by GPTQModel's own reader: python ask_gptqmodel.py FOLDER TOKENS.json OUT.npy"
import json
import sys
from pathlib import Path

import torch
from gptqmodel import GPTQModel
from safetensors.torch import save_file

folder, tokens, out = sys.argv[1:]
print('READY', flush=True)
model = GPTQModel.load(folder, device='cpu')
print('LOADED', model.model.dtype, flush=True)
ids = torch.tensor([json.loads(Path(tokens).read_text())])
with torch.no_grad(): logits = model.model(ids).logits[0].float()
save_file(dict(logits=logits.contiguous()), out)
print('RAN', flush=True)
