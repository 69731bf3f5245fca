"Unmodified lm-eval tasks on real rows: the numbers that lm-eval 0.4.13 gives when it is run directly (float32, batch 16, first 200 rows)."
import pytest
from mpq_nb.evaluation import lm_eval_tasks

ACCURACY = {('lambada_openai', 'acc'): 0.340, ('hellaswag', 'acc_norm'): 0.465, ('piqa', 'acc'): 0.645, ('winogrande', 'acc'): 0.515}


@pytest.mark.timeout(900)
def test_tasks_equal_lm_eval(demo, data):
    model, tok = demo
    f = lm_eval_tasks(model, tok, [t for t, _ in ACCURACY], data=data, limit=200, batch=16).frame().set_index(['task', 'metric'])
    for k, v in ACCURACY.items():
        assert f.loc[k, 'value'] == pytest.approx(v, abs=5e-4) and f.loc[k, 'n'] == 200
        assert f.loc[k, 'se'] == pytest.approx((v*(1-v)/199)**.5, abs=1e-3)
