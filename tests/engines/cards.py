"The card's own lines, run as they stand, without mpq_nb."
import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

sys.path.insert(0, str(Path(__file__).parents[1]))
from conftest import run
from test_serving import mixed

from mpq_nb.allocation import servable
from mpq_nb.apps.engines.check import ASK
from mpq_nb.calibration import sample
from mpq_nb.models import tiny_model
from mpq_nb.quantization import export, quantized
from mpq_nb.ship.verification import logit_distances


@pytest.mark.timeout(900)
@pytest.mark.parametrize('format', ('auto_round', 'auto_gptq', 'llm_compressor'))
def test_the_card_is_all_that_one_needs(format, demo, tmp_path):
    "The card's own lines, run without mpq_nb and with no other packages than the card names, and what is promised of them."
    torch.manual_seed(0)
    config, tok = dict(vocab_size=len(demo[1]), hidden_size=128, intermediate_size=256), demo[1]
    model = tiny_model('llama', **config)             # in 32 bits, which a checkpoint may not say it wants
    names = ('MXFP4', 'MXFP8') if format == 'llm_compressor' else ('W4A16G32', 'W8A16G32')
    r, ids = mixed(model, *names), sample(model, 1, 48)[0]
    promised = servable(r, 'transformers', 'cpu', format)
    assert promised.answer == 'loads'
    out = export(model, tok, r, tmp_path/format, format)
    (tmp_path/'ids').write_text(json.dumps(ids.tolist()))
    got = run(sys.executable, ASK, 'transformers', out, tmp_path/'ids', tmp_path/'logits', cwd=tmp_path, PYTHONPATH='')
    assert got.returncode == 0 and 'LOADED' in got.stdout, (format, got.stderr[-2000:])
    with quantized(model, r), torch.no_grad(): ours = model(ids[None]).logits.float()
    kl = logit_distances(ours, load_file(tmp_path/'logits')['logits'][None])[0].item()
    assert kl < (.01 if promised.exact else 1), (format, kl)
