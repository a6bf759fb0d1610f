"""The loop on a toy task: what a run leaves behind, accumulation, precision, the guard, and two processes as one."""

import contextlib
import json
import logging
import time

import pytest
import torch

import engine
from engine import Progress, Run, TrainConfig, log, training
from engine.step import Losses, Optimization
from settings import UserError

FAST = ["tensorboard=false", "print_freq=4"]


def weights(folder, name="checkpoint_last.pth"):
    return torch.load(folder / name, weights_only=True)["model"]


def test_a_run_leaves_its_config_log_weights_metrics_and_events(toy, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "max_epoch=2", "print_freq=4"])
    assert {path.name for path in tmp_path.iterdir() if "tfevents" not in path.name} == {
        ".lock",
        "checkpoint_best.pth",
        "checkpoint_last.pth",
        "config.yaml",
        "evaluate.txt",
        "log.txt",
    }
    assert any("tfevents" in path.name for path in tmp_path.iterdir())
    lines = [json.loads(line) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line["epoch"] for line in lines] == [0, 1]
    assert lines[0].keys() == {"epoch", "train_loss", "train_twice", "train_grad_norm", "train_lr", "score"}
    assert lines[0]["train_twice"] == pytest.approx(2 * lines[0]["train_loss"])
    assert lines[0]["train_lr"] == 0.05
    assert lines[1]["train_lr"] == pytest.approx(0.025)
    assert json.loads((tmp_path / "evaluate.txt").read_text()) == {"score": lines[1]["score"]}
    best = torch.load(tmp_path / "checkpoint_best.pth", weights_only=True)
    assert best["epoch"] == max((0, 1), key=lambda epoch: lines[epoch]["score"])
    assert best["config"]["batch_size"] == 4
    assert best["metrics"]["score"] == lines[best["epoch"]]["score"]


def test_checkpoints_hold_what_a_model_says_of_itself_and_only_fitting_weights_are_resumed(toy, tmp_path, monkeypatch):
    class Speaking(toy.Model):
        words = ("ein", "hund")

        def describe(self):
            return {"words": list(self.words)}

        def check_weights(self, checkpoint, source):
            if checkpoint["architecture"] != self.describe():
                raise UserError(f"{source} is of another language")

    monkeypatch.setattr(toy, "Model", Speaking)
    arguments = ["--output_dir", str(tmp_path), *FAST]
    toy.main([*arguments, "max_epoch=1"])
    for name in ("checkpoint_last.pth", "checkpoint_best.pth"):
        assert torch.load(tmp_path / name, weights_only=True)["architecture"] == {"words": ["ein", "hund"]}
    toy.main([*arguments, "max_epoch=2", "--resume"])
    monkeypatch.setattr(Speaking, "words", ("un", "chien"))
    with pytest.raises(SystemExit, match=r"checkpoint_last.pth is of another language"):
        toy.main([*arguments, "max_epoch=3", "--resume"])


