"""`--replay`: does a step again whose loss or gradient was not finite, and names where that begins."""

import dataclasses
import logging
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from engine import checkpoint
from engine.config import TrainConfig
from engine.progress import Progress, TrainStep
from engine.randomness import set_rng_state
from engine.run import Run
from engine.step import Optimization
from engine.step_record import NotFinite, process_file, report
from models.weights.integrity import verify_zip
from settings import ConfigError, UserError

logger = logging.getLogger("blip.engine")


def replay(run: Run[TrainConfig], path: Path, model: nn.Module, train_step: TrainStep) -> None:
    """Do the step that `StepRecorder` wrote down again, for each process of that run in turn; changes no file.

    Raises NotFinite, where something is not finite again, with the samples and the place where it begins.
    """
    model.to(run.device).train()
    written = _WrittenStep(path, model)
    guilty: list[tuple[bool, str]] = []
    for rank, batches in enumerate(written.batches):
        written.restore(rank)
        # Compiled layers call no hooks, and to clip by a norm that is NaN makes every gradient NaN.
        config = dataclasses.replace(run.config, compile=False, clip_grad_norm=None, precision=written.precision)
        with Watch(model) as watch:
            optimization = Optimization(dataclasses.replace(run, config=config), model, watch.watched(train_step))
            output = optimization.step(batches, written.progress, written.lr)
        values = {name: float(value) for name, value in output.items()}
        is_broken = values.pop("broken") > 0
        text = report(rank, values, [file for batch in batches for file in batch.get("files", [])])
        logger.info("%s", text)
        if is_broken:
            guilty.append((math.isfinite(values["loss"]), f"{text}\n    {watch.finding(values)}"))
    step = written.progress.step
    if not guilty:
        logger.info("step %d, replayed on %s: the loss and its gradient are finite here", step, run.device)
        return
    named = [text for finite, text in guilty if not finite] or [text for _, text in guilty]
    raise NotFinite(f"step {step}, replayed: the loss or its gradient is not finite.\n  " + "\n  ".join(named))


class _WrittenStep:
    """What `StepRecorder` wrote: read, and checked against the model. Raises ConfigError where it does not fit."""

    def __init__(self, path: Path, model: nn.Module) -> None:
        self.model = model
        try:
            shared = _read(path)
            self.progress, self.lr, self.precision = Progress(**shared["progress"]), shared["lr"], shared["precision"]
            processes = [_read(process_file(path.parent, rank)) for rank in range(shared["processes"])]
            self.batches: list[list[dict[str, Any]]] = [process["batches"] for process in processes]
            self._rng = [process["rng"] for process in processes]
            self._weights = shared["model"]
            for rank in range(len(processes)):
                self.restore(rank)
        except (AttributeError, LookupError, RuntimeError, TypeError, ValueError) as error:
            if isinstance(error, UserError):
                raise
            reason = str(error).strip().partition("\n")[0]
            raise ConfigError(f"{path.parent} is no step of this script ({type(error).__name__}: {reason})") from error

    def restore(self, rank: int) -> None:
        """Set the model and the random generators to what they were on process `rank` before the step."""
        self.model.load_state_dict(self._weights)
        set_rng_state(self._rng[rank])


def _read(path: Path) -> dict[str, Any]:
    if not path.exists():
        raise ConfigError(f"--replay: {path} does not exist; give the folder that the run named, with all its files")
    content = checkpoint.read(path)  # first, as it refuses what is no file
    verify_zip(path)
    return content


class Watch:
    """Notes, inside its block, the first layer of a model whose output, or else gradient, is not finite."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.batch: dict[str, Any] = {}
        self.value: str | None = None
        self.gradient: str | None = None
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> "Watch":
        for name, module in self.model.named_modules():
            self._handles.append(module.register_forward_hook(self._forward_hook(name)))
        for name, parameter in self.model.named_parameters():
            if parameter.requires_grad:
                self._handles.append(parameter.register_post_accumulate_grad_hook(self._gradient_hook(name)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        for handle in self._handles:
            handle.remove()

    def watched(self, train_step: TrainStep) -> TrainStep:
        """The same train_step, whose batches are looked at, too."""

        def watched(model: nn.Module, batch: dict[str, Any], progress: Progress) -> dict[str, Tensor]:
            self.batch = batch
            for key, value in batch.items():
                if isinstance(value, Tensor):
                    self._note(f"{key!r} of the batch", value)
            return train_step(model, batch, progress)

        return watched

    def finding(self, values: Mapping[str, float]) -> str:
        """Where it begins, given the losses that the step returned."""
        if self.value is not None:
            return f"first not finite: {self.value}"
        losses = [name for name, value in values.items() if name != "grad_norm" and not math.isfinite(value)]
        if losses:
            return f"the output of every layer is finite; what is computed from them is not: {', '.join(losses)}"
        if self.gradient is not None:
            return f"every output is finite; first not finite: the gradient of {self.gradient}"
        return "everything is finite"

    def _forward_hook(self, name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            del inputs
            for tensor in _tensors(output):
                self._note(f"the output of {name or 'the model'} ({type(module).__name__})", tensor)

        return hook

    def _gradient_hook(self, name: str) -> Any:
        def hook(parameter: Tensor) -> None:
            if self.gradient is None and parameter.grad is not None and not parameter.grad.isfinite().all():
                self.gradient = name

        return hook

    def _note(self, place: str, value: Tensor) -> None:
        if self.value is not None or value.isfinite().all():
            return
        self.value = f"{place}, {list(value.shape)}"
        if value.dim():
            rows = (~value.isfinite()).reshape(len(value), -1).any(1).nonzero().flatten().tolist()
            files = self.batch.get("files", [])
            named = [f"{row} ({files[row]})" if len(files) == len(value) else str(row) for row in rows]
            self.value += f", in rows {', '.join(named)}"


def _tensors(value: Any) -> Iterator[Tensor]:
    """The tensors in what a layer returned."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, Mapping):
        for item in value.values():
            yield from _tensors(item)
    elif isinstance(value, (tuple, list)):
        for item in value:
            yield from _tensors(item)
    elif dataclasses.is_dataclass(value):
        for field in dataclasses.fields(value):
            yield from _tensors(getattr(value, field.name))
