"""Pre-training end to end on a small world, its schedule, and that each loss can be driven down."""

import json
import os
import random
import signal
import subprocess
import sys
import tarfile
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import engine
import pretrain
from engine import Progress
from files import REPOSITORY
from settings import ConfigError, load_config
from transform.image import TrainTransform

CONFIG = "configs/demo/pretrain.yaml"


def read(*overrides):
    return load_config(pretrain.Config, CONFIG, overrides)


def test_an_epoch_leaves_weights_and_all_losses(pretrained):
    folder = pretrained.parent
    line = json.loads((folder / "log.txt").read_text())
    for name in ("loss", "loss_ita", "loss_itm", "loss_lm", "itm_accuracy_match", "itm_accuracy_mismatch", "lr"):
        assert f"train_{name}" in line
    assert line["train_loss"] == pytest.approx(
        line["train_loss_ita"] + line["train_loss_itm"] + line["train_loss_lm"], rel=1e-5
    )
    state = torch.load(pretrained, weights_only=True)
    assert state["epoch"] == 0
    assert {"visual_encoder_m.cls_token", "image_queue", "text_decoder.cls.predictions.bias"} <= set(state["model"])


def test_two_processes_pre_train(torchrun_script, tmp_path, quick):
    torchrun_script(
        2, "pretrain.py", "--config", CONFIG, "--output_dir", tmp_path, *quick, "max_epoch=1", "batch_size=4"
    )
    state = torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)
    assert state["step"] == 42 // 8
    assert int(state["model"]["queue_ptr"]) == 5 * 8  # the features of both processes


def test_shards_are_read_as_the_config_names_them(in_demo_folder, quick, tmp_path):
    pairs = json.loads((in_demo_folder / "output/demo/web/pretrain.json").read_text())
    for shard in range(2):
        with tarfile.open(tmp_path / f"{shard:05d}.tar", "w") as tar:
            for number, pair in enumerate(pairs[8 * shard : 8 * shard + 8]):
                tar.add(in_demo_folder / "output/demo/web/images" / pair["image"], f"{number:03d}.jpg")
                (tmp_path / "caption.txt").write_text(pair["caption"])
                tar.add(tmp_path / "caption.txt", f"{number:03d}.txt")
    arguments = ["--config", CONFIG, *quick, "train_file=[]", "max_epoch=1", "batch_size=4", "--output_dir"]
    shards = f"shards=['{tmp_path}/{{00000..00001}}.tar']"
    pretrain.main([*arguments, str(tmp_path / "run"), shards])
    assert torch.load(tmp_path / "run" / "checkpoint_last.pth", weights_only=True)["step"] == 16 // 4
    with pytest.raises(SystemExit, match="shard_lanes = 3: every lane reads shards of its own, and there are 2"):
        pretrain.main([*arguments, str(tmp_path / "lanes"), shards, "shard_lanes=3"])
    with pytest.raises(SystemExit, match="no shard .*00002.tar"):
        pretrain.main([*arguments, str(tmp_path / "none"), f"shards=['{tmp_path}/00002.tar']"])
    staged = [f"stage_dir={tmp_path}/stage", f"shards=['file://{tmp_path}/{{00000..00001}}.tar']"]
    pretrain.main([*arguments, str(tmp_path / "staged"), *staged])
    weights, others = (
        torch.load(tmp_path / run / "checkpoint_last.pth", weights_only=True)["model"] for run in ("run", "staged")
    )
    assert all(torch.equal(weights[name], others[name]) for name in weights)
    with pytest.raises(SystemExit, match="stage_gib = 1e-06: batches are drawn from up to 2 shards at a time"):
        pretrain.main([*arguments, str(tmp_path / "small"), *staged, "stage_gib=1e-6"])