def test_a_metric_that_is_no_number_is_shown_and_chooses_no_weights(toy, tmp_path, monkeypatch, capsys):
    scores = iter([1.0, float("nan")])
    monkeypatch.setattr(toy, "evaluate", lambda model: {"score": next(scores)})
    toy.main(["--output_dir", str(tmp_path), "max_epoch=2", *FAST])
    assert torch.load(tmp_path / "checkpoint_best.pth", weights_only=True)["epoch"] == 0
    lines = [json.loads(line, parse_constant=pytest.fail) for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert [line["score"] for line in lines] == [1.0, None]
    assert json.loads((tmp_path / "evaluate.txt").read_text()) == {"score": None}
    shown = capsys.readouterr().out
    assert "evaluation: score nan" in shown
    assert "score is nan after epoch 1: its weights are not the best" in shown


def test_evaluation_alone_leaves_the_training_untouched(toy, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", *FAST])
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    toy.main(["--output_dir", str(tmp_path), "--evaluate", "max_epoch=9", *FAST])
    after = {path.name: path.read_bytes() for path in tmp_path.iterdir() if path.name != ".lock"}
    assert after.pop("evaluate.txt") != before.pop("evaluate.txt")
    assert after == before


def test_evaluation_does_not_change_the_training(toy, tmp_path, monkeypatch):
    toy.main(["--output_dir", str(tmp_path / "with"), "max_epoch=2", *FAST])
    monkeypatch.setattr(toy, "evaluate", lambda model: {"score": 0.0})
    toy.main(["--output_dir", str(tmp_path / "without"), "max_epoch=2", *FAST])
    assert torch.equal(weights(tmp_path / "with")["linear.weight"], weights(tmp_path / "without")["linear.weight"])


def test_accumulated_batches_equal_one_large_batch(toy, tmp_path):
    common = ["dropout=0.0", "max_epoch=2", *FAST]
    toy.main(["--output_dir", str(tmp_path / "large"), "batch_size=8", *common])
    toy.main(["--output_dir", str(tmp_path / "small"), "batch_size=4", "accumulation_steps=2", *common])
    for name in ("linear.weight", "linear.bias"):
        torch.testing.assert_close(weights(tmp_path / "large")[name], weights(tmp_path / "small")[name])
    logs = [json.loads((tmp_path / name / "log.txt").read_text().splitlines()[-1]) for name in ("large", "small")]
    assert logs[0]["train_loss"] == pytest.approx(logs[1]["train_loss"], rel=1e-5)


def test_two_processes_train_as_one_on_the_same_global_batch(toy, torchrun, tmp_path):
    common = ["dropout=0.0", "max_epoch=2", *FAST]
    toy.main(["--output_dir", str(tmp_path / "one"), "batch_size=8", *common])
    result = torchrun(2, "--output_dir", tmp_path / "two", "batch_size=4", *common)
    assert result.returncode == 0, result.stderr
    for line_of_one, line_of_two in zip(*((tmp_path / n / "log.txt").open() for n in ("one", "two")), strict=True):
        assert json.loads(line_of_two) == pytest.approx(json.loads(line_of_one), abs=1e-5)


def test_two_processes_that_accumulate_train_as_one_on_the_same_global_batch(toy, torchrun, tmp_path):
    common = ["dropout=0.0", "max_epoch=2", *FAST]
    toy.main(["--output_dir", str(tmp_path / "one"), "batch_size=8", *common])
    torchrun(2, "--output_dir", tmp_path / "two", "batch_size=2", "accumulation_steps=2", *common)
    for name in ("linear.weight", "linear.bias"):
        torch.testing.assert_close(weights(tmp_path / "two")[name], weights(tmp_path / "one")[name])


def test_no_batch_is_read_that_no_step_uses(toy, tmp_path, monkeypatch):
    read, indices = [], toy.TrainSampler.indices

    def noted(self, start_batch=0):
        for batch in indices(self, start_batch):
            read.append((self.epoch, start_batch))
            yield batch

    monkeypatch.setattr(toy.TrainSampler, "indices", noted)
    settings = ["accumulation_steps=5", "num_workers=1", *FAST]  # 12 batches an epoch: two steps, and two batches more
    toy.main(["--output_dir", str(tmp_path), "max_epoch=2", *settings])
    assert read == [(0, 0)] * 10 + [(1, 0)] * 10
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["step"] == 4


def test_more_accumulation_than_batches_is_an_error(toy, tmp_path):
    with pytest.raises(SystemExit, match=r"48 samples, fewer than one step takes .*, accumulation_steps 13\)"):
        toy.main(["--output_dir", str(tmp_path), "accumulation_steps=13", *FAST])


def test_clipping_bounds_the_step_and_the_log_keeps_the_norm(toy, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "clip_grad_norm=1e-9", "weight_decay=0.0", "max_epoch=1", *FAST])
    assert json.loads((tmp_path / "log.txt").read_text())["train_grad_norm"] > 1


@pytest.mark.parametrize("precision", ["bf16", "fp16", "fp32"])
def test_every_precision_learns(toy, tmp_path, precision):
    toy.main(["--output_dir", str(tmp_path), f"precision={precision}", "max_epoch=4", *FAST])
    losses = [json.loads(line)["train_loss"] for line in (tmp_path / "log.txt").read_text().splitlines()]
    assert losses[-1] < losses[0]
    assert weights(tmp_path)["linear.weight"].dtype == torch.float32


def poisoned_step(toy, config_seed=42, sample=7):
    order = toy.shuffled(48, (config_seed, 0)).tolist()
    return order.index(sample) // 4


@pytest.mark.parametrize("options", [["print_freq=1"], ["print_freq=50"], ["precision=fp16"], ["accumulation_steps=2"]])
def test_a_loss_that_is_not_finite_stops_before_the_weights_are_touched(toy, tmp_path, monkeypatch, options):
    trained = {}
    monkeypatch.setattr(toy, "Model", lambda dropout, make=toy.Model: trained.setdefault("model", make(dropout)))
    steps = []
    update = torch.optim.AdamW.step

    def note(self, *arguments, **keywords):
        if any(parameter is trained["model"].linear.weight for parameter in self.param_groups[0]["params"]):
            steps.append(trained["model"].linear.weight.detach().clone())  # as they are before each update
        return update(self, *arguments, **keywords)

    monkeypatch.setattr(torch.optim.AdamW, "step", note)
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), "poison=7", *FAST, *options])
    step = poisoned_step(toy) // (2 if "accumulation_steps=2" in options else 1)
    assert isinstance(stopped.value.__cause__, engine.NotFinite)
    message = str(stopped.value)
    assert f"step {step}:" in message
    assert "sample7.jpg" in message
    assert "loss=inf" in message or "loss=nan" in message
    assert trained["model"].linear.weight.isfinite().all()
    assert torch.equal(trained["model"].linear.weight, steps[step])
    assert not (tmp_path / "checkpoint_last.pth").exists()


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_an_infinite_loss_whose_gradient_is_finite_touches_no_weights_either(toy, tmp_path, monkeypatch, precision):
    seen = []

    def train_step(config, last, model, batch, progress):
        seen.append(model.linear.weight.detach().clone())
        return {"loss": model(batch["x"], batch["y"]) + (torch.inf if progress.step == 9 else 0)}

    monkeypatch.setattr(toy, "train_step", train_step)
    with pytest.raises(SystemExit, match="step 9: the loss or its gradient is not finite"):
        toy.main(["--output_dir", str(tmp_path), f"precision={precision}", "tensorboard=false", "print_freq=12"])
    assert len(seen) == 12
    assert not torch.equal(seen[8], seen[9])
    assert torch.equal(seen[10], seen[9])
    assert torch.equal(seen[11], seen[9])


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32"])
@pytest.mark.parametrize("heeded", [True, False])
def test_the_guard_holds_where_a_fused_optimizer_does_not_heed_what_the_device_says(
    tmp_path, monkeypatch, precision, heeded
):
    """As on Apple's GPUs before torch 2.13."""
    if not heeded:
        fused = torch._fused_adamw_
        monkeypatch.setattr(torch, "_fused_adamw_", lambda *lists, found_inf=None, **options: fused(*lists, **options))
    run = Run(TrainConfig(precision=precision), tmp_path, torch.device("cpu"), 0, 0, 1, False, None)
    model = torch.nn.Linear(3, 1)
    optimization = Optimization(run, model, lambda model, batch, progress: {"loss": model(batch["x"]).mean()})
    assert optimization.skips_on_device is heeded
    weights, told = [model.weight.detach().clone()], []
    for step, value in enumerate((1.0, 1.0, 1.0, torch.inf, 1.0)):  # fp16 scales down in the first steps
        output = optimization.step([{"x": torch.full((2, 3), value)}], Progress(0, step, 3, step), 1e-2)
        weights.append(model.weight.detach().clone())
        told.append(output["broken"].item())
    assert told == [0.0, 0.0, 0.0, 1.0, 1.0]
    assert not torch.equal(weights[0], weights[3])
    assert torch.equal(weights[3], weights[4])
    assert torch.equal(weights[3], weights[5])


