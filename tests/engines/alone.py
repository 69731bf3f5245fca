"Run a program that may import what some packages bring, and nothing else: python alone.py PROGRAM PACKAGE ..."
import importlib.metadata
import re
import sys
from importlib.machinery import PathFinder


def plain(name): return re.sub(r'[-_.]+', '-', name).lower()


def with_needs(packages):
    "The names of these packages and of all that they depend on."
    found, todo = set(), list(packages)
    while todo:
        name = plain(todo.pop())
        if name in found: continue
        found.add(name)
        try: needs = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError: continue
        todo += [re.match(r'[\w.-]+', n)[0] for n in needs if 'extra ==' not in n]
    return found


def only(packages):
    "Let imports find only what these packages own, and what is in the standard library."
    allowed = with_needs(packages)
    owners = {top: {plain(d) for d in ds} for top, ds in importlib.metadata.packages_distributions().items()}

    class Named(PathFinder):
        @classmethod
        def find_spec(cls, name, path=None, target=None):
            owner = owners.get(name.split('.')[0])
            if owner and not owner & allowed: return None
            return PathFinder.find_spec(name, path, target)

    sys.meta_path = [Named if finder is PathFinder else finder for finder in sys.meta_path]


if __name__ == '__main__':
    only(sys.argv[2:])
    exec(sys.argv[1])
