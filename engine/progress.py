"""The words between scripts and engine: where training stands, and the functions that a script passes."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from engine.config import TrainConfig
from engine.schedules import cosine_lr


@dataclass(frozen=True)
class Progress:
    """Where training stands: `index` of `steps` steps done in `epoch`, `step` steps in all."""

    epoch: int
    index: int
    steps: int
    step: int

    @property
    def epochs(self) -> float:
        """Epochs done, the running one's share included."""
        return self.epoch + self.index / self.steps


class Loader(Protocol):
    """What `fit` asks of a training loader: batches as dicts, their size, and a start in the middle of an epoch.

    A batch may name the files it was read from, as `files: list[str]`, for the report of a loss that is not finite.
    What a loader counts over a run travels in its checkpoints: `state_dict` of this process, `load_state_dicts` of all.
    """

    batch_size: int

    def set_epoch(self, epoch: int, start_batch: int = 0) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dicts(self, states: list[dict[str, Any]]) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, Any]]: ...


TrainStep = Callable[[nn.Module, dict[str, Any], Progress], dict[str, Tensor]]
Schedule = Callable[[Progress], float]
Evaluate = Callable[[nn.Module], dict[str, Any]]


def cosine_by_epoch(config: TrainConfig) -> Schedule:
    """The schedule of all fine-tuning: from init_lr to min_lr along half a cosine, constant within an epoch."""
    return lambda progress: cosine_lr(progress.epoch, config.max_epoch, config.init_lr, config.min_lr)