def test_the_process_with_the_bad_loss_is_the_one_that_is_named(toy, torchrun, tmp_path):
    result = torchrun(2, "--output_dir", tmp_path, "poison=7", *FAST)
    assert result.returncode != 0
    place = toy.shuffled(48, (42, 0)).tolist().index(7)
    assert f"step {place // 8}: the loss" in result.stderr
    before, _, files = result.stderr.partition("files:\n")
    assert f"process {place // 4 % 2}: loss=" in before.splitlines()[-1]
    assert "sample7.jpg" in files.splitlines()[0]


def test_figures_that_a_person_reads_are_in_the_lines(toy, tmp_path, capsys):
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", *FAST])
    line = next(line for line in capsys.readouterr().out.splitlines() if "epoch 0 [8/12]" in line)
    for part in ("loss ", "lr 0.05", "samples/s", "MFU ", "memory ", "data wait ", "ETA "):
        assert part in line


def test_no_step_reads_a_value_from_the_device_and_reports_do(toy, tmp_path, monkeypatch):
    fetched = []
    fetch, step = Losses.fetch, Optimization.step
    monkeypatch.setattr(Losses, "fetch", lambda self, own: fetched.append(1) or fetch(self, own))

    def guarded(self, *arguments):
        with monkeypatch.context() as inside:
            for name in ("item", "cpu", "tolist", "numpy", "__bool__", "__float__"):
                inside.setattr(torch.Tensor, name, lambda *_: pytest.fail("a step read a value from the device"))
            return step(self, *arguments)

    monkeypatch.setattr(Optimization, "step", guarded)
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", "print_freq=5", "tensorboard=false"])
    assert len(fetched) == 3  # after 5, 10 and 12 steps