def test_parquet_files_and_a_list_of_uids_are_read_as_the_config_names_them(in_demo_folder, quick, tmp_path):
    pairs = json.loads((in_demo_folder / "output/demo/web/pretrain.json").read_text())
    pictures = [(in_demo_folder / "output/demo/web/images" / pair["image"]).read_bytes() for pair in pairs[:12]]
    texts = [pair["caption"] for pair in pairs[:12]]
    columns = {"jpg": pictures, "TEXT": texts, "uid": [f"{n:032x}" for n in range(12)]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    pq.write_table(
        pa.table({"image": [f"a.parquet/row {n}" for n in range(1, 5)], "caption": texts[:4]}), tmp_path / "b.parquet"
    )
    np.save(tmp_path / "uids.npy", np.array([(0, n) for n in range(4, 12)], "u8,u8"))
    keys = [f"train_file=['{tmp_path}/b.parquet']", f"image_root={tmp_path}", f"shards=['{tmp_path}/a.parquet']"]
    arguments = ["--config", CONFIG, *quick, "max_epoch=1", "batch_size=4", *keys, f"uids={tmp_path}/uids.npy"]
    pretrain.main([*arguments, "--output_dir", str(tmp_path / "run")])
    assert torch.load(tmp_path / "run" / "checkpoint_last.pth", weights_only=True)["step"] == (4 + 8) // 4


def test_the_rate_rises_along_a_line_then_falls_with_each_epoch(facts):
    config = load_config(pretrain.Config, "configs/pretrain.yaml")
    rate = partial(pretrain.schedule, config)
    recorded = facts("lr_schedules/expected.json")
    for step, lr in zip(recorded["warmup"][0]["steps"], recorded["warmup"][0]["lr"], strict=True):
        assert rate(Progress(0, step, 10_000, step)) == pytest.approx(lr, rel=1e-12)
    for epoch, lr in zip(recorded["step"][0]["epochs"], recorded["step"][0]["lr"], strict=True):
        assert rate(Progress(epoch, 0, 10_000, 10_000 * (epoch + 1))) == pytest.approx(lr, rel=1e-12)


def test_alpha_is_reached_after_two_epochs():
    seen = []

    class Model(pretrain.BLIPPretrain):
        def __init__(self):
            torch.nn.Module.__init__(self)
            self.statistics = {}

        def forward(self, image, caption, alpha, *, update_momentum):
            seen.append(alpha)
            return (torch.zeros(()),) * 3

    batch = {"image": torch.zeros(1, 3, 4, 4, dtype=torch.uint8), "caption": ["a"]}
    for progress in (Progress(0, 0, 10, 0), Progress(0, 5, 10, 5), Progress(1, 5, 10, 15), Progress(7, 0, 10, 70)):
        pretrain.train_step(read(), Model(), batch, progress)
    assert seen == pytest.approx([0.0, 0.1, 0.3, 0.4])


def test_every_loss_of_one_batch_can_be_driven_down(in_demo_folder, quick, overfit):
    config = read(*quick)
    model = pretrain.blip_pretrain(embed_dim=64, queue_size=64, **config.architecture())
    dataset = pretrain.PretrainDataset(
        config.annotations("train"), TrainTransform(64, 0.2), image_root=config.image_root
    )
    batch = dataset.collate([dataset[0, i] for i in range(8)])
    first, last = overfit(model, batch, partial(pretrain.train_step, config), steps=300)
    assert last["loss_lm"] < 0.6 * first["loss_lm"]
    assert last["loss_itm"] < 0.7 * first["loss_itm"]
    assert last["loss_ita"] < 0.7 * first["loss_ita"]


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("initialize=true", "initialize = True: must be false for vit"),
        ("alpha=1.5", "alpha = 1.5: must be from 0 to 1"),
        ("warmup_lr=1", "warmup_lr = 1.0: must be from 0 to init_lr"),
        ("lr_decay_rate=0.0", "lr_decay_rate = 0.0: must be above 0"),
    ],
)
def test_impossible_values_are_refused(override, message):
    with pytest.raises(ConfigError, match=message):
        read(override)


def with_dropout(quick):
    """A model whose steps draw random numbers, which a resumed run must draw again."""
    vit, med_config, size = quick
    assert "dropout_prob: 0.0" in med_config
    return [vit, med_config.replace("dropout_prob: 0.0", "dropout_prob: 0.1"), size]


