"The explorer in a real browser: Voilà's page as `mpq explore` serves it, the notebook in JupyterLab and Notebook 7, and the widget manager of VS Code."
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

import pytest
from mpq_nb.allocation import Recipe
from mpq_nb.cli import main

CHROMIUM = next(filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None)
pytestmark = [pytest.mark.browser, pytest.mark.skipif(not CHROMIUM, reason='no chromium: apt-get install chromium')]


@pytest.fixture(scope='module')
def browser():
    playwright = pytest.importorskip('playwright.sync_api', reason='no playwright: pip install playwright')
    with playwright.sync_playwright() as p:
        b = p.chromium.launch(executable_path=CHROMIUM, args=['--no-sandbox'])   # as root in a container there is no sandbox
        yield b
        b.close()


@pytest.fixture(scope='module')
def scores(tmp_path_factory):
    "Scores of 36 blocks of 7 layers in four formats, one of them of a file of our own, drawn at random."
    import torch
    from mpq_nb.base.formats import known_formats
    from mpq_nb.models import Layer
    from mpq_nb.sensitivity import Scores
    kinds = [f'self_attn.{k}_proj' for k in 'qkvo'] + [f'mlp.{k}_proj' for k in ('gate', 'up', 'down')]
    ls = tuple(Layer(f'model.layers.{b}.{k}', (256, 256), b) for b in range(36) for k in kinds)
    loss = torch.rand(len(ls), 1, generator=torch.Generator().manual_seed(0))**4 * torch.tensor([1., .7, .1, .02])
    s = Scores(loss, ls, tuple((l.name,) for l in ls), ('MXFP4', 'W4A16G64', 'MINE8', 'W8A16G64'), meta=dict(method='fisher', model='random', rest_bytes=2**20))
    at = tmp_path_factory.mktemp('explore')
    (at/'mine.toml').write_text('[MINE8]\nelement = "INT8"\ngroup = 64\n')
    with known_formats(at/'mine.toml'): return s.save(at/'scores.safetensors')


@pytest.fixture(scope='module')
def link(scores):
    "`mpq explore` in a process of its own; the link that it prints."
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'}
    cmd = [Path(sys.executable).parent/'mpq', 'explore', scores.name, '--formats', 'mine.toml', '--no-browser', '--port', '8931']
    p = subprocess.Popen(cmd, cwd=scores.parent, env=env, stderr=subprocess.PIPE, text=True)
    said = []
    for line in p.stderr:
        said.append(line)
        if m := re.search(r'http://127\.0\.0\.1:\d+/\?token=\w+', line): yield m[0]; break
    else: pytest.fail(''.join(said))
    p.terminate()
    p.wait(30)


@pytest.fixture(scope='module')
def page(browser, link):
    "The page, with all that went wrong on it or was asked of other machines."
    page = browser.new_context(viewport=dict(width=1280, height=900)).new_page()
    page.wrong = []
    page.on('pageerror', lambda e: page.wrong.append(str(e)))
    page.on('request', lambda r: page.wrong.append(r.url) if not r.url.startswith(('http://127.0.0.1:', 'data:', 'blob:')) else None)
    page.goto(link)
    page.wait_for_selector('.mpq[data-ready]', timeout=120_000)
    return page


def step(page, do):
    "Do something and wait until the page shows what follows."
    before = page.locator('.mpq').get_attribute('data-ready')
    do()
    page.wait_for_function("b => document.querySelector('.mpq').dataset.ready !== b", arg=before)


def formats(page): return page.eval_on_selector_all('.mpq-cell', 'cs => cs.map(c => c.dataset.scheme)')
def brightness(page, what, of): return sum(map(int, re.findall(r'\d+', page.eval_on_selector(what, f'e => getComputedStyle(e).{of}'))[:3]))
def line(page, name): return page.locator(f'pre[data-line="{name}"]').inner_text()


def test_the_page_renders_without_errors_or_other_machines(page):
    assert page.locator('.mpq-cell').count() == 252
    assert 4.99 < float(page.locator('.mpq-facts b').first.inner_text()) <= 5    # a quarter of the way from 4 to 8 bits
    assert page.wrong == []


def test_nobody_without_the_token_gets_in(browser, link):
    page = browser.new_context().new_page()
    page.goto(link.partition('?')[0])
    assert page.locator('.mpq').count() == 0 and '/login' in page.url


def test_the_slider_moves_the_recipe(page):
    before = formats(page)
    for _ in range(5): step(page, lambda: page.locator('.noUi-handle').first.press('ArrowRight'))
    assert formats(page) != before and page.locator('.mpq-cell.changed').count() > 0
    assert '--bits 5.1' in line(page, 'command line')


