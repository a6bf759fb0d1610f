"""How a run starts and what it knows of itself: arguments, config, processes, device, output folder."""

import argparse
import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from functools import cached_property
from pathlib import Path
from typing import Any, Generic, TypedDict, TypeVar

import torch
from torch.distributed.distributed_c10d import Store

from engine import checkpoint, distributed
from engine.config import RunConfig, TrainConfig
from engine.device import choose_device, precision_of, tf32_allowed
from engine.failure import exit_on_user_error, exit_status
from engine.lock import FolderLock
from engine.log import ProgressDisplay, set_up_logging, write_json
from engine.progress import Batches
from engine.randomness import set_seed
from engine.shared_work import SharedWork
from engine.transfer import Transfer
from files import remove_unfinished, resolve
from settings import ConfigError, describe, load_config, save_config
from settings.flags import Parser, seed

logger = logging.getLogger("blip.engine")

Item = TypeVar("Item")
Config = TypeVar("Config", bound=RunConfig)
Config_co = TypeVar("Config_co", bound=RunConfig, covariant=True)

CONFIG = "config.yaml"  # in the output folder, with every key as the run was started
REPLAYED = "step.pth"  # in a folder of --replay, what all processes had in common
REFUSED = "refused"  # an empty file there, from a refusal to overwrite an earlier run until a training starts


class Share(TypedDict):
    """Arguments for a loader: which process loads, of how many, and whether into memory that copies fast to a GPU."""

    rank: int
    world_size: int
    pin_memory: bool


@dataclasses.dataclass(frozen=True)
class Run(Generic[Config_co]):
    """The run that a script is part of: its config, device, processes and output folder."""

    config: Config_co
    output_dir: Path
    device: torch.device
    seed: int
    rank: int
    world_size: int
    evaluate_only: bool
    resume_from: Path | None
    replays: bool = False  # only the step that `resume_from` holds
    store: Store | None = None  # of all processes; None where there is one only

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes."""
        return self.rank == 0

    @property
    def share(self) -> Share:
        """Arguments by which a loader gives this process its share of the data."""
        return {"rank": self.rank, "world_size": self.world_size, "pin_memory": self.device.type == "cuda"}

    def autocast(self, precision: str) -> AbstractContextManager[Any]:
        """Autocast on this device to 'bf16', 'fp16', 'fp32' (off) or 'auto' (see `precision_of`); or 'tf32'."""
        if precision == "tf32":
            return tf32_allowed()
        dtype = precision_of(precision, self.device)
        return torch.autocast(self.device.type, dtype=dtype, enabled=dtype is not torch.float32)

    @cached_property
    def _transfer(self) -> Transfer:
        return Transfer(self.device)

    def to_device(self, batch: dict[str, Any]) -> dict[str, Any]:
        """The batch with its tensors on the device; copied from pinned memory while a GPU computes (see `Transfer`)."""
        return self._transfer.move(batch)

    def shared_work(self) -> SharedWork:
        """Pieces of work that the processes draw one at a time; once in a run."""
        return SharedWork(self.store, self.config.timeout_minutes)

    def progress(self, items: Iterable[Item], title: str, work: Sequence[float]) -> Iterator[Item]:
        """Yield `items` unchanged and show how many are done, under `title`.

        `work[i]` is the relative cost of item i, used to estimate the remaining time.
        """
        display = ProgressDisplay(title, len(work), shown=self.is_first)
        began, total, done = time.perf_counter(), sum(work), 0.0
        for step, (item, amount) in enumerate(zip(items, work, strict=True), 1):
            yield item
            done += amount
            display.advance()
            if step % self.config.print_freq == 0:
                elapsed = time.perf_counter() - began
                display.report(step, f"{step / elapsed:.3g}/s", elapsed * (total - done) / done)
        display.close()

    def batches(self, loader: Batches, title: str) -> Iterator[dict[str, Any]]:
        """The loader's batches on the device, for an evaluation, with progress."""
        yield from self.progress(self._transfer.ahead(loader), title, [1] * len(loader))

    def write_json(self, name: str, value: Any) -> Path:
        """Write `value` to `name` in the output folder, by the first process only. Returns the path."""
        path = self.output_dir / name
        if self.is_first:
            write_json(path, value)
        return path


