"""One process that has imported an engine, and a fork of it for every cell: importing takes longer than asking.

Reads a JSON line a cell from its input: {folder, tokens, out, seconds, env}; answers each with a JSON line, {code}.
What a cell printed is in OUT.stdout and OUT.stderr."""
import json
import os
import signal
import sys
import time
import traceback


def in_this_fork(ask, job):
    "Run one cell to its end; never returns."
    for stream, number in (('stdout', 1), ('stderr', 2)):
        os.dup2(os.open(f"{job['out']}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    code = 1
    try:
        os.environ.update(job['env'])
        print('READY', flush=True)
        ask(job['folder'], job['tokens'], job['out'])
        print('RAN', flush=True)
        code = 0
    except BaseException: traceback.print_exc()
    finally:
        sys.stdout.flush(); sys.stderr.flush()
        os._exit(code)


def waited(pid, seconds):
    "The status of a fork: its exit code, minus a signal that killed it, or None if it took too long."
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        done, status = os.waitpid(pid, os.WNOHANG)
        if done: return os.waitstatus_to_exitcode(status)
        time.sleep(.1)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def serve(ask):
    "Answer cells until the input ends."
    answers = os.fdopen(os.dup(1), 'w')          # what a library prints goes elsewhere
    os.dup2(2, 1)
    for line in sys.stdin:
        job = json.loads(line)
        pid = os.fork()
        if not pid: in_this_fork(ask, job)
        print(json.dumps(dict(code=waited(pid, job['seconds']))), file=answers, flush=True)