def test_a_metric_that_evaluation_does_not_return_is_named(toy, tmp_path, monkeypatch):
    monkeypatch.setattr(toy, "evaluate", lambda model: {"other": 1.0})
    with pytest.raises(KeyError, match="score.*other"):
        toy.main(["--output_dir", str(tmp_path), "max_epoch=1", *FAST])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["batch_sise=3"], "the nearest valid key is 'batch_size'"),
        (["--config", "nowhere.yaml"], "no such config file"),
        (["--device", "tpu9"], "--device tpu9: unknown"),
        (["--evaluate", "--resume"], "give it with --checkpoint"),
    ],
)
def test_a_mistake_on_the_command_line_ends_with_one_line(toy, tmp_path, arguments, message):
    with pytest.raises(SystemExit) as stopped:
        toy.main(["--output_dir", str(tmp_path), *arguments])
    assert message in str(stopped.value)


def test_overrides_may_stand_anywhere_even_after_resume(toy, tmp_path):
    toy.main(
        ["max_epoch=1", "--output_dir", str(tmp_path), "tensorboard=false", "--resume", "batch_size=6", "--seed", "3"]
    )
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["config"]["batch_size"] == 6


def test_the_checkpoint_flag_is_the_pretrained_key(toy, tmp_path):
    toy.main(["--output_dir", str(tmp_path), "--checkpoint", "a: b.pth", "max_epoch=1", *FAST])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["config"]["pretrained"] == "a: b.pth"


def test_a_run_leaves_no_handler_behind(toy, tmp_path):
    before = list(logging.getLogger("blip").handlers)
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", *FAST])
    assert logging.getLogger("blip").handlers == before