@contextmanager
def start(
    kind: type[Config], doc: str | None, config: str, output_dir: str, arguments: Sequence[str] | None = None
) -> Iterator[Run[Config]]:
    """Start a run from the command line: join the other processes, choose the device, read the config. Ends it too.

    An error that the user can fix (UserError) ends the script with its message and status 1.

    Args:
        kind: the script's config dataclass.
        doc: the script's docstring, shown by `--help` above the keys of `kind`.
        config, output_dir: defaults of `--config` and `--output_dir`.
        arguments: in place of `sys.argv[1:]`.
    """
    flags = _parse(kind, doc, config, output_dir, arguments)
    with exit_on_user_error(None, 0):
        launch = distributed.read_launch()
    handler = set_up_logging(launch.rank)
    lock = FolderLock()
    _allow_open_files()
    try:
        if launch.world_size > 1:  # printed first, so that a wait for a process that never comes explains itself
            logger.info("joining %d processes at %s:%d", launch.world_size, launch.address, launch.port)
        with exit_on_user_error(None, launch.rank):
            store = distributed.connect(launch)
        with exit_on_user_error(store, launch.rank):
            device = choose_device(flags.device, launch.local_rank, launch.world_size)
            settings = load_config(kind, flags.config, flags.overrides)
            output = _output_folder(flags)
            evaluate_only = flags.evaluate or not issubclass(kind, TrainConfig)
            distributed.init_process_group(launch, store, device, settings.timeout_minutes)
            # The first process decides: on several machines torchrun may have restarted one and replaced another, which
            # then disagree. It looks for a checkpoint behind the lock, where no other run is about to write one.
            distributed.first_decides(lambda: lock.take(output), "the lock of the output folder")
            resume_from = distributed.first_decides(
                lambda: _checkpoint_to_resume(flags, output, evaluate_only), "the checkpoint to resume from"
            )
            set_seed(flags.seed)
            processes, replays = (launch.rank, launch.world_size), flags.replay is not None
            run = Run(settings, output, device, flags.seed, *processes, evaluate_only, resume_from, replays, store)
            if run.is_first and not replays:
                _prepare(run)
            yield run
            distributed.leave_process_group()
    except BaseException as error:
        distributed.abandon_process_group(exit_status(error))
        raise
    finally:
        logging.getLogger("blip").removeHandler(handler)
        lock.release()


