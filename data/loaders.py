"""Loaders of one process's batches, which are the same for any number of workers and can start at any batch.

loader = TrainLoader(dataset, batch_size=32, num_workers=4, rank=0, world_size=1)
loader.set_epoch(3, start_batch=120)            # where a resumed run continues
for batch in loader: ...                        # dicts, as the dataset describes them
"""

import atexit
import contextlib
import errno
import functools
import logging
import multiprocessing
import multiprocessing.queues
import os
import shutil
import signal
import sys
import traceback
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from multiprocessing.synchronize import Event
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch.utils.data import DataLoader, get_worker_info

from data.dataset import EvalDataset, Sample, TrainDataset
from data.media.image_file import TooManyBadImages
from data.sampler import EvalSampler, TrainSampler
from settings import ConfigError, UserError

logger = logging.getLogger("blip.data")

EvalData = TypeVar("EvalData", bound=EvalDataset)

_LISTED = 5  # files without a sample that are named
_LOGGED = 100  # the bad images that were logged last, which are not logged again
_FIRST_JUDGED = 10_000  # images; the share of bad ones among fewer says little about a large dataset


class Share(TypedDict):
    """Which process loads, and whether into pinned memory, which copies fast to a GPU: the engine's `Run.share`."""

    rank: int
    world_size: int
    pin_memory: bool


class Batches:
    """The batches of a torch DataLoader; raises the errors that our datasets return in place of a batch."""

    def __init__(self, loader: DataLoader[Sample]) -> None:
        self._loader = loader

    def __len__(self) -> int:
        return len(self._loader)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        with _room_for_workers():
            batches = iter(self._loader)  # starts the workers, now: not when the first batch is asked for
        return map(_raised, batches)


def _raised(batch: dict[str, Any] | UserError) -> dict[str, Any]:
    if isinstance(batch, UserError):
        raise batch
    return batch


