"""The base classes of all datasets: randomness by (seed, epoch, index), replaced bad images, batches as dicts."""

import abc
import itertools
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from data.media.image_file import BadImage, ImageFile, TooManyBadImages, open_image
from data.order import Order, in_one_lane, listed
from data.records.annotations import Annotations
from data.remote.stager import Stager
from settings import ConfigError, UserError

Sample = dict[str, Any]
TrainImage = Callable[[ImageFile, np.random.Generator], torch.Tensor]  # -> uint8 [3, S, S]
EvalImage = Callable[[Image.Image], torch.Tensor]  # -> uint8 [3, S, S]

_ATTEMPTS = 100  # images tried for one sample: enough where most downloads are dead, and soon over where all are
_LISTED = 5  # of them are listed in the error


def collate(samples: Sequence[Sample], listed: Sequence[str] = ()) -> dict[str, Any]:
    """Samples -> a batch: tensors stacked, numbers as a tensor [B], all else (and the keys in `listed`) as lists."""
    batch: dict[str, Any] = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        if isinstance(values[0], torch.Tensor):
            batch[key] = torch.stack(values)
        elif isinstance(values[0], (int, float)) and key not in listed:
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values
    return batch


def pick_caption(captions: Sequence[str], rng: np.random.Generator) -> str:
    """The image's caption; one drawn at random if it has several."""
    return captions[0] if len(captions) == 1 else captions[int(rng.integers(len(captions)))]


class _ErrorsAsValues(Dataset[Sample], abc.ABC):
    """A dataset that returns a UserError in place of a batch, for the loader (data/loaders.py) to raise.

    Raised in a worker process, it would reach the run as the text of a traceback.
    """

    @abc.abstractmethod
    def __getitem__(self, key: Any) -> Sample:
        """One sample; the dataset says what `key` is."""

    def __getitems__(self, keys: Sequence[Any]) -> list[Sample] | UserError:
        """The samples of a batch (torch's DataLoader calls this), or the error that stopped them."""
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error


class TrainDataset(_ErrorsAsValues):
    """Training samples from records; a subclass defines `sample`.

    `dataset[epoch, index]` (or `dataset[index]`, in epoch 0) is the same in every process: all its randomness is drawn
    from (seed, epoch, index). A record that an epoch uses again has another index then, larger by `size(epoch)`, and so
    another augmentation. Where its image cannot be read, another record, drawn in the same way, takes its place.
    Besides what the task needs, a batch has `files`, the pictures it was made from, and `bad_images`, the
    (path, reason) of those that were replaced.
    """

    def __init__(self, annotations: Annotations, image_root: str | Path, transform: TrainImage, seed: int) -> None:
        self.annotations = annotations
        self.image_root = image_root
        self.transform = transform
        self.seed = seed

    @abc.abstractmethod
    def sample(self, record: dict[str, Any], rng: np.random.Generator) -> Sample:
        """The sample of one record, its pictures' `files` (a list) included; raises BadImage."""

    def record(self, epoch: int, index: int) -> dict[str, Any]:
        """The record at `index`, which is below `size(epoch)`."""
        del epoch  # pre-training's records alone differ by epoch
        return self.annotations[index]

    def size(self, epoch: int) -> int:
        """The number of records that `epoch` can draw from."""
        del epoch
        return len(self.annotations)

    def sources(self) -> list[str | Path]:
        """The files that the records are from."""
        return [*self.annotations.sources]

    def order(self, epoch: int) -> Order:
        """The indices that `epoch` uses, in the order in which it uses them."""
        size = self.size(epoch)
        return in_one_lane(size, lambda: listed(size, (self.seed, epoch)))

    def another(self, epoch: int, index: int, attempt: int, rng: np.random.Generator) -> int:
        """A record in the place of the one at `index`, which cannot be read; `attempt` others before it could not."""
        del index, attempt  # pre-training's shards alone need to know
        return int(rng.integers(self.size(epoch)))

    def stager(
        self, epoch: int, batches: Iterable[np.ndarray], start_batch: int, following: Iterable[np.ndarray]
    ) -> Stager | None:
        """What fetches the files of an epoch ahead of its batches, where they must be fetched.

        Args:
            batches: the indices of each batch that this process loads, from the epoch's first on.
            start_batch: the first one that will be loaded.
            following: as `batches`, of the next epoch, whose first files are fetched towards the end of this one.
        """
        del epoch, batches, start_batch, following  # pre-training's shards alone can be remote

    def __len__(self) -> int:
        return self.size(0)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        size = self.size(epoch)
        first_of_pass = index - index % size
        bad_images: list[tuple[str, str]] = []
        row = index % size
        for attempt in range(_ATTEMPTS):
            try:
                rng = np.random.default_rng((self.seed, epoch, first_of_pass + row))
                return self.sample(self.record(epoch, row), rng) | {"bad_images": bad_images}
            except BadImage as error:
                bad_images.append((str(error.path), error.reason))
                row = self.another(epoch, row, attempt, np.random.default_rng((self.seed, epoch, index, attempt)))
        listed = "\n".join(f"  {path}: {reason}" for path, reason in bad_images[:_LISTED])
        raise TooManyBadImages(
            f"{_ATTEMPTS} images in a row could not be read; is the folder of images right? The first ones:\n{listed}"
        )

    def image(self, file: str, rng: np.random.Generator) -> torch.Tensor:
        """The augmented picture: uint8 [3, S, S]."""
        return self.transform(ImageFile(file), rng)

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of samples, `files` and `bad_images` as one list each."""
        batch = collate(samples)
        for key in ("files", "bad_images"):
            batch[key] = list(itertools.chain.from_iterable(batch[key]))
        return batch


class EvalDataset(_ErrorsAsValues):
    """Evaluation samples from records, in the file's order; an image that cannot be read is an error that names it."""

    listed: tuple[str, ...] = ()  # keys that a batch holds as lists, unchanged: ids, for the result files

    def __init__(self, annotations: Annotations, image_root: str | Path, transform: EvalImage) -> None:
        self.annotations = annotations
        self.image_root = image_root
        self.transform = transform

    def __len__(self) -> int:
        return len(self.annotations)

    def check_not_empty(self) -> None:
        """Raise ConfigError, with the files, where there is no record."""
        if not len(self):
            raise ConfigError(f"nothing to evaluate: no record in {', '.join(map(str, self.annotations.sources))}")

    def files(self, row: int) -> list[str]:
        """The picture files (or the clip) of a sample, for reports."""
        return [os.path.join(self.image_root, self.annotations[row]["image"])]

    def image(self, name: str, root: str | Path | None = None) -> torch.Tensor:
        """The pre-processed picture of file `name`: uint8 [3, S, S]."""
        return self.transform(open_image(os.path.join(self.image_root if root is None else root, name)))

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of samples."""
        return collate(samples, self.listed)
