"The front ends' scripts, read by a node: each is JavaScript, and loads nothing."
import re
import shutil
import subprocess

import pytest
from conftest import ROOT

SCRIPTS = sorted((ROOT/'mpq_nb').rglob('*.js'))


def test_there_are_scripts(): assert SCRIPTS


@pytest.mark.skipif(not shutil.which('node'), reason='no node: apt-get install nodejs')
@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.name)
def test_node_reads_it(path):
    check = ['node', '--check', '--input-type=module', '-']
    r = subprocess.run(check, input=path.read_text(), text=True, capture_output=True)
    assert r.returncode == 0, r.stderr


@pytest.mark.parametrize('path', SCRIPTS, ids=lambda p: p.name)
def test_it_loads_nothing_and_parses_no_html(path):
    source = path.read_text()
    assert not re.search(r'\bimport\b|\bfetch\(|innerHTML|outerHTML|\beval\(', source)