class TrainLoader:
    """A process's batches of a training epoch; bad images are logged, counted over the run, and limited in number.

    `len(loader)` is the number of batches of a whole epoch, whichever batch it starts at. The loader touches no global
    random state. `pin_memory` speeds up the copy to a CUDA device.
    """

    def __init__(
        self,
        dataset: TrainDataset,
        batch_size: int,
        *,
        num_workers: int = 0,
        max_bad_images: float = 0.01,
        rank: int = 0,
        world_size: int = 1,
        pin_memory: bool = False,
    ) -> None:
        if not len(dataset):
            sources = [str(source) for source in dataset.sources()]
            more = f" and {len(sources) - _LISTED:,} more" if len(sources) > _LISTED else ""
            raise ConfigError(f"nothing to train on: no sample in {', '.join(sources[:_LISTED])}{more}")
        self.dataset = dataset
        self.batch_size = batch_size
        self.num_workers = num_workers
        self.max_bad_images = max_bad_images
        self._sampler = TrainSampler(dataset.order, batch_size, rank, world_size)
        self._batches = Batches(_loader(dataset, self._sampler, num_workers, pin_memory))
        self._bad = self._tried = 0
        self._logged: deque[tuple[str, str]] = deque(maxlen=_LOGGED)

    def set_epoch(self, epoch: int, start_batch: int = 0, batches_per_step: int = 1) -> None:
        """Go to `epoch` and start at its batch `start_batch`, without reading those before.

        The epoch ends with the last whole step of `batches_per_step` batches.
        """
        self._sampler.set_epoch(epoch, start_batch, batches_per_step)

    def __len__(self) -> int:
        return len(self._sampler)

    def state_dict(self) -> dict[str, int]:
        """How many images this process has tried to read, and how many of them were bad."""
        return {"tried": self._tried, "bad": self._bad}

    def load_state_dicts(self, states: Sequence[Mapping[str, int]]) -> None:
        """Continue the counts of an interrupted run, given its processes' states; their number may have changed."""
        rank, processes = self._sampler.rank, self._sampler.world_size
        if len(states) == processes:
            mine = states[rank]
        else:  # an even part of the sums, whole images that add up to them
            sums = {key: sum(state[key] for state in states) for key in self.state_dict()}
            mine = {key: (rank + 1) * total // processes - rank * total // processes for key, total in sums.items()}
        self._tried, self._bad = mine["tried"], mine["bad"]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        start, epoch = self._sampler.start_batch, self._sampler.epoch
        stager = self.dataset.stager(epoch, self._sampler.indices(), start, self._sampler.following())
        with stager or contextlib.nullcontext():
            batches = iter(self._batches)
            if stager is not None:
                stager.start()
            for number, batch in enumerate(batches, start):
                self._count(batch["bad_images"])
                if stager is not None:
                    stager.consumed(number)
                yield batch

    def _count(self, bad_images: list[tuple[str, str]]) -> None:
        self._tried += self.batch_size + len(bad_images)
        self._bad += len(bad_images)
        for bad in bad_images:
            if bad not in self._logged:  # of a shard that cannot be read, one line tells of all its samples
                logger.warning("unreadable image replaced: %s: %s", *bad)
                self._logged.append(bad)
        of = max(self._tried, min(_FIRST_JUDGED, len(self) * self.batch_size))
        if bad_images and self._bad > self.max_bad_images * of:
            path, reason = bad_images[-1]
            raise TooManyBadImages(
                f"{self._bad:,} unreadable images among the {self._tried:,} that this process read until epoch "
                f"{self._sampler.epoch}, more than max_bad_images = {self.max_bad_images:g} of {of:,}; "
                f"the last one is {path}: {reason}. "
                "`python -m data.check CONFIG` lists them; repair or remove them, or raise max_bad_images"
            )


def eval_loader(
    dataset: EvalData,
    batch_size: int,
    *,
    num_workers: int = 0,
    rank: int = 0,
    world_size: int = 1,
    pin_memory: bool = False,
) -> "EvalLoader[EvalData]":
    """A process's share of an evaluation split, each sample once over all processes, in the file's order.

    Raises ConfigError for a split without a record.
    """
    dataset.check_not_empty()
    sampler = EvalSampler(len(dataset), batch_size, rank, world_size)
    return EvalLoader(dataset, _loader(dataset, sampler, num_workers, pin_memory))


class EvalLoader(Batches, Generic[EvalData]):
    """A process's batches of the evaluation split `dataset`, in the file's order."""

    def __init__(self, dataset: EvalData, loader: DataLoader[Sample]) -> None:
        super().__init__(loader)
        self.dataset = dataset


def listed_loader(
    dataset: EvalDataset, batches: Sequence[Sequence[int]], *, num_workers: int = 0, pin_memory: bool = False
) -> Batches:
    """The batches whose samples are listed by index, in this order."""
    return Batches(_loader(dataset, [list(batch) for batch in batches], num_workers, pin_memory))


def _loader(
    dataset: TrainDataset | EvalDataset, batches: Iterable[list[Any]], num_workers: int, pin_memory: bool
) -> DataLoader[Sample]:
    with _room_for_workers():
        start = functools.partial(_start_worker, _ending()) if num_workers else None
    return DataLoader(
        dataset,
        batch_sampler=batches,
        num_workers=num_workers,
        collate_fn=functools.partial(_collate, dataset.collate),
        pin_memory=pin_memory,
        persistent_workers=num_workers > 0,
        worker_init_fn=start,
        generator=torch.Generator(),  # else each epoch would draw its workers' seed from the global generator
    )


@functools.cache
def _ending() -> Event:
    """An event that is set when this process ends; one for all its loaders."""
    ending = multiprocessing.Event()
    atexit.register(ending.set)  # called before multiprocessing's own, which terminates workers and waits for them
    return ending


def _collate(
    collate: Callable[[list[Sample]], dict[str, Any]], samples: list[Sample] | UserError
) -> dict[str, Any] | UserError:
    if isinstance(samples, UserError):
        return samples
    batch = collate(samples)
    if get_worker_info() is None:
        return batch
    try:
        _share(batch)
    except (RuntimeError, OSError) as error:
        return UserError(_no_shared_memory(error))
    return batch


_SHARED_MEMORY = "/dev/shm"


def _share(value: Any) -> None:
    """Move the tensors of a batch into memory that the run's process sees too.

    torch would do so after the worker has handed the batch over, in a thread whose errors nobody hears of: the run
    would wait for that batch for ever.
    """
    if isinstance(value, torch.Tensor):
        value.share_memory_()
    elif isinstance(value, Mapping):
        for item in value.values():
            _share(item)
    elif isinstance(value, (list, tuple)):
        for item in value:
            _share(item)


@contextlib.contextmanager
def _room_for_workers() -> Iterator[None]:
    """For the start of workers, each of which needs a few semaphores, which Linux keeps in shared memory."""
    try:
        yield
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        raise UserError(_no_shared_memory(error, "loader workers cannot be started")) from error


def _no_shared_memory(error: Exception, what: str = "a loader worker cannot hand over a batch") -> str:
    """What to do about workers or a batch for which there is no room."""
    message = f"{what}: {str(error).partition(chr(10))[0]}"
    if "Too many open files" in message:
        return f"{message}. Raise the limit of open files (`ulimit -n`), or lower num_workers"
    space = ""
    if os.path.isdir(_SHARED_MEMORY):
        usage = shutil.disk_usage(_SHARED_MEMORY)
        space = f" {_SHARED_MEMORY} has {usage.free / 2**20:.0f} of {usage.total / 2**20:.0f} MiB left."
    return (
        f"{message}.{space} Give the machine more shared memory (Docker: --shm-size=8g, or --ipc=host), lower "
        "num_workers or batch_size, or write num_workers=0"
    )


def _end_worker(error: Exception, batch: Any) -> None:
    """End a worker that cannot send a batch, so that the run, which would wait for it, learns of it."""
    del batch
    traceback.print_exception(error)
    print(_no_shared_memory(error), file=sys.stderr, flush=True)
    os._exit(1)


def _start_worker(ending: Event, worker: int) -> None:
    """Make a worker end rather than lose a batch, and ignore the signals that stop a run."""
    # The hook of a queue's sending thread, which by default prints the error and goes on with the next batch.
    multiprocessing.queues.Queue._on_queue_feeder_error = staticmethod(_end_worker)  # pyright: ignore
    _ignore_signals(ending, worker)


def _ignore_signals(ending: Event, worker: int) -> None:
    """Make a worker ignore the signals that stop a run, unless the run is `ending`.

    Schedulers signal all processes of a job: the run then saves its state, and needs its workers alive. Only when the
    run has ended, by an error with batches left to load, does SIGTERM end a worker.
    """
    del worker
    signal.signal(signal.SIGTERM, lambda *_: os._exit(0) if ending.is_set() else None)
    if hasattr(signal, "SIGUSR1"):  # Windows has none
        signal.signal(signal.SIGUSR1, signal.SIG_IGN)