@pytest.mark.parametrize("accumulated", [1, 2])
def test_the_operations_of_the_first_step_are_counted(toy, tmp_path, monkeypatch, accumulated):
    counted = []
    close = training.Training.close
    note = lambda self: counted.append(self.speed.flops_per_step) or close(self)  # noqa: E731
    monkeypatch.setattr(training.Training, "close", note)
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", f"accumulation_steps={accumulated}", *FAST])
    # forward 2*4*6, backward for the weight the same; the inputs need no gradient
    assert counted == [96 * accumulated]


def test_a_resumed_run_counts_no_operations_again(toy, tmp_path, monkeypatch):
    """Compiled blocks are not used while operations are counted, and would round in another way than before."""
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", *FAST])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["flops_per_step"] == 96
    monkeypatch.delattr(training, "ModelFlops")
    toy.main(["--output_dir", str(tmp_path), "max_epoch=2", *FAST, "--resume"])
    assert torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)["flops_per_step"] == 96


def test_neither_counting_operations_nor_measuring_the_peak_changes_a_training(toy, tmp_path, monkeypatch):
    toy.main(["--output_dir", str(tmp_path / "with"), "max_epoch=1", *FAST])
    monkeypatch.setattr(training.Training, "_count_flops", lambda self: contextlib.nullcontext())
    monkeypatch.setattr(training.Training, "_peak", lambda self: 1e9)
    toy.main(["--output_dir", str(tmp_path / "without"), "max_epoch=1", *FAST])
    one, two = (torch.load(tmp_path / name / "checkpoint_last.pth") for name in ("with", "without"))
    assert all(torch.equal(tensor, two["model"][name]) for name, tensor in one["model"].items())
    assert torch.equal(one["rng"][0]["torch"], two["rng"][0]["torch"])


def test_mfu_is_the_share_of_the_peak(monkeypatch):
    now = iter([100.0, 104.0, 104.0])
    monkeypatch.setattr(time, "perf_counter", lambda: next(now))
    speed = log.Speed(torch.device("cpu"), 8, peak=1e9)
    speed.flops_per_step = 500_000_000
    speed.count_step()
    speed.count_step()
    assert speed.report()["mfu"] == pytest.approx(2 * 0.5 / 4 / 1)


def test_the_config_is_that_of_the_last_evaluation_unless_a_training_lies_there(toy, tmp_path):
    def noted() -> str:
        return (tmp_path / "config.yaml").read_text()

    for dropout in ("0.1", "0.2"):
        toy.main(["--output_dir", str(tmp_path), "--evaluate", f"dropout={dropout}"])
        assert f"dropout: {dropout}" in noted()
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", "dropout=0.4", *FAST])
    (tmp_path / "checkpoint_last.pth").unlink()
    toy.main(["--output_dir", str(tmp_path), "--evaluate", "dropout=0.5"])
    assert "dropout: 0.4" in noted()


@pytest.mark.parametrize("resumed", [False, True])
def test_weights_that_are_not_finite_at_the_start_are_named_and_no_batch_is_blamed(toy, tmp_path, monkeypatch, resumed):
    command, source = ["--output_dir", str(tmp_path), *FAST, "max_epoch=1", "pretrained=weights.pth"], "weights.pth"
    if resumed:
        toy.main(command)
        source = str(tmp_path / "checkpoint_last.pth")
        state = torch.load(source, weights_only=True)
        state["model"]["linear.bias"].fill_(torch.nan)
        torch.save(state, source)
        command += ["--resume"]
    else:

        class Broken(toy.Model):
            def __init__(self, dropout):
                super().__init__(dropout)
                torch.nn.init.constant_(self.linear.bias, torch.inf)

        monkeypatch.setattr(toy, "Model", Broken)
    with pytest.raises(SystemExit) as stopped:
        toy.main(command)
    assert stopped.value.code.endswith(f": the weights of {source} are not finite: keys linear.bias")
