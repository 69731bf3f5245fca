"""What `pip install mpq_nb` brings: the distributions that its requirements need, with their licences.

python tests/supply.py prints them."""
import re
from importlib.metadata import distribution, PackageNotFoundError

from packaging.requirements import Requirement

PERMISSIVE = r'MIT|BSD|Apache|ISC|PSF|Python Software Foundation|Unlicense|Zlib|CC0|HPND|0BSD|Public Domain|NVIDIA'
WEAK = r'MPL|Mozilla|LGPL|Lesser'       # used as they are, neither changed nor shipped: no duty follows
STRONG = r'\b(A?GPL|GNU (Affero )?General)'


def closure(name, extras=()):
    "{name: distribution} of everything that a distribution needs to run, itself included."
    got, todo = {}, [(name, tuple(extras))]
    while todo:
        name, extras = todo.pop()
        key = re.sub(r'[-_.]+', '-', name).lower()
        if (key, extras) in got: continue
        try: d = distribution(name)
        except PackageNotFoundError: continue         # for another platform
        got[key, extras] = d
        for r in map(Requirement, d.requires or []):
            if r.marker is None or any(r.marker.evaluate({'extra': e}) for e in extras or ('',)): todo.append((r.name, tuple(sorted(r.extras))))
    return {k: d for (k, _), d in sorted(got.items(), key=lambda x: x[0][0])}


def licence(d):
    "As the distribution says it: its expression, its classifiers, or the first line of its text."
    m = d.metadata
    return m.get('License-Expression') or '; '.join(c.rpartition(' :: ')[2] for c in m.get_all('Classifier', []) if c.startswith('License ::') and c.count('::') > 1) or (m.get('License') or '').strip().split('\n')[0]


if __name__ == '__main__':
    for n, d in closure('mpq_nb').items(): print(f'{n:30} {d.version:18} {licence(d)}')
