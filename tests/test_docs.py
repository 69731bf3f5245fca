"The documentation site: staged as Quarto gets it, every page in the sidebar, every link leading somewhere, nothing broken on a page."
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT, run

HOST = 'https://mpq-nb.github.io/mpq_nb/'
SOURCE = 'https://github.com/mpq-nb/mpq_nb/blob/main/'
LINK = re.compile(r'(?<!\\)\]\(([^()\s]+(?:\([^()\s]*\)[^()\s]*)*)\)')   # its target may hold one pair of parentheses


@pytest.fixture(scope='module')
def quarto(): return yaml.safe_load((ROOT/'_quarto.yml').read_text())


@pytest.fixture(scope='module')
def site(tmp_path_factory):
    "The staged site: {page: notebook}."
    d = tmp_path_factory.mktemp('site')
    for n in ('nbs', 'mpq_nb', 'tests'): shutil.copytree(ROOT/n, d/n, ignore=shutil.ignore_patterns('__pycache__', '.ipynb_checkpoints', 'peers'))
    for n in ('settings.ini', 'setup.py', '_quarto.yml'): shutil.copy(ROOT/n, d/n)
    r = run(sys.executable, 'tests/docs.py', '--stage', cwd=d, PYTHONPATH=str(d), OMP_NUM_THREADS='1')
    assert r.returncode == 0, r.stderr[-3000:]
    return {str(p.relative_to(d/'_proc')): json.loads(p.read_text()) for p in sorted((d/'_proc').rglob('*.ipynb'))}


def pages(contents):
    "The pages of a sidebar, in order."
    for c in contents:
        if isinstance(c, str): yield c
        else: yield from pages(c['contents'])


def texts(nb):
    "What a reader of a page sees as Markdown: cells, and the output of `show_doc`."
    for c in nb['cells']:
        if c['cell_type'] == 'markdown': yield ''.join(c['source'])
        for o in c.get('outputs', []):
            if 'text/markdown' in o.get('data', {}): yield ''.join(o['data']['text/markdown'])


def links(nb):
    for t in texts(nb): yield from LINK.findall(re.sub(r'^```.*?^```|`[^`\n]*`(?!\])', '', t, flags=re.M | re.S))


def slugs(nb):
    "The anchors of a page's headings, as Pandoc makes them."
    for t in texts(nb):
        for h in re.findall(r'^#+ +(.+?)\s*$', t, re.M):
            h = re.sub(r'\[([^]]*)\]\([^)]*\)', r'\1', h).replace('`', '').lower()
            yield re.sub(r'^[^a-z]+', '', re.sub(r'[^\w\-. ]', '', h).replace(' ', '-'))


def test_every_page_is_in_the_sidebar_once(quarto):
    listed = list(pages(quarto['website']['sidebar']['contents']))
    there = {str(p.relative_to(ROOT/'nbs')) for p in (ROOT/'nbs').rglob('*.ipynb') if '.ipynb_checkpoints' not in p.parts}
    assert len(listed) == len(set(listed)) and listed[0] == 'index.ipynb'
    assert set(listed) == there, f'not in _quarto.yml: {sorted(there - set(listed))}; not in nbs/: {sorted(set(listed) - there)}'
    assert {c['href'] for c in quarto['website']['navbar']['left']} <= there
    for floor in ('base', 'core', 'judge', 'ship', 'apps'):
        numbered = [p for p in listed if Path(p).parent.as_posix() == floor]
        assert numbered == sorted(numbered)     # reading order is the order of the numbers


def test_the_site_is_searched_and_has_a_light_and_a_dark_face(quarto):
    assert set(quarto['format']['html']['theme']) == {'light', 'dark'} and quarto['website']['search']
    assert quarto['execute']['enabled'] is False     # pages show the outputs that were committed


def test_every_page_is_staged(site, quarto):
    assert set(site) == set(pages(quarto['website']['sidebar']['contents']))
    for name, nb in site.items():
        if '/' not in name or name.startswith(('tutorials/', 'benchmarks/', 'notes/')): continue     # the library's floors
        shown = sum('show_doc(' in ''.join(c['source']) for c in nb['cells'])
        told = sum('text/markdown' in o.get('data', {}) for c in nb['cells'] if 'show_doc(' in ''.join(c['source']) for o in c['outputs'])
        assert shown == told > 0, f'{name}: {shown} show_doc, {told} with a result'


