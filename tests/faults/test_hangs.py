"""What would be waited for without end: a process that stands still, a loader worker that died, a full /dev/shm."""

import os
import random
import re
import signal
import time

import pytest

from tests.faults.runs import SEED, TOY, Started, assert_same_end, finish, one_line_of, parent, run, script
from tests.mounts import in_own_mounts

SETTINGS = ["max_epoch=40", "print_freq=5", "save_every=5", "tensorboard=false"]
_draw = random.Random(f"{SEED} hangs")


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    finish(script(TOY, "--output_dir", folder, *SETTINGS, processes=2), folder)
    return folder


@pytest.mark.faults(
    "one of two processes stopped (SIGSTOP) at a random moment", "named in time; resumed, bitwise equal"
)
@pytest.mark.parametrize(("rank", "moment"), [(rank, round(_draw.uniform(0, 0.6), 3)) for rank in (0, 1, 0, 1)])
def test_a_process_that_stands_still(whole, tmp_path, rank, moment):
    command = script(TOY, "--output_dir", tmp_path, *SETTINGS, "timeout_minutes=0.1", processes=2)
    started = Started(command, tmp_path)
    started.wait_for((tmp_path / "checkpoint_last.pth").exists)
    time.sleep(moment)
    victim = started.rank(rank)
    os.kill(victim, signal.SIGSTOP)
    began = time.monotonic()
    status, printed = started.end(120)
    # timeout_minutes, the roll call of those that live, and torchrun's 30 s for the one that does not
    assert time.monotonic() - began < 6 + 30 + 30 + 10
    assert status == 1
    assert f"no answer from process {rank}, pid {victim} on" in one_line_of(printed, "toy.py")
    finish([*command, "--resume"], tmp_path)
    assert_same_end(whole, tmp_path)


ALONE = ["max_epoch=1", "print_freq=5", "tensorboard=false", "timeout_minutes=0.1"]


@pytest.mark.faults("the first of two processes scores alone for thrice timeout_minutes", "the other waits for it")
def test_a_process_that_scores_alone_is_waited_for(tmp_path):
    finish(script(TOY, "--output_dir", tmp_path, *ALONE, "scoring=18", processes=2), tmp_path)
    assert len((tmp_path / "log.txt").read_text().splitlines()) == 1


@pytest.mark.faults("the first of two processes stopped (SIGSTOP) while it scores alone", "named with what it scores")
def test_a_process_that_stands_still_while_it_scores_alone(tmp_path):
    started = Started(script(TOY, "--output_dir", tmp_path, *ALONE, "scoring=600", processes=2), tmp_path)
    started.wait_for((tmp_path / "checkpoint_last.pth").exists)
    time.sleep(1)
    victim = started.rank(0)
    os.kill(victim, signal.SIGSTOP)
    status, printed = started.end(120)
    assert status == 1
    line = one_line_of(printed, "toy.py")
    assert f"no answer from process 0, pid {victim} on" in line
    assert "while others waited for the scores of the toy" in line


@pytest.fixture(scope="module")
def settings(with_dropout):
    return ["--config", "configs/demo/pretrain.yaml", *with_dropout, "max_epoch=6", "batch_size=4", "queue_size=24"]


@pytest.fixture(scope="module")
def pretrained_whole(demo_folder, settings, tmp_path_factory):
    folder = tmp_path_factory.mktemp("pretrained")
    finish(script("pretrain.py", *settings, "num_workers=2", "--output_dir", folder), demo_folder)
    return folder


@pytest.mark.faults("a loader worker killed at a random moment", "one line, status 1; resumed, bitwise equal")
@pytest.mark.parametrize("moment", [round(_draw.uniform(0, 1.5), 3) for _ in range(5)])
def test_a_killed_loader_worker(demo_folder, settings, pretrained_whole, tmp_path, moment):
    command = script("pretrain.py", *settings, "num_workers=2", "save_every=3", "--output_dir", tmp_path)
    started = Started(command, demo_folder)

    def workers() -> list[int]:
        return [pid for pid in started.processes() if parent(pid) == started.process.pid]

    started.wait_for(workers)
    time.sleep(moment)
    found = workers()
    assert found, started.printed
    os.kill(_draw.choice(found), signal.SIGKILL)
    status, printed = started.end(60)
    assert status == 1
    line = one_line_of(printed, "pretrain.py")
    assert re.search(r"DataLoader worker \(pid.*lower num_workers", line)
    finish([*command, "--resume"], demo_folder)
    assert_same_end(pretrained_whole, tmp_path)


@pytest.mark.faults("a small `/dev/shm`", "one line with the remedy; resumed with more, bitwise equal")
@pytest.mark.parametrize("kilobytes", [4, 64, 128])
def test_a_small_shared_memory(demo_folder, settings, pretrained_whole, tmp_path, kilobytes):
    command = script("pretrain.py", *settings, "num_workers=2", "save_every=3", "--output_dir", tmp_path)
    mounted = f'mount -t tmpfs -o size={kilobytes}k tmpfs /dev/shm && exec "$@"'
    shell = in_own_mounts(mounted, "sh", *command)
    status, printed = run(shell, demo_folder, seconds=90, PATH=os.environ["PATH"])
    assert status == 1, printed
    assert "--shm-size" in one_line_of(printed, "pretrain.py")
    finish([*command, "--resume"], demo_folder)
    assert_same_end(pretrained_whole, tmp_path)