def test_stopped_in_the_middle_and_resumed_equals_uninterrupted(in_demo_folder, quick, tmp_path, monkeypatch):
    batches = ["batch_size=4", "accumulation_steps=2", "num_workers=1"]
    arguments = ["--config", CONFIG, *with_dropout(quick), "max_epoch=2", *batches]
    pretrain.main([*arguments, "--output_dir", str(tmp_path / "whole")])

    train_step = pretrain.train_step

    def interrupted(config, model, batch, progress):
        if (progress.step, progress.batch) == (7, 1):
            os.kill(os.getpid(), signal.SIGTERM)
        return train_step(config, model, batch, progress)

    monkeypatch.setattr(pretrain, "train_step", interrupted)
    with pytest.raises(SystemExit):
        pretrain.main([*arguments, "--output_dir", str(tmp_path / "stopped")])
    monkeypatch.setattr(pretrain, "train_step", train_step)
    pretrain.main([*arguments, "--output_dir", str(tmp_path / "stopped"), "--resume"])
    whole, stopped = (
        torch.load(tmp_path / folder / "checkpoint_01.pth", weights_only=True)["model"]
        for folder in ("whole", "stopped")
    )
    assert all(torch.equal(tensor, stopped[name]) for name, tensor in whole.items())  # queues and copies too


def test_two_processes_killed_and_resumed_equal_uninterrupted(demo_folder, quick, tmp_path):
    """Once all are killed and started again with --resume, once one is and torchrun starts all again by itself."""
    settings = [*with_dropout(quick), "max_epoch=2", "batch_size=4", "queue_size=24", "num_workers=1", "save_every=3"]
    step = random.Random(20221201).randrange(5, 10)  # of ten; the checkpoint of the first epoch is whole

    def run(name, *, killed="", restarts=0, resume=()):
        launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node=2", f"--max-restarts={restarts}"]
        script = [str(REPOSITORY / "tests" / "killed_pretrain.py"), "--config", CONFIG, *settings]
        environment = {"KILLED": killed, "STEP": str(step), "OMP_NUM_THREADS": "1", "PYTHONPATH": str(REPOSITORY)}
        return subprocess.run(
            [sys.executable, *launcher, *script, "--output_dir", str(tmp_path / name), *resume],
            cwd=demo_folder,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )

    assert run("whole").returncode == 0
    assert "SIGKILL" in run("resumed", killed="0 1").stderr
    assert torch.load(tmp_path / "resumed" / "checkpoint_last.pth", weights_only=True)["step"] in range(1, step + 1)
    for result in (run("resumed", resume=["--resume"]), run("restarted", killed="1", restarts=1)):
        assert result.returncode == 0, result.stderr
        assert "resumed from" in result.stdout
    whole, *others = (
        torch.load(tmp_path / name / "checkpoint_last.pth", weights_only=True)
        for name in ("whole", "resumed", "restarted")
    )
    assert whole["step"] == 10
    assert int(whole["model"]["queue_ptr"]) == 10 * 8 % 24
    for other in others:
        assert all(torch.equal(tensor, other["model"][name]) for name, tensor in whole["model"].items())
        for number, moments in whole["optimizer"]["state"].items():
            assert all(torch.equal(moments[name], other["optimizer"]["state"][number][name]) for name in moments)
        assert other["losses"] == whole["losses"]
        assert other["loaders"] == whole["loaders"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGUSR1])
def test_a_signal_to_all_processes_of_a_job_saves_and_exits_with_its_status(demo_folder, quick, tmp_path, number):
    script = [sys.executable, str(REPOSITORY / "pretrain.py"), "--config", CONFIG, "--output_dir", str(tmp_path)]
    run = subprocess.Popen(
        [*script, *quick, "max_epoch=1000", "batch_size=8", "num_workers=2", "print_freq=1"],
        cwd=demo_folder,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,  # its process group is the run and its loader workers
    )
    for line in run.stdout:
        if "epoch 1 [2/" in line:
            os.killpg(run.pid, number)
            break
    assert "stopped by a signal" in run.stdout.read()
    assert run.wait(timeout=60) == engine.PREEMPTED
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] >= 7
