"What `mpq` prints: in a terminal, in a pipe, without colours, without UTF-8, in 60 columns."
import os
import pty
import re
import subprocess
import sys

import pytest
from conftest import mpq

TABLE = '''
import pandas as pd
from mpq_nb.apps.terminal import show, set_streams
set_streams()
show(['first', pd.DataFrame(dict(recipe=['ours @ 5', 'tail @ 5'], KL=['0.398 ± 0.015', '0.878 ± 0.019'], share=[.25, .75]))])
'''
WIDE = "import pandas as pd\nfrom mpq_nb.cli import show\nshow([pd.DataFrame({f'column{i}': ['a-long-word-in-it'] for i in range(6)})])"


def terminal(*args, columns=60, **env):
    "What a command writes into a terminal of so many columns."
    here, there = pty.openpty()
    e = {k: v for k, v in os.environ.items() if k not in ('NO_COLOR', 'FORCE_COLOR')} | dict(COLUMNS=str(columns), TERM='xterm-256color') | env
    with subprocess.Popen([str(a) for a in args], stdin=there, stdout=there, stderr=there, env=e, close_fds=True):
        os.close(there)
        out = b''
        while True:
            try: got = os.read(here, 65536)
            except OSError: break     # the other end is closed
            if not got: break
            out += got
    os.close(here)
    return out.decode().replace('\r\n', '\n')


def plain(text): return re.sub(r'\x1b\[[\d;]*m', '', text)


def test_a_table_is_drawn_in_a_terminal():
    out = terminal(sys.executable, '-c', TABLE)
    assert '───' in out and '0.398 ± 0.015' in out and max(map(len, plain(out).splitlines())) <= 60
    assert '\x1b[3' not in terminal(sys.executable, '-c', TABLE, NO_COLOR='1')     # 30 to 39: colours


def test_without_utf8_it_is_ascii():
    out = terminal(sys.executable, '-c', TABLE, PYTHONIOENCODING='ascii')
    assert out.isascii() and '0.398 +/- 0.015' in out


def test_a_table_that_is_too_wide_becomes_a_list():
    out = plain(terminal(sys.executable, '-c', WIDE))
    assert 'column3: a-long-word-in-it' in out.splitlines() and max(map(len, out.splitlines())) <= 60


def test_in_a_pipe_it_is_plain_text():
    out = subprocess.run([sys.executable, '-c', TABLE], capture_output=True, text=True).stdout
    assert out.splitlines()[0] == 'first' and '\x1b' not in out and '─' not in out and len(out.splitlines()) == 4


def test_help_is_one_screen_and_teaches_the_flow():
    r = mpq('--help', COLUMNS='80', PYTHONIOENCODING='ascii')
    lines = r.stdout.splitlines()
    assert r.returncode == 0 and len(lines) <= 40 and max(map(len, lines)) <= 90
    at = [r.stdout.index(f'mpq {c} ') for c in ('score', 'allocate', 'evaluate', 'quantize', 'report')]
    assert at == sorted(at)
    assert mpq(COLUMNS='80', PYTHONIOENCODING='ascii').stdout == r.stdout     # and so it is without a word


def test_help_keeps_to_a_narrow_terminal():
    for words in (['--help'], ['quantize', '--help']):
        told = mpq(*words, COLUMNS='60').stdout.partition('\nexamples:')[0].partition('\nthe flow:')[0].splitlines()
        assert max(map(len, told)) <= 60


@pytest.mark.parametrize('line, says', [
    ('alocate s.safetensors', "there is no command 'alocate'; did you mean allocate?"),
    ('allocate s.safetensors --bist 5', 'unrecognized arguments: --bist 5; did you mean --bits?'),
    ('allocate', 'the following arguments are required: SCORES (mpq allocate --help)'),
    ('allocate s.safetensors --bits five', "argument --bits: invalid float value: 'five'"),
])
def test_a_typing_error_is_one_line_with_what_was_meant(capsys, line, says):
    from mpq_nb.cli import main
    with pytest.raises(SystemExit) as e: main(line.split())
    err = capsys.readouterr().err
    assert e.value.code == 2 and err.count('\n') == 1 and err.startswith('mpq: error: ') and says in err


def test_errors_are_red_in_a_terminal_unless_colours_are_unwanted():
    exe = [sys.executable, '-c', 'from mpq_nb.cli import main; main(["alocate"])']
    assert '\x1b[1;31mmpq: error:\x1b[0m' in terminal(*exe)
    assert '\x1b' not in terminal(*exe, NO_COLOR='1')


def test_completion_knows_commands_options_and_files():
    script = mpq('completion', 'bash').stdout
    ask = lambda *words: subprocess.run(['bash', '-c', f"{script}\nCOMP_WORDS=({' '.join(words)}); COMP_CWORD={len(words) - 1}; _shtab_mpq; echo ${{COMPREPLY[@]}}"], capture_output=True, text=True).stdout.split()
    assert ask('mpq', 'al') == ['allocate'] and ask('mpq', 'allocate', '--at') == ['--at-least']
    assert '#compdef mpq' in mpq('completion', 'zsh').stdout


def test_a_reader_that_leaves_is_no_error():
    main = f'"{sys.executable}" -c "from mpq_nb.cli import main; raise SystemExit(main([\'completion\', \'bash\']))"'
    r = subprocess.run(['bash', '-c', f'exec 3>&1; (sleep .5; {main}; echo $? >&3) | true'], capture_output=True, text=True)
    assert r.stdout.strip() == '141' and 'BrokenPipe' not in r.stderr
