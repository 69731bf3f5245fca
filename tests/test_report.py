"The report: one page of whatever a run's folder holds, with nothing in it that a name could do."
import json
import shutil
import subprocess
import sys
import zipfile
from html.parser import HTMLParser

import pytest
from conftest import ROOT, run

EVIL = '<script>alert("x")</script><img src=http://x.invalid onerror=alert(1)>'
STEM = 'e<b>vil"'   # a file may be called so


class Page(HTMLParser):
    "Elements, attributes and text of a page."
    def __init__(self, html):
        super().__init__()
        self.tags, self.attrs, self.text, self.inside = [], [], [], []
        self.feed(html)
        self.text = ' '.join(''.join(self.text).split())

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag); self.attrs += [(tag, k, v or '') for k, v in attrs]; self.inside.append(tag)

    def handle_endtag(self, tag):
        while self.inside and self.inside.pop() != tag: pass

    def handle_data(self, d):
        if 'style' not in self.inside: self.text.append(d)

    def check(self):
        "Nothing runs, nothing is fetched."
        assert not {'script', 'iframe', 'object', 'embed', 'form', 'base', 'b'} & set(self.tags)
        for tag, k, v in self.attrs:
            assert not k.startswith('on'), (tag, k)
            if k in ('src', 'href', 'xlink:href', 'srcset', 'data', 'action'): assert v.startswith(('data:', '#')), (tag, k, v[:60])
        return self


def numbers(**kw): return dict(kl=.3, kl_se=.02, top1=.8, top1_se=.01, ppl=20., ppl_se=1., ppl_ratio=1.2, ppl_ratio_se=.05) | kw


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    "Scores, recipes and an evaluation in which every name is hostile."
    import torch
    from mpq_nb.allocation import allocate, head
    from mpq_nb.models import Layer
    from mpq_nb.sensitivity import Scores
    d = tmp_path_factory.mktemp('r')/'run'
    d.mkdir()
    ls = tuple(Layer(f'model.layers.{b}.{k}', (64, 64), b) for b in range(4) for k in ('up_proj', EVIL.replace('.', '_'), '$x^{'))
    torch.manual_seed(0)
    loss = torch.rand(12, 2)*torch.tensor([1., .1])
    s = Scores(loss, ls, tuple((l.name,) for l in ls), ('MXFP4', 'MXFP8'), samples=loss.expand(4, 12, 2).clone(), meta=dict(model=EVIL, model_name=EVIL, tokens=EVIL, source=EVIL, method='fisher', rest_bytes=1000, version='0.1.0'))
    s.save(d/'scores.safetensors')
    allocate(s, bits=5).save(d/f'{STEM}.json'); head(s, bits=5).save(d/'head.json')
    tasks = [dict(model='quantized', task=EVIL, metric='acc', value=.5, se=.1, n=10)]
    (d/'evaluation.json').write_text(json.dumps(dict(mpq_evaluation=1, model=EVIL, by='ours', bits=5, recipe_file=f'{STEM}.json', sequences=8, text=EVIL, tokens=EVIL, tasks=tasks, of=EVIL, **numbers(),
        where=[{'confidence': '0 to 0.1', 'predictions': .4, 'kl': 1., 'se': .1, 'share of KL': .6, 'top1': .5}, {'confidence': EVIL, 'predictions': .6, 'kl': 1., 'se': .1, 'share of KL': .4, 'top1': .5}], worst=[dict(KL=3.2, before=EVIL, came='</td>' + EVIL)])))
    return d


@pytest.fixture(scope='module')
def written(folder):
    from mpq_nb.report import report
    return report(folder)


def test_every_name_is_text(written):
    html = written.read_text()
    page = Page(html).check()
    assert page.tags.count('svg') == 5
    for part in ('model', 'What was asked', 'Where it diverges', 'mpq score', 'e<b>vil"'): assert part in page.text
    assert page.text.count(EVIL) > 10
    assert "default-src 'none'" in html


def test_another_process_writes_the_same_bytes(folder, written, tmp_path):
    copy = shutil.copytree(folder, tmp_path/'run', ignore=shutil.ignore_patterns('report.html'))
    r = run(sys.executable, '-c', 'import sys; from mpq_nb.cli import main; sys.exit(main(sys.argv[1:]))', 'report', 'run', cwd=tmp_path, PYTHONHASHSEED='1', NO_COLOR='1', PYTHONIOENCODING='ascii')
    assert r.returncode == 0 and r.stdout.startswith('wrote run/report.html'), r.stderr
    html = (copy/'report.html').read_bytes()
    assert html == written.read_bytes() and str(tmp_path).encode() not in html


def cells(st, **rows):
    "Lines of a results file: {recipe @ bits: row}."
    from dataclasses import asdict
    from mpq_nb.study import cell_key
    return [json.dumps(dict(key=cell_key(st, c), **asdict(c)) | rows[f'{c.recipe}@{c.bits}'], indent=None) for c in st.cells() if f'{c.recipe}@{c.bits}' in rows]


def make_study(d, **rows):
    from dataclasses import asdict
    from mpq_nb.evaluation import TaskResults
    from mpq_nb.study import Study
    st = Study((EVIL,), ('bf16', 'uniform:MXFP4', 'head', 'ours'), (5.,), tasks=('one',), title=EVIL)
    def full(right): return numbers(kl_rows=[.2, .4], text='t', schemes=['MXFP4', 'MXFP8'], format='fake', made=dict(torch=EVIL), tasks=TaskResults({}, {'one': dict(acc=[1.]*right + [0.]*(200 - right))}, ('one',), {'one': ['one']}, {'one': 'x'}).asdict())
    (d/'study.json').write_text(json.dumps(asdict(st)))
    (d/'results.jsonl').write_text('\n'.join(cells(st, **{k: v if isinstance(v, dict) else full(v) for k, v in rows.items()})) + '\n')
    return st


