"""A run that loses a machine goes on with the other, and takes a new one in when it comes."""

import json
import socket
from pathlib import Path

import pytest
import torch

from tests.faults.runs import TOY, Started, finish, script, sys

SETTINGS = ["samples=480", "max_epoch=10", "dropout=0.0", "save_every=5", "print_freq=20", "tensorboard=false"]


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("localhost", 0))
        return listener.getsockname()[1]


def launcher(port: int, folder: Path) -> Started:
    """One machine's launcher, of one or two, that starts one process; impatient, so that the test is short."""
    patience = "last_call_timeout=1,keep_alive_interval=1,keep_alive_max_attempt=3"
    options = ["--nnodes=1:2", "--nproc_per_node=1", "--max-restarts=3", "--local-addr=localhost"]
    meeting = ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{port}", "--rdzv_id=7", f"--rdzv_conf={patience}"]
    command = [sys.executable, "-m", "torch.distributed.run", *options, *meeting, TOY, "--output_dir", folder / "run"]
    command += [*SETTINGS, "batch_size=4", "global_batch_size=8", f"slow_until={folder / 'hurry'}", "--resume"]
    return Started([str(part) for part in command], folder, TORCH_DISABLE_SHARE_RDZV_TCP_STORE="1")


def processes_and_step(folder: Path) -> tuple[int, int]:
    """How many processes wrote the last checkpoint, and after which step."""
    path = folder / "run" / "checkpoint_last.pth"
    state = torch.load(path, weights_only=True) if path.exists() else {"rng": [], "step": 0}
    return len(state["rng"]), state["step"]


@pytest.mark.faults("a machine lost, another one taken in (torchrun --nnodes=1:2)", "weights equal within 1e-5")
def test_two_machines_one_and_two_again(tmp_path):
    finish(script(TOY, "--output_dir", tmp_path / "whole", *SETTINGS, "batch_size=8"), tmp_path)
    port = free_port()
    first, lost = launcher(port, tmp_path), launcher(port, tmp_path)
    first.wait_for(lambda: processes_and_step(tmp_path)[0] == 2)
    lost.kill()
    _, step = first.wait_for(lambda: (found := processes_and_step(tmp_path))[0] == 1 and found)
    other = launcher(port, tmp_path)
    first.wait_for(lambda: (found := processes_and_step(tmp_path))[0] == 2 and found[1] > step)
    (restarts,) = {
        variables["TORCHELASTIC_RESTART_COUNT"] for variables in first.processes().values() if "RANK" in variables
    }
    assert restarts == "1"  # for the machine that was lost; none for the one that came
    (tmp_path / "hurry").touch()
    for machine in (first, other):
        status, printed = machine.end()
        assert status == 0, printed
    weights = [
        torch.load(tmp_path / name / "checkpoint_last.pth", weights_only=True)["model"] for name in ("whole", "run")
    ]
    for name in ("linear.weight", "linear.bias"):
        torch.testing.assert_close(weights[1][name], weights[0][name], rtol=0, atol=1e-5)
    logs = [[json.loads(line) for line in (tmp_path / name / "log.txt").open()] for name in ("whole", "run")]
    assert [line["epoch"] for line in logs[1]] == list(range(10))
    for whole, elastic in zip(*logs, strict=True):
        assert elastic == pytest.approx(whole, abs=1e-4)