def _parse(
    kind: type, doc: str | None, config: str, output_dir: str, arguments: Sequence[str] | None
) -> argparse.Namespace:
    parser = Parser(
        description=doc,
        epilog=f"keys of the config, each also settable here as key=value:\n{describe(kind)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="values that replace those of the config")
    parser.add_argument("--config", default=config, help="YAML file (default: %(default)s)")
    parser.add_argument("--output_dir", default=output_dir, help="where everything is written (default: %(default)s)")
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda or mps (default: %(default)s)")
    parser.add_argument("--seed", type=seed, default=42, help="of every random choice (default: %(default)s)")
    parser.set_defaults(evaluate=False, checkpoint=None, resume=None, replay=None)
    if issubclass(kind, TrainConfig) or "pretrained" in {field.name for field in dataclasses.fields(kind)}:
        _add_model_flags(parser)
    flags = parser.parse_intermixed_args(arguments)
    if flags.resume and "=" in flags.resume and not os.path.exists(flags.resume):
        flags.overrides.append(flags.resume)  # `--resume key=value`: argparse gave the override to --resume
        flags.resume = ""
    if flags.checkpoint:
        flags.overrides.append(f"pretrained={json.dumps(flags.checkpoint)}")
    return flags


def _add_model_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of scripts that train or evaluate a model."""
    parser.add_argument("--evaluate", action="store_true", help="evaluate only")
    parser.add_argument("--checkpoint", help="weights to start from or to evaluate; the same as pretrained=...")
    parser.add_argument(
        "--resume",
        nargs="?",
        const="",
        metavar="PATH",
        help="go on from a checkpoint with training state, or the newest in a folder; without PATH in --output_dir",
    )
    parser.add_argument(
        "--replay", metavar="FOLDER", help="only do a step again that was not finite: FOLDER is what that run names"
    )


def _output_folder(flags: argparse.Namespace) -> Path:
    """The folder of --output_dir, made if need be."""
    folder = Path(os.path.expanduser(flags.output_dir))
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, ValueError) as error:  # a ValueError for a NUL in the name
        reason = getattr(error, "strerror", None) or error
        raise ConfigError(f"--output_dir {str(folder)!r}: no folder can be made there ({reason})") from None
    return folder


def _allow_open_files() -> None:
    """Raise this process's limit of open files as far as it may: each batch of a loader worker takes one a tensor."""
    try:
        import resource  # not on Windows
    except ImportError:
        return
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(OSError, ValueError):  # macOS names no limit, and refuses it
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def _prepare(run: Run[Any]) -> None:
    """Write the config, unless this evaluates in the folder of a training; delete what a killed run left unfinished."""
    in_training_folder = run.evaluate_only and any(run.output_dir.glob("checkpoint_*.pth"))
    if not (in_training_folder or _restarted() and (run.output_dir / CONFIG).exists()):
        save_config(run.config, run.output_dir / CONFIG)
    if not run.evaluate_only:
        remove_unfinished(run.output_dir, "checkpoint_*.pth")
        (run.output_dir / REFUSED).unlink(missing_ok=True)


def _restarted() -> bool:
    """Whether torchrun started this process anew after a failure."""
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", 0)) > 0


def _is_of_this_run(path: Path) -> bool:
    """Whether a restarted run wrote `path` itself: after its config, which it writes once, when it first starts."""
    config = path.parent / CONFIG
    return config.exists() and path.stat().st_mtime_ns > config.stat().st_mtime_ns


def _checkpoint_to_resume(flags: argparse.Namespace, output: Path, evaluate_only: bool) -> Path | None:
    """The checkpoint that --resume names, if any; the newest one for a process that torchrun started anew."""
    if flags.replay is not None:
        if evaluate_only or flags.resume is not None or distributed.world_size() > 1:
            raise ConfigError(
                "--replay does one step of a training again, in one process, without --evaluate or --resume"
            )
        return resolve(flags.replay) / REPLAYED
    if evaluate_only and flags.resume is not None:
        raise ConfigError("--resume goes on with a training: to evaluate a checkpoint, give it with --checkpoint")
    if evaluate_only:
        return None
    restarted = _restarted()
    newest = checkpoint.newest(output)
    if flags.resume and not (restarted and newest and _is_of_this_run(newest)):
        path = resolve(flags.resume)
        if os.path.isdir(path):
            path = checkpoint.newest_whole(path, set_aside=False)
        elif os.path.exists(path):
            checkpoint.verify(path)
        if path is None or not os.path.exists(path):
            raise ConfigError(f"--resume {flags.resume}: no such file, nor a folder with a checkpoint_last.pth")
        return path
    refused = output / REFUSED
    if flags.resume is None and (not restarted or refused.exists()):
        if newest is not None:
            refused.touch()  # for torchrun's --max-restarts, which would take this end for a failure to resume from
            raise ConfigError(
                f"{newest} belongs to an earlier run, which this one would overwrite: go on with it by --resume, "
                "choose another --output_dir, or delete the file"
            )
        return None
    newest = checkpoint.newest_whole(output, set_aside=True)
    if newest is None:
        logger.info("nothing to resume from in %s yet: starting from the beginning", output)
    return newest
