"The logits by GPTQModel's own reader: python ask_gptqmodel.py FOLDER TOKENS.json OUT"
import json
import sys
from pathlib import Path


def ask(folder, tokens, out):
    "Load a checkpoint by GPTQModel, and write its logits."
    model = GPTQModel.load(folder, device='cpu')
    print('LOADED', model.model.dtype, flush=True)
    ids = torch.tensor([json.loads(Path(tokens).read_text())])
    with torch.no_grad(): logits = model.model(ids).logits[0].float()
    save_file(dict(logits=logits.contiguous()), out)


if __name__ == '__main__':
    import torch
    from gptqmodel import GPTQModel
    from safetensors.torch import save_file
    print('READY', flush=True)
    ask(*sys.argv[1:])
