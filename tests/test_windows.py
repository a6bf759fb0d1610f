"""What Windows lacks is asked for before it is used: everywhere but in the tests and measurements."""

import ast
import math
import os
import re
import signal
import sys
from pathlib import Path

import pytest
import torch

from data.remote.stage import Staging
from data.workers import usable_processors
from engine.log import peak_memory
from files import REPOSITORY
from tests.engine import toy

LACKED = {
    "os": "fork getuid geteuid getgid getpgid killpg setsid pread pwrite sched_getaffinity sched_setaffinity uname "
    "statvfs sysconf getloadavg nice chown mkfifo posix_fadvise wait register_at_fork sync sendfile O_NONBLOCK "
    "O_CLOEXEC O_NOCTTY O_DIRECTORY O_NOFOLLOW",
    "signal": "pthread_kill pthread_sigmask alarm setitimer siginterrupt sigwait SIGUSR1 SIGUSR2 SIGHUP SIGKILL "
    "SIGALRM SIGSTOP SIGCONT SIGCHLD SIGQUIT SIGBUS SIGPIPE",
}
NO_MODULES = ("fcntl", "resource", "pwd", "grp", "termios")


def unguarded(source):
    """(line, name) of what Windows lacks, where neither `hasattr` nor `try` stands around it."""
    found = []

    def visit(node, is_guarded):
        if isinstance(node, ast.Try):
            is_guarded = True
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and not is_guarded:
            module = node.value.id
            if node.attr in LACKED.get(module, "").split():
                found.append((node.lineno, f"{module}.{node.attr}"))
        if isinstance(node, ast.Import | ast.ImportFrom) and not is_guarded:
            names = [node.module] if isinstance(node, ast.ImportFrom) else [name.name for name in node.names]
            found.extend((node.lineno, name) for name in names if name in NO_MODULES)
        asks = isinstance(node, ast.If | ast.IfExp) and "hasattr(" in ast.unparse(node.test)
        for field, value in ast.iter_fields(node):
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    visit(child, is_guarded or (asks and field == "body"))

    visit(ast.parse(source), False)
    return found


def test_what_windows_lacks_is_asked_for_first():
    names = re.compile(rf"\b({'|'.join([*' '.join(LACKED.values()).split(), *NO_MODULES])})\b")
    sources = {
        str(file.relative_to(REPOSITORY)): file.read_text(encoding="utf-8")
        for file in [*REPOSITORY.glob("*.py"), *REPOSITORY.glob("[!.]*/**/*.py")]
        if file.relative_to(REPOSITORY).parts[0] not in ("tests", "benchmarks")
    }
    found = {file: unguarded(source) for file, source in sources.items() if names.search(source)}
    assert {"engine/preemption.py", "engine/lock.py", "data/remote/stage.py"} <= {
        Path(file).as_posix() for file in found
    }
    assert {file: uses for file, uses in found.items() if uses} == {}


def test_what_is_not_asked_for_is_found():
    assert unguarded("import os\nos.getuid()\nimport fcntl") == [(2, "os.getuid"), (3, "fcntl")]
    assert unguarded("x = os.getuid() if hasattr(os, 'getuid') else os.getuid()") == [(1, "os.getuid")]
    assert unguarded("try:\n    import fcntl\n    os.fork()\nexcept ImportError:\n    pass") == []


@pytest.fixture
def windows(monkeypatch, tmp_path):
    """This process without what Windows lacks, as far as we use it; pytest makes its folder before."""
    del tmp_path
    for module, names in ((os, ("getuid", "pread", "sched_getaffinity")), (signal, ("pthread_kill", "SIGUSR1"))):
        for name in names:
            monkeypatch.delattr(module, name, raising=False)
    for name in NO_MODULES:
        monkeypatch.setitem(sys.modules, name, None)


@pytest.mark.usefixtures("windows")
def test_one_process_trains_and_resumes(tmp_path, monkeypatch):
    monkeypatch.setattr("engine.preemption.Preemption.SIGNALS", [signal.SIGTERM])
    for epochs in ("max_epoch=1", "max_epoch=2"):
        toy.main(["--output_dir", str(tmp_path), "--device", "cpu", "--resume", epochs])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 24


@pytest.mark.usefixtures("windows")
def test_what_windows_does_not_tell_is_done_without(monkeypatch, tmp_path):
    monkeypatch.setenv("USERNAME", "ada")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert Staging().path() == tmp_path / "blip-staged-ada"
    assert usable_processors() <= math.ceil(os.cpu_count() or 1)
    assert peak_memory(torch.device("cpu")) == 0
