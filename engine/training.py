"""The state of a training: the steps of an epoch, what is logged of them, and the checkpoints that hold it."""

import contextlib
import dataclasses
import logging
import math
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import torch
from torch import nn

from engine import checkpoint
from engine.background import BackgroundSaver
from engine.config import TrainConfig
from engine.data_wait import DataWait
from engine.device import matrix_product_rate, precision_of
from engine.distributed import barrier, gather_objects, presence, waiting_for
from engine.log import Events, ProgressDisplay, Speed, status_line
from engine.preemption import PREEMPTED, Interrupted, Preemption
from engine.progress import Described, Loader, Progress, Schedule, TrainStep
from engine.randomness import rng_state, set_rng_state, set_seed
from engine.run import Run
from engine.step import Losses, Optimization
from engine.straggler import OwnTimes, slowest
from files import without_secrets
from models.library_internals import ModelFlops
from models.weights.integrity import check_finite
from settings import ConfigError

logger = logging.getLogger("blip.engine")

BEST = "checkpoint_best.pth"  # weights of the epoch with the best metric so far


class Training:
    """The state of a training, which checkpoints hold, and the steps of an epoch."""

    def __init__(
        self, run: Run[TrainConfig], model: nn.Module, loader: Loader, train_step: TrainStep, schedule: Schedule
    ) -> None:
        self.run, self.config, self.loader, self.schedule = run, run.config, loader, schedule
        self.model = model.to(run.device)
        self.optimization = Optimization(run, model, train_step)
        if self.config.shard_optimizer and run.world_size == 1:
            logger.info("shard_optimizer changes nothing: there is one process only")
        self.losses = Losses()
        self.epoch = self.index = self.step = 0  # running epoch; steps done in it; steps done in all
        self.best = float("-inf")
        self.lr = 0.0
        self.speed = Speed(run.device, self._samples_per_step, self._peak() if run.is_first else None)
        set_seed(run.seed + run.rank)  # from here on processes differ, in their dropout for one
        if run.resume_from is not None:
            self._resume(run.resume_from)
        # Weights that no training can start from are named here, rather than the first batch blamed for them.
        source = run.resume_from or getattr(run.config, "pretrained", "") or "this model, as it is made anew,"
        check_finite(self.model.state_dict().items(), source)
        self.events = Events(run.output_dir, dataclasses.asdict(run.config), self.step, run.is_first)
        self.preemption = Preemption()
        self.saver = BackgroundSaver(run.device)
        # Whether a straggler is named: not at the first report, as counting operations slows its step.
        self.compares = False

    @property
    def _samples_per_step(self) -> int:
        return self.loader.batch_size * self.config.accumulation_steps * self.run.world_size

    def _peak(self) -> float:
        """What MFU is a share of: the FLOP/s of matrix products on this device in the precision of training."""
        dtype = precision_of(self.config.precision, self.run.device)
        rate = matrix_product_rate(self.run.device, dtype)
        what = str(dtype).removeprefix("torch."), self.run.device, rate / 1e12
        logger.info("matrix products in %s on %s reach %.3g TFLOP/s, of which MFU is the share", *what)
        return rate

    def train_epoch(self) -> None:
        """Do the steps of the epoch that are not done yet, and save a checkpoint after the last."""
        accumulated = self.config.accumulation_steps
        self.loader.set_epoch(self.epoch, self.index * accumulated, accumulated)
        steps = len(self.loader) // accumulated
        batches = iter(self.loader)
        self.model.train()
        display = ProgressDisplay(f"epoch {self.epoch}", steps, self.index, self.run.is_first)
        data_wait = DataWait(self.loader.num_workers, self.index)
        self.speed.restart()
        while self.index < steps:
            progress = Progress(self.epoch, self.index, steps, self.step)
            began, counts = time.perf_counter(), self.loader.state_dict()
            try:
                with self.preemption.awaiting_batch(), waiting_for(f"its batch of step {self.step}"):
                    group = [next(batches) for _ in range(accumulated)]
            except Interrupted:
                self._stop_without_batch(display, steps, counts)
            self.speed.waited += time.perf_counter() - began
            self.lr = self.schedule(progress)
            with self._count_flops(), waiting_for(f"the gradients of step {self.step}"):
                values = self.optimization.step(group, progress, self.lr)
            self.losses.add(self.step, values, [file for batch in group for file in batch.get("files", [])])
            self.optimization.recorder.drop_finite()
            self.index += 1
            self.step += 1
            self.speed.count_step()
            display.advance()
            if self.saver.failed:  # all processes stop after the same step; then the first says why, in _save
                self.preemption.request()
            self.saver.tell()
            stop = self.preemption.agreed()
            save = stop or self.index == steps or (self.config.save_every and self.step % self.config.save_every == 0)
            if save or self.index % self.config.print_freq == 0:
                speed = self._report(display, steps)
                if self.run.is_first and (advice := data_wait.advice(self.index, speed)):
                    logger.warning(advice)
            if save:
                self._save()
                self.speed.restart()
                stop = self.preemption.settle()
            if stop:
                self._stop()
        display.close()

    def _stop_without_batch(self, display: ProgressDisplay, steps: int, counts: dict[str, Any]) -> NoReturn:
        """End by a signal before a step whose batch did not come; `counts` are the loader's before that step."""
        if self.run.world_size == 1:
            if self.speed.steps:
                self._report(display, steps)
            self._save(counts)
            self._stop()
        else:  # the others may be in the midst of this step: nothing can be exchanged any more
            logger.warning(
                "no batch came within %g s of the signal to stop: ended before step %d, without saving; "
                "go on with --resume",
                *(self.preemption.PATIENCE, self.step),
            )
        raise SystemExit(PREEMPTED)

    def _stop(self) -> NoReturn:
        """End by a signal, once the checkpoint of this step is whole."""
        if self.run.is_first:
            logger.info("after a signal, the checkpoint of step %d is written: %s", self.step, self.saver.forecast())
        self.finish_writing()
        waited = self.preemption.seconds
        done = "stopped by a signal after step %d, its checkpoint whole %.1f s after the signal; go on with --resume"
        logger.warning(done, self.step, waited)
        self.preemption.await_own_signal()
        raise SystemExit(PREEMPTED)

    @contextlib.contextmanager
    def _count_flops(self) -> Iterator[None]:
        """Count the floating-point operations of the first step inside, for MFU; of a compiled step nothing is seen."""
        if not self.run.is_first or self.speed.flops_per_step:
            yield
            return
        with ModelFlops() as counter, torch.compiler.set_stance("force_eager"):
            yield
        self.speed.flops_per_step = counter.total

    def _report(self, display: ProgressDisplay, steps: int) -> dict[str, float]:
        """Show the losses and the speed since the last report; returns the speed."""
        with self.optimization.recorder.replayable(self.model), waiting_for(f"the losses before step {self.step}"):
            losses = self.losses.fetch(self._own_times)
        speed = self.speed.report()
        self._name_straggler()
        left = (self.config.max_epoch - self.epoch) * steps - self.index
        display.report(self.index, status_line(losses, speed, self.lr), left * speed["s_per_step"])
        self.events.write({**losses, **speed, "lr": self.lr}, self.step)
        return speed

    def _own_times(self) -> OwnTimes:
        """Seconds a step since the last report that this process waited for its data, and that it computed."""
        return self.speed.waited_a_step(), self.optimization.own_time.take() / max(self.speed.steps, 1)

    def _name_straggler(self) -> None:
        """Log, on the first process, which process holds up the others, if one does."""
        here, judged, self.compares = presence(), self.compares, True
        if here is not None and self.run.is_first and judged and (found := slowest(self.losses.own_times)):
            logger.warning("%s is the slowest: %s", here.place(found[0]), found[1])

    def next_epoch(self) -> None:
        self.epoch += 1
        self.index = 0
        self.losses = Losses()

    @contextlib.contextmanager
    def state_saved(self) -> Iterator[None]:
        """For what follows a checkpoint (an evaluation): inside, a signal ends the process at once."""
        self.finish_writing()
        self.preemption.state_is_saved = True
        if self.preemption.received:
            raise SystemExit(PREEMPTED)
        yield
        # Nobody trains on before the first has copied its weights: a signal until then would end only that one.
        barrier("the weights of the epoch")
        self.preemption.state_is_saved = False

    def keep_weights(self, metrics: dict[str, float], best: str | None) -> None:
        """Write this epoch's weights: always if `best` is None, else if the metric `best` is the highest so far."""
        if best is None:
            self._write_weights(f"checkpoint_{self.epoch:02d}.pth", metrics)
        elif best not in metrics:
            raise KeyError(
                f"the best weights are chosen by {best}, which is not among the metrics: {', '.join(metrics)}"
            )
        elif not math.isfinite(metrics[best]):
            logger.warning("%s is %g after epoch %d: its weights are not the best", best, metrics[best], self.epoch)
        elif metrics[best] > self.best:
            self.best = metrics[best]
            self._write_weights(BEST, metrics)

    def _write_weights(self, name: str, metrics: dict[str, float]) -> None:
        """Have the weights written in the background. The next checkpoint waits, so that none is without them."""
        self.saver.wait()
        state = {**self.saver.copy(self._model_state()), "epoch": self.epoch, "metrics": metrics}
        self.saver.write(partial(checkpoint.save, self.run.output_dir / name, state))

    def _model_state(self) -> dict[str, Any]:
        """The weights, and what it takes to use them."""
        state = {"model": self.model.state_dict(), "config": dataclasses.asdict(self.config)}
        return {**state, "architecture": self.model.describe()} if isinstance(self.model, Described) else state

    def _save(self, counts: dict[str, Any] | None = None) -> None:
        """Have `checkpoint_last.pth` written in the background, once the checkpoint before it is whole.

        Args:
            counts: the loader's state, where it has read batches of a step that is not done.
        """
        self.saver.wait()
        what = f"the checkpoint of step {self.step}"
        rng = gather_objects([rng_state()], what)
        loaders = gather_objects([self.loader.state_dict() if counts is None else counts], what)
        optimization = self.optimization.state_dict(self.saver.copy)
        if self.run.is_first:
            counted = {
                "epoch": self.epoch,
                "step": self.step,
                "samples": self.index * self._samples_per_step,
                "lr": self.lr,
                "losses": self.losses.state_dict(),
                "best": self.best,
                "flops_per_step": self.speed.flops_per_step,
                "rng": rng,
                "loaders": loaders,
            }
            state = {**self.saver.copy(self._model_state()), **optimization, **self.saver.copy(counted)}
            folder, keep = self.run.output_dir, self.config.keep_checkpoints
            self.saver.write(partial(checkpoint.save_last, folder, state, keep))

    def finish_writing(self) -> None:
        """Wait, on every process, until what the first one writes is whole; else it would be taken for dead."""
        self.saver.wait()
        self.saver.tell()
        barrier(f"the checkpoint of step {self.step}")

    def _resume(self, path: Path) -> None:
        state = checkpoint.load(path)
        for key, value in dataclasses.asdict(self.config).items():
            before = state["config"].get(key)
            if value != before:
                was, now = without_secrets(repr(before)), without_secrets(repr(value))
                logger.warning("%s was %s when %s was written, and is %s now", key, was, path, now)
        if isinstance(self.model, Described):
            self.model.check_weights(state, str(path))
        try:
            self.model.load_state_dict(state["model"])
        except (RuntimeError, TypeError, AttributeError) as error:
            raise ConfigError(f"{path} holds another model than the config describes: {error}") from None
        with checkpoint.reading(path, "optimizer"):
            self.optimization.load_state_dict(state)
        with checkpoint.reading(path, "loaders"):
            self.loader.load_state_dicts(state["loaders"])
        with checkpoint.reading(path, "losses"):
            self.losses.load_state_dict(state["losses"])
        self.epoch, self.step, self.best, self.lr = state["epoch"], state["step"], state["best"], state["lr"]
        if not (self.run.output_dir / BEST).exists():  # left in another folder: the best from here on is kept here
            self.best = float("-inf")
        self.index, again = divmod(state["samples"], self._samples_per_step)
        if again:  # only where global_batch_size changed
            logger.warning("steps begin elsewhere now: %d samples of this epoch are taken a second time", again)
        if len(state["rng"]) == self.run.world_size:
            with checkpoint.reading(path, "rng"):
                set_rng_state(state["rng"][self.run.rank])
            # Counted once in a run: compiled blocks are not used while they are, and round in another way.
            with checkpoint.reading(path, "flops_per_step"):
                self.speed.flops_per_step = int(state.get("flops_per_step", 0))
        else:
            set_seed(self.run.seed + self.run.rank + self.step)
            logger.warning(
                "%s was written by %d process(es), this run has %d: it goes on at the same sample, with the same "
                "samples in a step; not bitwise equal, since dropout differs",
                *(path, len(state["rng"]), self.run.world_size),
            )
        logger.info("resumed from %s: epoch %d, step %d", path, self.epoch, self.step)

    def close(self) -> None:
        self.preemption.restore()
        self.saver.close()  # first: another run may take the folder once this one has ended
        self.events.close()
