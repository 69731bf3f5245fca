"What `mpq` prints: in a terminal, in a pipe, without colours, without UTF-8, in 60 columns."
import os
import pty
import re
import subprocess
import sys

import pytest
from conftest import mpq

from mpq_nb.apps.cli import commands

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


TABLES_OF = {('score', 'method'): ['methods'], ('score', 'groups'): ['groupings'], ('score', 'engine'): ['simulated'],
             ('score', 'rounding'): ['roundings'], ('score', 'dtype'): ['dtypes'],
             ('allocate', 'groups'): ['groupings'], ('allocate', 'format'): ['formats'], ('allocate', 'engine'): ['engines', 'platforms'], ('allocate', 'by'): ['kinds'],
             ('quantize', 'format'): ['formats'], ('quantize', 'schemes'): ['formats', 'schemes of a format'],
             ('quantize', 'engine'): ['engines', 'engine of a format'], ('quantize', 'dtype'): ['dtypes'],
             ('evaluate', 'engine'): ['simulated'], ('evaluate', 'dtype'): ['dtypes'],
             ('study', 'study'): ['studies'], ('study', 'dtype'): ['dtypes'], ('completion', 'shell'): ['shells'],
             ('engines', 'name'): ['engines', 'platforms'], ('engines', 'formats'): ['formats']}

def arguments(command):
    "{argument: its help} of a command, before and after the tables are put in."
    from mpq_nb import cli
    p = commands.subparsers_of(cli.parser())[command]
    raw = {a.dest: a.help for a in p._actions}
    p.format_help()
    return raw, {a.dest: a.help for a in p._actions}


def names_in(text, names): return [n for n in names if re.search(rf'(?<![\w-]){re.escape(n)}(?![\w-])', text)]


@pytest.mark.parametrize('command, argument', TABLES_OF, ids='-'.join)
def test_help_names_every_row_of_its_tables(command, argument):
    "An engine, method or format that is added is in the help of every option that takes it."
    _, filled = arguments(command)
    for table in TABLES_OF[command, argument]:
        rows = list(commands.table_rows(table))
        assert names_in(filled[argument], rows) == rows, table


def test_every_command_fills_its_help():
    from mpq_nb import cli
    for command in cli.COMMANDS:
        raw, filled = arguments(command)
        used = {a: re.findall(r'\{([^}]+)\}', h) for a, h in raw.items()}
        assert {t for ts in used.values() for t in ts} <= set(commands.TABLES)
        assert not any('{' in h for h in filled.values())
        for a, ts in used.items(): assert not ts or set(ts) <= set(TABLES_OF[command, a]), (command, a)


def test_no_help_lists_a_table_by_hand():
    "Two names of a table in a comment are a list that somebody will forget; one is an example."
    from mpq_nb import cli
    for command in cli.COMMANDS:
        raw, _ = arguments(command)
        for table in commands.TABLES:
            names = [n.partition(':')[0] for n in commands.table_rows(table)]
            for a, h in raw.items():
                by_hand = re.sub(r'\{[^}]+\}|\(default: [^)]*\)$', '', h)
                assert len(names_in(by_hand, names)) < 2, (command, a, table)


def test_kinds_of_checkpoint_are_no_files_of_formats(capsys):
    from mpq_nb.cli import main
    assert main(['engines', 'vllm', '--check', '--formats', 'nonsense']) == 2
    assert "'nonsense'" in capsys.readouterr().err


def test_an_engine_that_is_added_is_in_the_help(monkeypatch):
    from mpq_nb.core import engines
    monkeypatch.setattr(engines, 'ENGINES', (*engines.ENGINES, 'exllama'))
    for command in ('allocate', 'quantize'): assert 'exllama' in arguments(command)[1]['engine']


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
