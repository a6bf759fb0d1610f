"""One of two processes of a pre-training dies without warning; resumed, it ends as one that nothing befell."""

import random
import signal
import time
from pathlib import Path

import pytest

from tests.faults.runs import SEED, Started, assert_same_end, finish, os, script

_draw = random.Random(f"{SEED} kills")
MOMENTS = [(rank, round(_draw.uniform(0.02, 0.95), 3)) for rank in (0, 1) * 7]
WRITES = sorted(_draw.sample(range(1, 30), 6))  # of 30 checkpoints


@pytest.fixture(scope="module")
def settings(with_dropout):
    sizes = ["max_epoch=6", "batch_size=4", "queue_size=24"]
    common = ["num_workers=1", "save_every=1", "print_freq=3", "tensorboard=false"]
    return ["--config", "configs/demo/pretrain.yaml", *with_dropout, *sizes, *common]


@pytest.fixture(scope="module")
def whole(demo_folder, settings, tmp_path_factory) -> tuple[Path, float]:
    """A run that nothing befalls, and the seconds from its config to its last file."""
    folder = tmp_path_factory.mktemp("whole")
    finish(script("pretrain.py", *settings, "--output_dir", folder, processes=2), demo_folder)
    times = [path.stat().st_mtime for path in folder.iterdir() if path.name != ".lock"]
    return folder, max(times) - min(times)


def begin(folder: Path, demo_folder: Path, settings: list[str]) -> Started:
    run = Started(script("pretrain.py", *settings, "--output_dir", folder, processes=2), demo_folder)
    run.wait_for((folder / "config.yaml").exists)
    return run


@pytest.mark.faults("one of two processes killed (`kill -9`) at a random moment, resumed", "weights bitwise equal")
@pytest.mark.parametrize(("rank", "moment"), MOMENTS)
def test_killed_at_a_random_moment(demo_folder, settings, whole, tmp_path, rank, moment):
    folder, seconds = whole
    for attempt in range(4):  # a machine that now is faster than before may have finished by then
        killed = tmp_path / str(attempt)
        run = begin(killed, demo_folder, settings)
        victim = run.rank(rank)
        time.sleep(moment * seconds / 2**attempt)
        if run.process.poll() is None:
            os.kill(victim, signal.SIGKILL)
            status, printed = run.end()
            if "SIGKILL" in printed:
                break
    assert status == 1
    finish(script("pretrain.py", *settings, "--output_dir", killed, "--resume", processes=2), demo_folder)
    assert_same_end(folder, killed)


@pytest.mark.faults("the first of two processes killed while it writes a checkpoint, resumed", "weights bitwise equal")
@pytest.mark.parametrize("write", WRITES)
def test_killed_while_a_checkpoint_is_written(demo_folder, settings, whole, tmp_path, write):
    run = begin(tmp_path, demo_folder, settings)
    victim, seen = run.rank(0), set()

    def half_written() -> list[Path]:
        found = list(tmp_path.glob(".????????.checkpoint_*.pth"))
        seen.update(found)
        return found if len(seen) >= write else []

    while True:
        (half,) = run.wait_for(half_written)
        os.kill(victim, signal.SIGSTOP)
        time.sleep(0.01)
        if half.exists():
            break
        os.kill(victim, signal.SIGCONT)
    os.kill(victim, signal.SIGKILL)
    status, printed = run.end()
    assert (status, half.exists()) == (1, True), printed
    finish(script("pretrain.py", *settings, "--output_dir", tmp_path, "--resume", processes=2), demo_folder)
    assert_same_end(whole[0], tmp_path)