def test_a_click_pins_a_layer_and_a_key_its_format(page):
    cell = page.locator('[data-name="model.layers.3.mlp.up_proj"]')
    was = cell.get_attribute('data-scheme')
    step(page, cell.click)
    assert cell.get_attribute('aria-pressed') == 'true' and f'model.layers.3.mlp.up_proj={was}' in line(page, 'command line')
    step(page, lambda: page.keyboard.press('4'))
    assert cell.get_attribute('data-scheme') == 'W8A16G64'
    page.keyboard.press('ArrowRight')
    assert page.evaluate('document.activeElement.dataset.name') == 'model.layers.4.mlp.up_proj'
    step(page, lambda: page.keyboard.press('Enter'))
    step(page, lambda: page.keyboard.press('Delete'))
    assert page.locator('.mpq-cell.pinned').count() == 1


def test_what_cannot_be_had_says_so_in_place(page):
    number = page.locator('.mpq-row input[type=number]').first
    number.fill('3'); number.press('Enter')
    page.wait_for_selector('.mpq-stale')
    assert 'cannot be met' in page.locator('.mpq-error').inner_text() and page.get_by_role('button', name='Save recipe').is_disabled()
    number.fill('5.5'); number.press('Enter')
    page.wait_for_selector('.mpq:not(.mpq-stale)')


def test_the_saved_file_is_the_command_line_s(page, scores, monkeypatch):
    page.get_by_role('button', name='Save recipe').click()
    page.wait_for_function("document.querySelector('.mpq-note').textContent.startsWith('saved')")
    monkeypatch.chdir(scores.parent)
    assert main(shlex.split(line(page, 'command line').replace('recipe.json', 'by-line.json'))[1:]) == 0
    assert (scores.parent/'recipe.json').read_bytes() == (scores.parent/'by-line.json').read_bytes()
    assert 'model.layers.3.mlp.up_proj' in json.loads((scores.parent/'recipe.json').read_text())['made']['fixed']


def test_a_narrow_screen_has_the_whole_map(page):
    page.set_viewport_size(dict(width=390, height=844))
    page.wait_for_function("document.querySelector('.mpq-map svg').getBoundingClientRect().width < 390")
    assert page.evaluate('document.documentElement.scrollWidth') <= 390
    box = page.locator('.mpq-cell').first.bounding_box()
    assert box['width'] > 24 and page.locator('.mpq-cell').count() == 252
    page.set_viewport_size(dict(width=1280, height=900))


def test_dark_where_the_system_is_dark(page):
    assert brightness(page, 'body', 'backgroundColor') > 600 and brightness(page, '.mpq-title', 'color') < 200
    page.emulate_media(color_scheme='dark')
    assert brightness(page, 'body', 'backgroundColor') < 150 and brightness(page, '.mpq-title', 'color') > 500
    page.emulate_media(color_scheme='light')


@contextmanager
def served(app, folder, *options):
    "A Jupyter application of this environment on a folder, with the token abc; its address."
    if not find_spec(app): pytest.skip(f'no {app}: pip install {app}')
    env = {k: v for k, v in os.environ.items() if k != 'IN_TEST'} | dict(JUPYTERLAB_SETTINGS_DIR=str(folder/'settings'), JUPYTERLAB_WORKSPACES_DIR=str(folder/'work'))
    cmd = [sys.executable, '-m', app, '--no-browser', '--allow-root', '--ip=127.0.0.1', '--port=8941', '--IdentityProvider.token=abc', f'--ServerApp.root_dir={folder}', *options]
    log = folder/'log'
    p = subprocess.Popen(cmd, env=env, stdout=log.open('w'), stderr=subprocess.STDOUT)
    try:
        while not (m := re.search(r'http://127\.0\.0\.1:(\d+)/(lab|tree)?\?', log.read_text())):
            assert p.poll() is None, log.read_text()
            time.sleep(.5)
        while socket.socket().connect_ex(('127.0.0.1', int(m[1]))): time.sleep(.5)      # the link comes before the server
        yield f'http://127.0.0.1:{m[1]}'
    finally:
        p.terminate()
        p.wait(30)


def cell(scores, out):
    mine = str(scores.parent/'mine.toml')
    return (f"from mpq_nb.explorer import Explorer\nfrom mpq_nb.schemes import add_formats\nadd_formats({mine!r})\n"
            f"Explorer({str(scores)!r}, out={str(out)!r})")


def used(page, recipe):
    "A layer pinned by a click, the budget moved by keys, the recipe saved."
    step(page, page.locator('.mpq-cell').first.click)
    assert page.locator('.mpq-cell.pinned').count() == 1 and page.locator('.mpq-cell').count() == 252
    page.keyboard.press('ArrowRight')     # the notebook would take it, if it could
    assert page.evaluate('document.activeElement.dataset.name') == 'model.layers.1.self_attn.q_proj'
    before = formats(page)
    for _ in range(5): step(page, lambda: page.locator('.noUi-handle').first.press('ArrowRight'))
    assert formats(page) != before
    page.get_by_role('button', name='Save recipe').click()
    page.wait_for_function("document.querySelector('.mpq-note').textContent.startsWith('saved')")
    assert list(Recipe.load(recipe).schemes.values()) == formats(page)