def test_a_study_half_done_says_so(tmp_path):
    from mpq_nb.report import report
    make_study(tmp_path, **{'bf16@None': 150, 'uniform:MXFP4@None': 110, 'head@5.0': dict(error='InputError: ' + EVIL)})
    page = Page(report(tmp_path).read_text()).check()
    assert 'This study is not finished: 2 of 4 cells are done, 1 failed.' in page.text and '--resume' in page.text
    assert 'failed: InputError: <script>' in page.text and 'MXFP4' in page.text


def test_a_whole_study(tmp_path):
    from mpq_nb.report import report
    make_study(tmp_path, **{'bf16@None': 150, 'uniform:MXFP4@None': 110, 'head@5.0': 115, 'ours@5.0': 135})
    page = Page(report(tmp_path).read_text()).check()
    assert 'not finished' not in page.text and '67.5 % [61.0, 74.0]' in page.text
    assert 'share of the loss of MXFP4 everywhere that is won back' in page.text and '62 %' in page.text     # (135 - 110) of (150 - 110) questions


@pytest.mark.parametrize('make, says', [
    (lambda d: None, 'holds nothing to report'),
    (lambda d: (d/'table.json').write_text('{"rows": 3}'), "table.json' is not as this version"),
    (lambda d: (d/'table.json').write_text('{"rows"'), 'cannot be read as JSON'),
    (lambda d: (d/'scores.safetensors').write_bytes(b'nothing'), 'is not a whole scores file'),
    (lambda d: make_study(d, **{'bf16@None': dict(key='of another version', kl=1.)}), 'they are of another version or another study'),
    (lambda d: (d/'study.json').write_text('{"models": ["demo"]}'), 'is no study as mpq_nb'),
    (lambda d: (d/'recipe.json').write_text('{"mpq_recipe": 2, "layers": {"a": "MXFP4"}, "shapes": {"a": [1, 1]}}'), 'reads format 1'),
], ids=['empty', 'table', 'cut', 'scores', 'cells', 'study', 'recipe'])
def test_what_cannot_be_reported_is_one_line(tmp_path, capsys, make, says):
    from mpq_nb.cli import main
    make(tmp_path)
    assert main(['report', str(tmp_path)]) == 2
    err = capsys.readouterr().err.splitlines()
    assert len(err) == 1 and err[0].startswith('mpq: error: ') and says in err[0] and not (tmp_path/'report.html').exists()


def test_scores_of_another_version_are_refused(folder, tmp_path, capsys):
    from mpq_nb.cli import main
    from safetensors import safe_open
    from safetensors.torch import save_file
    with safe_open(folder/'scores.safetensors', 'pt') as f: head, t = json.loads(f.metadata()['mpq_scores']), {k: f.get_tensor(k) for k in f.keys()}
    save_file(t, tmp_path/'scores.safetensors', metadata={'mpq_scores': json.dumps(head | dict(format=2))})
    assert main(['report', str(tmp_path)]) == 2
    assert 'of format 2; this version of mpq_nb reads format 1' in capsys.readouterr().err


def test_the_wheel_has_what_is_no_python(tmp_path):
    src = tmp_path/'src'
    src.mkdir()
    for n in ('setup.py', 'settings.ini', 'README.md', 'LICENSE', 'MANIFEST.in'): shutil.copy(ROOT/n, src/n)
    shutil.copytree(ROOT/'mpq_nb', src/'mpq_nb')
    subprocess.run([sys.executable, 'setup.py', '-q', 'sdist', 'bdist_wheel'], cwd=src, check=True, capture_output=True)
    [wheel] = (src/'dist').glob('*.whl')
    apps = [p for kind in ('*.js', '*.css', '*.j2') for p in (ROOT/'mpq_nb/apps').rglob(kind)]
    assert len(apps) >= 4
    needed = {'mpq_nb/report.ipynb', *(p.relative_to(ROOT).as_posix() for p in apps)}
    assert needed <= set(zipfile.ZipFile(wheel).namelist())


@pytest.mark.browser
@pytest.mark.parametrize('width', [1280, 390])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_opens_from_disk_without_a_word(written, width, scheme):
    sync = pytest.importorskip('playwright.sync_api')
    chromium = shutil.which('chromium')
    if not chromium: pytest.skip('no chromium')
    with sync.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=chromium, args=['--no-sandbox'])
        tab, said = browser.new_context(viewport=dict(width=width, height=800), color_scheme=scheme).new_page(), []
        for event in ('console', 'pageerror', 'requestfailed', 'dialog'): tab.on(event, lambda e: said.append(str(e)))
        tab.on('request', lambda r: said.append(r.url) if not r.url.startswith(('file:', 'data:')) else None)
        tab.goto(written.as_uri())
        assert not said and tab.title().startswith('run')
        assert tab.evaluate('document.documentElement.scrollWidth') <= width      # the page itself never scrolls sideways
        dark = tab.evaluate('getComputedStyle(document.body).backgroundColor') != 'rgb(255, 255, 255)'
        assert dark == (scheme == 'dark')
        browser.close()
