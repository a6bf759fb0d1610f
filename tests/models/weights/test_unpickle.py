"""The command that a refused pickle suggests: it works for any file name, in any shell, and runs nothing else."""

import argparse
import os
import re
import subprocess
import sys

import pytest
import torch

from models.weights.files import read_state
from models.weights.integrity import CheckpointError

NASTY = [
    "plain.pth",
    "two words.pth",
    "$(touch ran).pth",
    "`touch ran`.pth",
    "a'; touch ran; '.pth",
    'a"; touch ran; ".pth',
    "a'\"; import os; os.mkdir('ran')#.pth",
    "!ran !!.pth",
    "-rf.pth",
    "a\\nb\\.pth",
    "a\nb; touch ran\n.pth",
    "\x1b[31m\r\x03%41.pth",
    "ü 汉.pth",
    "\udcff\udc80.pth",
    "%41 100%.pth",
    "*?[a].pth",
    "~ & | > ran.pth",
]

# Stands for Python with torch, whose import takes seconds: writes down which file torch.load would be called with.
STAND_IN = """#!{executable} -S
import os, sys
from urllib.parse import unquote_to_bytes

code = sys.argv[2]
sys.argv = ["-c", *sys.argv[3:]]
name = eval(code.split("torch.load(")[1].split(", map_location")[0])
open("{told}", "wb").write(os.fsencode(name))
"""


@pytest.mark.parametrize("name", NASTY, ids=range(len(NASTY)))
def test_the_suggested_command_is_safe_to_paste(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with open(name, "wb") as file:  # torch itself refuses some of the names
        torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, file)
    before = os.listdir(os.fsencode(tmp_path))
    with pytest.raises(CheckpointError) as caught:
        read_state(name if name[0] != "~" else f"./{name}")
    first, command = str(caught.value).split("\n")  # one line each, whatever the name
    assert "is refused: its pickle holds argparse.Namespace besides tensors" in first
    assert command.isprintable()

    (tmp_path / "bin").mkdir()
    told = tmp_path / "bin" / "told"
    (tmp_path / "bin" / "python").write_text(STAND_IN.format(executable=sys.executable, told=told))
    (tmp_path / "bin" / "python").chmod(0o755)
    for shell in ("sh", "bash"):
        told.unlink(missing_ok=True)
        path = f"{tmp_path / 'bin'}:{os.environ['PATH']}"
        subprocess.run([shell, "-c", command], check=True, env={**os.environ, "PATH": path})
        assert os.path.samefile(told.read_bytes(), os.fsencode(name))
    assert sorted(os.listdir(os.fsencode(tmp_path))) == sorted([*before, b"bin"])


def test_the_suggested_command_keeps_the_weights_and_overwrites_nothing(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    name = "it's $(touch ran).pth"
    torch.save({"model": {"a": torch.ones(2)}, "args": argparse.Namespace(lr=1)}, name)
    with pytest.raises(CheckpointError) as caught:
        read_state(name)
    command = re.sub("^ *python", sys.executable, str(caught.value).split("\n")[1])
    assert subprocess.run(["sh", "-c", command], check=False).returncode == 0
    assert read_state("only_weights.pth")[0]["a"].tolist() == [1, 1]
    assert '"only_weights.pth", "xb"' in command  # which fails where there is such a file
    assert sorted(os.listdir()) == [name, "only_weights.pth"]