def run_first_cell(page, seconds=240):
    "Run the first cell and wait until it has run. While a notebook opens, the prompt may turn to [*] and back to [ ]: a click that comes too early is lost."
    for _ in range(seconds):
        prompt = page.locator('.jp-InputPrompt').first.inner_text()
        if re.fullmatch(r'\[\d+\]:', prompt): return
        if prompt == '[ ]:':
            page.locator('.jp-CodeCell .cm-content').first.click()
            page.keyboard.press('Shift+Enter')
        page.wait_for_timeout(1000)
    pytest.fail(f'the cell has not run in {seconds} s; its prompt says {prompt}')


@pytest.mark.parametrize('app, path', [('jupyterlab', 'lab/tree'), ('notebook', 'notebooks')])
def test_a_notebook_shows_the_widget(browser, scores, tmp_path, app, path):
    "A notebook with one cell, run in JupyterLab and in Notebook 7: the same front end, the same map, mouse and keys."
    source = dict(cell_type='code', id='a', metadata={}, outputs=[], execution_count=None, source=cell(scores, tmp_path/'recipe.json'))
    (tmp_path/'a.ipynb').write_text(json.dumps(dict(cells=[source], metadata=dict(kernelspec=dict(name='python3', display_name='Python 3', language='python')), nbformat=4, nbformat_minor=5)))
    with served(app, tmp_path) as at, browser.new_context(viewport=dict(width=1280, height=900)) as context:
        page = context.new_page()
        page.goto(f'{at}/{path}/a.ipynb?token=abc')
        page.wait_for_selector('.jp-Notebook-ExecutionIndicator[data-status="idle"]', timeout=120_000)   # the kernel is there
        run_first_cell(page)
        page.wait_for_selector('.mpq[data-ready]', timeout=60_000)
        used(page, tmp_path/'recipe.json')


VSCODE = ('@vscode/jupyter-ipywidgets8@1.0.9', 'requirejs@2.3.8', '@jupyterlab/services@7.4.9', 'esbuild@0.25.9')

@pytest.fixture(scope='module')
def vscode(tmp_path_factory):
    "A folder with the page of a cell's output in VS Code, of its own widget manager."
    if not shutil.which('npm'): pytest.skip('no npm: apt-get install npm')
    at = tmp_path_factory.mktemp('vscode')
    def npm(*args): return subprocess.run(['npm', *args, '--silent'], cwd=at, check=True, capture_output=True, text=True, timeout=300).stdout
    shutil.unpack_archive(at/npm('pack', VSCODE[0]).split()[-1], at)         # bundled: what it was built from is not needed
    npm('install', '--no-audit', '--no-fund', *VSCODE[1:])
    shutil.copy(Path(__file__).with_name('vscode.js'), at)
    subprocess.run([at/'node_modules/.bin/esbuild', 'vscode.js', '--bundle', '--outfile=site/run.js'], cwd=at, check=True, capture_output=True)
    for f in ('node_modules/requirejs/require.js', 'package/dist/ipywidgets.js'): shutil.copy(at/f, at/'site')
    shutil.copytree(Path(sys.prefix)/'share/jupyter/nbextensions', at/'site/nbextensions')
    (at/'site/page.html').write_text("""<!doctype html><meta charset="utf-8"><link rel="icon" href="data:"><body class="vscode-dark" style="background: #1f1f1f; color: #ccc">
<div id="output" style="background: white"></div>
<script src="require.js"></script><script src="run.js"></script>
<script type="module">import { activate } from './ipywidgets.js'; activate(); window.vscIPyWidgets8.load(); window.ready = true</script>""")
    return at/'site'


def test_vs_code_s_widget_manager_shows_the_widget(browser, scores, vscode, tmp_path):
    "VS Code itself is not run, but what shows widgets in it: the manager of its Jupyter extension, which loads anywidget as AMD."
    with served('jupyter_server', tmp_path, f'--ServerApp.extra_static_paths={vscode}') as at, browser.new_context(viewport=dict(width=1280, height=900)) as context:
        page = context.new_page()
        page.goto(f'{at}/static/page.html')
        page.wait_for_function('window.ready')
        page.evaluate("([token, code]) => void run(token, code, document.getElementById('output'))", ['abc', cell(scores, tmp_path/'recipe.json')])
        page.wait_for_selector('.mpq[data-ready]', timeout=120_000)
        used(page, tmp_path/'recipe.json')
        assert page.evaluate('window.wrong') == []
        assert brightness(page, '.mpq-title', 'color') < 200       # VS Code puts widgets on white, in dark themes too
