"""Ctrl-C ends every command with one line and the status that shells give it."""

import os
import signal
import subprocess
import sys

from files import REPOSITORY

PROGRAM = """
import os, signal
from settings.flags import Parser
from settings.interrupts import exit_at_once_in_imports
if {imports}:
    exit_at_once_in_imports()
    import greedy
Parser().parse_args()
try:
    os.kill(os.getpid(), signal.SIGINT)
finally:
    print("tidied up", flush=True)
"""
GREEDY = "import os, signal\ntry:\n    os.kill(os.getpid(), signal.SIGINT)\nexcept BaseException:\n    pass\n"
"""A module that swallows every exception while it is imported, as torch does."""


def run(folder, imports, *arguments, handler=signal.SIG_DFL):
    (folder / "greedy.py").write_text(GREEDY)
    (folder / "program.py").write_text(PROGRAM.format(imports=imports))
    return subprocess.run(
        [sys.executable, *(arguments or ["program.py"])],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{REPOSITORY}{os.pathsep}{folder}"},
        preexec_fn=lambda: signal.signal(signal.SIGINT, handler),
        capture_output=True,
        text=True,
        check=False,
    )


def test_what_runs_is_tidied_up_and_one_line_says_why_it_ended(tmp_path):
    done = run(tmp_path, False)
    assert (done.stdout, done.stderr) == ("tidied up\n", "program.py: interrupted\n")
    assert done.returncode == -signal.SIGINT, "so that a shell's loop ends, too; it shows 130"


def test_a_module_is_called_by_its_name(tmp_path):
    assert run(tmp_path, False, "-m", "program").stderr == "program: interrupted\n"


def test_an_import_that_swallows_exceptions_does_not_hold_it_up(tmp_path):
    done = run(tmp_path, True)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "program.py: interrupted\n")


def test_a_background_job_goes_on(tmp_path):
    done = run(tmp_path, False, handler=signal.SIG_IGN)
    assert (done.returncode, done.stdout, done.stderr) == (0, "tidied up\n", "")
