"NVIDIA ModelOpt's auto_quantize, scored once for all budgets: modelopt.py --model FOLDER --tokens TOKENS.safetensors --schemes MXFP4,MXFP8 --bits 4.5,5 --method gradient --out OUT.json"
import sys
from common import arguments, nearest, sizes, timed, write
sys.path.pop(0)   # this folder, where a file has the peer's name

import modelopt.torch.quantization as mtq
from modelopt.torch.quantization.nn import register_quant_backend
from transformers import AutoModelForCausalLM

from mpq_nb.schemes import bits, qdq, qdq_activation, quantizes_activations

HEAD = ['*lm_head*']

# ModelOpt's MX operators are CUDA only and its integers are of another range; its backends let us give it the quantizers that its recipes are judged by.
register_quant_backend('weight', lambda x, quantizer: qdq(x, quantizer.backend_extra_args['scheme'], 'nearest'))
register_quant_backend('input', lambda x, quantizer: qdq_activation(x, quantizer.backend_extra_args['scheme']))

def config(scheme):
    "ModelOpt's configuration of one of our schemes, which costs its payload bits."
    kinds = ['weight', 'input'] if quantizes_activations(scheme) else ['weight']
    on = [dict(quantizer_name=f'*{k}_quantizer', cfg=dict(num_bits=bits(scheme), backend=k, backend_extra_args=dict(scheme=scheme))) for k in kinds]
    return dict(quant_cfg=[dict(quantizer_name='*', enable=False), *on], algorithm=None)

def search(model, args, layers):
    "ModelOpt's scores of every group of these layers in every scheme; 16 bits are no choice."
    formats = [config(s) for s in args.schemes]
    likelihood = args.method == 'gradient'
    def step(model, ids): return model(input_ids=ids, labels=ids) if likelihood else model(input_ids=ids).logits
    batches = list(args.ids.split(1 if likelihood else 4))
    return mtq.auto_quantize(
        model, quantization_formats=formats, method=args.method, data_loader=batches, forward_step=step,
        loss_func=(lambda output, ids: output.loss) if likelihood else None, num_score_steps=len(batches), disabled_layers=HEAD,
        module_search_spaces=[dict(module_name_patterns=layers, quantization_formats=formats, allow_no_quant=False)],
        constraints=dict(effective_bits=max(map(float, args.budgets)), cost=dict(excluded_module_name_patterns=HEAD)))[1]

def allow_top(state):
    "Let the widest scheme pass any threshold of kl_div, as no quantization does by default; a layer that passes none takes the narrowest."
    for stats in state['candidate_stats'].values(): stats['scores'][-1] = 0.

def recipe(state, target):
    "The scheme of every layer in ModelOpt's solution for `target` effective bits."
    entries = mtq.get_auto_quantize_config(state, dict(effective_bits=target))['quant_cfg']
    return {e['quantizer_name'].removesuffix('.weight_quantizer'): e['cfg']['backend_extra_args']['scheme']
            for e in entries if e['quantizer_name'].endswith('.weight_quantizer') and e.get('cfg')}

if __name__ == '__main__':
    args = arguments(('gradient', 'kl_div'))
    numel, model = sizes(args.model), AutoModelForCausalLM.from_pretrained(args.model, dtype='auto').eval()
    with timed('scoring'): state = search(model, args, list(numel))
    if args.method == 'kl_div': allow_top(state)
    with timed('solving'): recipes = {b: nearest(lambda t: recipe(state, t), float(b), numel) for b in args.budgets}
    write(args, 'nvidia-modelopt', recipes, numel)
