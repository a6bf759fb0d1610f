"""A script in the house's shape whose task is a toy: a linear model with dropout and a buffer that moves each step."""

import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

import engine
from data.order import Order, in_one_lane, shuffled
from data.sampler import TrainSampler
from engine.schedules import cosine_lr
from settings import UserError, setting


@dataclass
class Config(engine.TrainConfig):
    """The toy's keys."""

    samples: int = setting(48, "size of the data set")
    batch_size: int = setting(4, "samples a process and step")
    dropout: float = setting(0.3, "share of inputs dropped")
    num_workers: int = setting(0, "loader processes")
    stop_at: int = setting(-1, "the step before which something happens to the last process, in its first life")
    stop_by: str = setting("SIGKILL", "what: a signal's name, 'mistake' (of the user) or 'bug' (of the script)")
    slow_until: str = setting("", "a file until which a step takes a fifth of a second")
    slow: str = setting("", "what the last process is slow in: 'data' or 'step'")
    scoring: float = setting(0.0, "seconds that the first process scores alone")
    poison: int = setting(-1, "the sample whose input is infinite; -1 for none")
    pretrained: str = setting("", "weights to start from")
    init_lr: float = setting(0.05, "learning rate")


class Samples(Dataset):
    """Inputs and targets that depend on nothing but (epoch, index), as augmented images do."""

    def __init__(self, poison: int) -> None:
        self.poison = poison

    def __getitem__(self, key: tuple[int, int]) -> dict[str, Tensor | str]:
        epoch, index = key
        x = torch.randn(6, generator=torch.Generator().manual_seed(1000 * epoch + index))
        if index == self.poison:
            x[0] = float("inf")
        return {"x": x, "y": x.sum() + 0.1 * index, "files": f"sample{index}.jpg"}


class Loader:
    """A loader as data/loaders.py makes them."""

    def __init__(self, config: Config, run: engine.Run) -> None:
        self.batch_size, self.num_workers, self.batches = config.batch_size, config.num_workers, 0
        self.is_slow = config.slow == "data" and run.rank == run.world_size - 1

        def order(epoch: int) -> Order:
            return in_one_lane(config.samples, lambda: iter([shuffled(config.samples, (run.seed, epoch))]))

        self.sampler = TrainSampler(order, config.batch_size, run.rank, run.world_size)
        self.loader = DataLoader(
            Samples(config.poison),
            batch_sampler=self.sampler,
            num_workers=config.num_workers,
            generator=torch.Generator(),  # else each epoch would draw a seed from the global one
        )

    def set_epoch(self, epoch: int, start_batch: int = 0, batches_per_step: int = 1) -> None:
        self.sampler.set_epoch(epoch, start_batch, batches_per_step)

    def state_dict(self) -> dict[str, int]:
        return {"batches": self.batches}

    def load_state_dicts(self, states: list[dict[str, int]]) -> None:
        self.batches = sum(state["batches"] for state in states) // max(len(states), 1)

    def __len__(self) -> int:
        return len(self.sampler)

    def __iter__(self) -> Iterator[dict]:
        return map(self._count, iter(self.loader))

    def _count(self, batch: dict) -> dict:
        if self.is_slow:
            time.sleep(0.2)
        self.batches += 1
        return batch


class Model(nn.Module):
    """x [B, 6], y [B] -> mean squared error; `mean` follows the weights as a momentum encoder does."""

    def __init__(self, dropout: float) -> None:
        super().__init__()
        self.linear = nn.Linear(6, 1)
        self.dropout = nn.Dropout(dropout)
        self.register_buffer("mean", torch.zeros(1, 6))

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        self.mean.lerp_(self.linear.weight.detach(), 0.1)
        return (self.linear(self.dropout(x)).squeeze(1) - y).square().mean()


def train_step(
    config: Config, last: bool, model: nn.Module, batch: dict, progress: engine.Progress
) -> dict[str, Tensor]:
    if last and progress.step == config.stop_at and os.environ.get("TORCHELASTIC_RESTART_COUNT", "0") == "0":
        if config.stop_by == "mistake":
            raise UserError("sample 7 is upside down: turn it")
        if config.stop_by == "bug":
            raise RuntimeError("this cannot happen")
        os.kill(os.getpid(), getattr(signal, config.stop_by))
    if config.slow_until and not os.path.exists(config.slow_until):
        time.sleep(0.2)
    if last and config.slow == "step":
        time.sleep(0.2)
    loss = model(batch["x"], batch["y"])
    return {"loss": loss, "twice": 2 * loss}


def evaluate(model: Model) -> dict[str, float]:
    assert not model.training
    torch.rand(3)  # an evaluation may draw numbers without changing the training
    return {"score": float(model.linear.weight.sum())}


def evaluate_slowly(run: engine.Run[Config], model: Model) -> dict[str, float]:
    if run.is_first:
        time.sleep(run.config.scoring)
    engine.barrier("the scores of the toy")
    return evaluate(model)


def main(arguments: list[str] | None = None) -> None:
    with engine.start(Config, __doc__, None, "output/toy", arguments) as run:
        config = run.config
        schedule = lambda progress: cosine_lr(progress.epoch, config.max_epoch, config.init_lr, config.min_lr)  # noqa: E731
        step = partial(train_step, config, run.rank == run.world_size - 1)
        engine.fit(
            run,
            lambda config: Model(config.dropout),
            lambda run: Loader(run.config, run),
            step,
            schedule=schedule,
            evaluate=partial(evaluate_slowly, run),
            best="score",
        )


if __name__ == "__main__":
    main()
