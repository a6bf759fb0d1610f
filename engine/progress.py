"""The types that scripts and the engine share: the progress of training, and the functions that a script passes."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from engine.config import TrainConfig
from engine.schedules import cosine_lr


@dataclass(frozen=True)
class Progress:
    """How far training is: `index` of `steps` steps done in `epoch`, `step` steps done in all.

    `batch` counts the batches of the present step whose gradients are computed: 0 without accumulation.
    """

    epoch: int
    index: int
    steps: int
    step: int
    batch: int = 0

    @property
    def epochs(self) -> float:
        """Epochs done, with the fraction of the current one."""
        return self.epoch + self.index / self.steps


class Loader(Protocol):
    """What `fit` needs of a training loader: batches as dicts, their size, and a start in the middle of an epoch.

    An epoch ends with the last whole step of `batches_per_step` batches, and its `len` is a multiple of them: what is
    read beyond would be read in vain. An epoch without a whole step is an error of the loader's.
    It draws from none of the process's global random generators: a resumed run, whose epoch starts in the middle, would
    then go on with other numbers than the run that it continues.
    A batch may name the files it was read from, in the order of its rows, as `files: list[str]`, for the report of a
    loss that is not finite.
    Checkpoints hold what loaders count over a run: the `state_dict` of each process, all given to `load_state_dicts`.
    `num_workers` is how many processes read, 0 for the training process itself.
    """

    batch_size: int
    num_workers: int

    def set_epoch(self, epoch: int, start_batch: int = 0, batches_per_step: int = 1) -> None: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dicts(self, states: list[dict[str, Any]]) -> None: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, Any]]: ...


class Batches(Protocol):
    """What `Run.batches` needs of an evaluation's loader: batches as dicts, and how many."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[dict[str, Any]]: ...


@runtime_checkable
class Described(Protocol):
    """A model whose checkpoints hold, beside the weights, what else it takes to use them where its files are not.

    `describe` returns that as plain data. `check_weights` is given all that a checkpoint holds, and raises UserError
    where its weights mean something else in this model, although they fit.
    """

    def describe(self) -> dict[str, Any]: ...
    def check_weights(self, checkpoint: Mapping[str, Any], source: str) -> None: ...


TrainStep = Callable[[nn.Module, dict[str, Any], Progress], dict[str, Tensor]]
Schedule = Callable[[Progress], float]
Evaluate = Callable[[Any], dict[str, Any]]  # of the script's own model


def cosine_by_epoch(config: TrainConfig) -> Schedule:
    """The schedule of all fine-tuning: from init_lr to min_lr along half a cosine, constant within an epoch."""
    return lambda progress: cosine_lr(progress.epoch, config.max_epoch, config.init_lr, config.min_lr)
