"""A training step of a script, against the textbook way on the same weights."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import engine
from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.textbook.step import Losses, TextbookStep, on_device
from engine.progress import TrainStep
from engine.step import Optimization

# In the midst of a training, where the share of the momentum models' similarities has reached its highest.
PROGRESS = engine.Progress(epoch=3, index=0, steps=100, step=300)


def single_run(
    config: engine.TrainConfig, folder: Path, device: torch.device, resume_from: Path | None = None
) -> engine.Run[engine.TrainConfig]:
    """A run of one process, as `engine.start` makes it of a command line and a YAML."""
    return engine.Run(
        config, folder, device, seed=0, rank=0, world_size=1, evaluate_only=False, resume_from=resume_from
    )


class OurStep:
    """A step of the engine, as a script's run does it, of which only the loop around it is missing."""

    def __init__(self, context: Context, config: engine.TrainConfig, model: nn.Module, train_step: TrainStep) -> None:
        self.model, self.train_step, self.lr = model, train_step, config.init_lr
        self.run = single_run(config, context.folder, context.device)
        self.optimization = Optimization(self.run, model, train_step)

    def forward(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """The losses of a batch as the loader gives it: uint8 images, on the host."""
        with self.run.autocast(self.run.config.precision):
            return self.train_step(self.model, on_device(batch, self.run.device), PROGRESS)

    def __call__(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on a batch; its losses."""
        losses = self.optimization.step([batch], PROGRESS, self.lr)
        self.optimization.recorder.drop_finite()
        return losses


Step = OurStep | TextbookStep


@dataclass
class TrainingSide:
    """A script's model with its step and a batch, on the device."""

    context: Context
    config: Any
    model: nn.Module
    train_step: TrainStep
    batch: dict[str, Any]
    samples: int

    def ours(self) -> OurStep:
        """A step of the engine, with an optimizer of its own."""
        return OurStep(self.context, self.config, self.model, self.train_step)

    def textbook(self, losses: Losses, model: nn.Module | None = None) -> TextbookStep:
        """A textbook step of the same model, or of another one, with an optimizer of its own."""
        return TextbookStep(
            self.model if model is None else model,
            losses,
            self.context.device,
            self.context.dtype,
            self.config.init_lr,
            self.config.weight_decay,
        )


def set_up(
    context: Context,
    config: Any,
    build_model: Callable[[Any], nn.Module],
    train_step: TrainStep,
    batch: dict[str, Any],
    samples: int,
) -> TrainingSide:
    """Build a script's model on the device, in training mode."""
    torch.manual_seed(0)
    with context.device:
        model = build_model(config)
    if context.device.type == "cuda":
        batch = {name: x.pin_memory() if isinstance(x, Tensor) else x for name, x in batch.items()}
    return TrainingSide(context, config, model.train(), train_step, batch, samples)


def compare_steps(
    name: str, what: str, unit: str, side: TrainingSide, steps: Mapping[str, Step], warm_up: int = 0
) -> Comparison:
    """Training steps on the batch of `side`, by name, ours first. They may train the same model."""

    def way(step: Step) -> Callable[[], None]:
        def call() -> None:
            step(side.batch)
            step.model.zero_grad(set_to_none=True)  # so that the gradients of one way are not in the memory of the next

        return call

    def differences() -> dict[str, dict[str, float]]:
        (_, ours), *others = steps.items()
        expected, state = _forward(ours, side.batch)
        found: dict[str, dict[str, float]] = {}
        for other, step in others:
            losses, other_state = _forward(step, side.batch)
            found[other] = {key: abs(losses[key] - expected[key]) for key in losses}
            if state and state.keys() == other_state.keys():
                moved = (state[key] - other_state[key] for key in state)
                found[other]["momentum copies and queues"] = max(x.abs().max().item() for x in moved)
        return found

    return Comparison(
        name=name,
        what=what,
        unit=unit,
        samples=dict.fromkeys(steps, side.samples),
        ways={key: way(step) for key, step in steps.items()},
        differences=differences,
        warm_up=warm_up,
    )


def _forward(step: Step, batch: dict[str, Any]) -> tuple[dict[str, float], dict[str, Tensor]]:
    """The losses without dropout, with the likeliest negatives, and what the forward pass changed; all is put back."""
    before = {key: value.clone() for key, value in step.model.state_dict().items()}
    step.model.eval()
    eager = torch.compiler.set_stance("force_eager")
    with eager, torch.no_grad(), mock.patch("torch.multinomial", _most_probable):
        losses = {key: value.item() for key, value in step.forward(batch).items() if key.startswith("loss")}
    after = step.model.state_dict()
    changed = {key: after[key].float().clone() for key in after if "_m." in key or "queue" in key}
    step.model.load_state_dict(before)
    step.model.train()
    return losses, changed


def _most_probable(weights: Tensor, num_samples: int, *_: Any, **__: Any) -> Tensor:
    """In place of `torch.multinomial`, whose draws depend on how many rows are drawn for at once."""
    assert num_samples == 1
    return weights.argmax(dim=-1, keepdim=True)