def test_every_page_says_first_what_it_is_for(site):
    for name, nb in site.items():
        head = ''.join(nb['cells'][0]['source'])
        assert nb['cells'][0]['cell_type'] == 'raw' and re.search(r'^title: .+', head, re.M) and re.search(r'^description: .+', head, re.M), f'{name} does not begin with # title and > promise'


def test_no_page_shows_a_traceback(site):
    for name, nb in site.items():
        for c in nb['cells']:
            for o in c.get('outputs', []):
                assert o['output_type'] != 'error' and 'Traceback (most recent call last)' not in json.dumps(o), f"{name}: {''.join(c['source'])[:80]}"


def test_internal_links_resolve(site):
    seen = 0
    for name, nb in site.items():
        for target in links(nb):
            if re.match(r'[a-z]+:', target): continue
            path, _, anchor = target.partition('#')
            p = os.path.normpath(Path(name).parent/path) if path else name
            assert (ROOT/'nbs'/p).is_file(), f'{name}: no {target}'
            if anchor: assert anchor in set(slugs(site[p])), f'{name}: no heading {target}'
            seen += 1
    assert seen > 20


def test_doclinks_resolve(site):
    "A name in backticks leads to a page that documents it."
    by = {re.sub(r'(^|/)\d+_', r'\1', n.removesuffix('.ipynb')): n for n in site}
    seen = set()
    for name, nb in site.items():
        for target in links(nb):
            if target.startswith(SOURCE):
                path, _, line = target.removeprefix(SOURCE).partition('#L')
                assert line.isdecimal() and int(line) <= len((ROOT/path).read_text().splitlines()), f'{name}: {target}'
            elif target.startswith(HOST):
                page, _, anchor = target.removeprefix(HOST).partition('.html#')
                assert page in by and anchor in set(slugs(site[by[page]])), f'{name}: {target}'
                seen.add(target)
    assert len(seen) > 20
    assert f'{HOST}sensitivity.html#score' in seen and not any('/cli' in s for s in seen)      # not the command of the same name


def test_no_link_is_inside_another(site):
    for name, nb in site.items():
        for t in texts(nb): assert not re.search(r'\[\[[^]]*\]\([^)]*\)\]\(', t), name


def test_the_landing_page_has_the_picture_and_the_two_commands(site):
    page = '\n'.join(texts(site['index.ipynb']))
    sections = page.split('\n## ')
    assert 'mpq quantize' in sections[1] and '--fit' in sections[1]     # the one dial comes first
    assert re.search(r'!\[.+\]\(images/demo\.png\)', sections[2])
    assert all(c in sections[3] for c in ('make demo ', 'make test ', 'mpq explore demo/scores.safetensors'))


def test_without_quarto_make_docs_says_what_is_missing(tmp_path):
    r = subprocess.run([shutil.which('make'), '-C', str(ROOT), '-o', '.venv/.installed', 'docs'], env=dict(PATH=str(tmp_path)), capture_output=True, text=True)
    assert r.returncode != 0 and 'https://quarto.org/docs/get-started' in r.stderr and 'Traceback' not in r.stderr


def test_the_workflow_tests_before_it_publishes():
    w = yaml.safe_load((ROOT/'.github'/'workflows'/'ci.yml').read_text())
    jobs = w['jobs']
    does = {n: ' '.join(s.get('run', '') + s.get('uses', '') for s in j['steps']) for n, j in jobs.items()}
    assert '.ci/run' in does['test'] and 'tests/docs.py' in does['docs'] and 'quarto' in does['docs'] and 'deploy-pages' in does['publish']
    assert jobs['publish']['needs'] == ['test', 'docs'] and jobs['publish']['permissions'] == {'pages': 'write', 'id-token': 'write'}
    assert 'main' in jobs['publish']['if']
