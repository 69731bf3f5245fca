"PrismaQuant's AURA cost and its allocator, scored once for all budgets: prismaquant.py --model FOLDER --tokens TOKENS.safetensors --schemes MXFP4,MXFP8 --bits 4.5,5 --out OUT.json"
import json, sys, tempfile
from pathlib import Path
from common import arguments, nearest, sizes, timed, write
sys.path.pop(0)   # this folder, where a file has the peer's name

from prismaquant import allocator, aura_cost, calibration_data, format_registry, gpu_guard

from mpq_nb.schemes import bits, qdq

gpu_guard.require_cuda_hot_path = lambda component, device=None: device   # it refuses to run without CUDA

def register(scheme):
    "The name of a PrismaQuant format with our quantizer that costs its payload bits; groups are hidden, as it drops widths that they don't divide."
    return format_registry.register_format(format_registry.FormatSpec(
        name=f'{scheme}_PAYLOAD', weight_bits=bits(scheme), group_size=0, scale_bits=0, scale_dtype_name='none', weight_element_dtype=scheme,
        autoround_config=lambda: dict(scheme=scheme), quantize_dequantize=lambda w: qdq(w, scheme, 'nearest'))).name

def score(args, formats, cost):
    "Write PrismaQuant's cost of every layer in every format to the file `cost`."
    calibration_data.load_wikitext_calibration_windowed = lambda *a, **kw: args.ids   # the given tokens instead of wikitext's
    n, length = map(str, args.ids.shape)
    aura_cost.main(['--model', args.model, '--output', cost, '--formats', formats, '--device', 'cpu', '--min-free-gib', '1',
                    '--n-calib-samples', n, '--calib-seqlen', length, '--probe-microbatch', '4'])

def recipe(args, formats, cost, target):
    "The scheme of every layer in the allocator's solution for `target` bits."
    out = Path(cost).with_name('layers.json')
    sys.argv = ['allocator', '--probe', cost, '--costs', cost, '--model-override', args.model, '--allow-default-profile', '--formats', formats,
                '--target-bits', str(target), '--pareto-targets', str(target), '--overshoot-tolerance', '0',
                '--layer-config', str(out), '--pareto-csv', str(out.with_suffix('.csv'))]
    allocator.main()
    return {layer: c['scheme'] for layer, c in json.loads(out.read_text()).items() if 'scheme' in c}

if __name__ == '__main__':
    args = arguments(('aura',))
    numel, formats = sizes(args.model), ','.join(map(register, args.schemes))
    with tempfile.TemporaryDirectory() as folder:
        cost = f'{folder}/cost.pkl'
        with timed('scoring'): score(args, formats, cost)
        with timed('solving'): recipes = {b: nearest(lambda t: recipe(args, formats, cost, t), float(b), numel) for b in args.budgets}
    write(args, 'prismaquant', recipes, numel)
