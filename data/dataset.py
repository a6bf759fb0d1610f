"""What all datasets share: randomness by (seed, epoch, index), replaced bad images, batches as dicts."""

import abc
import itertools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import Dataset

from data.media.image_file import BadImage, ImageFile, TooManyBadImages, open_image
from data.records.annotations import Annotations
from data.sampler import shuffled
from settings import UserError

Sample = dict[str, Any]
TrainImage = Callable[[ImageFile, np.random.Generator], torch.Tensor]  # -> uint8 [3, S, S]
EvalImage = Callable[[Image.Image], torch.Tensor]  # -> uint8 [3, S, S]

_ATTEMPTS = 100  # images tried for one place in a batch: enough where most downloads are dead, soon done where all are
_SHOWN = 5  # of them in the error


def collate(samples: Sequence[Sample], listed: Sequence[str] = ()) -> dict[str, Any]:
    """Samples -> a batch: tensors stacked, numbers as a tensor [B], all else (and the keys in `listed`) as lists."""
    batch = {}
    for key in samples[0]:
        values = [sample[key] for sample in samples]
        if isinstance(values[0], torch.Tensor):
            batch[key] = torch.stack(values)
        elif isinstance(values[0], (int, float)) and key not in listed:
            batch[key] = torch.tensor(values)
        else:
            batch[key] = values
    return batch


def one_of(captions: Sequence[str], rng: np.random.Generator) -> str:
    """The caption, or one drawn at random where an image has several."""
    return captions[0] if len(captions) == 1 else captions[int(rng.integers(len(captions)))]


class _Samples(Dataset):
    """A data set whose errors for people reach them from a loader's worker too."""

    def __getitems__(self, keys: Sequence[Any]) -> list[Sample] | UserError:
        """The samples of a batch, as torch's loader asks a data set for them, or the error that a person can mend.

        As a value, which the loader raises (data/loaders.py): raised in a worker it would become a traceback's text.
        """
        try:
            return [self[key] for key in keys]
        except UserError as error:
            return error


class TrainDataset(_Samples, abc.ABC):
    """Records to training samples; a task says in `sample` what a sample is.

    `dataset[epoch, index]` (or `dataset[index]`, in epoch 0) is the same whoever asks: all its randomness is drawn
    from (seed, epoch, index). Where its image cannot be read, another record, drawn in the same way, takes its place.
    Beside what the task wants, a batch has `files`, the pictures it was made from, and `bad_images`, the (path, reason)
    of those that were replaced.
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
        """The record at `index`, which lies below `size(epoch)`."""
        del epoch  # only pre-training's records differ by epoch
        return self.annotations[index]

    def size(self, epoch: int) -> int:
        """The number of records that `epoch` can draw from."""
        del epoch
        return len(self.annotations)

    def order(self, epoch: int) -> np.ndarray:
        """The indices that `epoch` uses, in the order in which it uses them."""
        return shuffled(self.size(epoch), (self.seed, epoch))

    def __len__(self) -> int:
        return self.size(0)

    def __getitem__(self, key: int | tuple[int, int]) -> Sample:
        epoch, index = key if isinstance(key, tuple) else (0, key)
        bad_images = []
        row = index
        for attempt in range(_ATTEMPTS):
            try:
                sample = self.sample(self.record(epoch, row), np.random.default_rng((self.seed, epoch, row)))
                return sample | {"bad_images": bad_images}
            except BadImage as error:
                bad_images.append((str(error.path), error.reason))
                row = int(np.random.default_rng((self.seed, epoch, index, attempt)).integers(self.size(epoch)))
        listed = "\n".join(f"  {path}: {reason}" for path, reason in bad_images[:_SHOWN])
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


class EvalDataset(_Samples):
    """Records to evaluation samples, in the file's order; an image that cannot be read is an error that names it."""

    listed: tuple[str, ...] = ()  # keys that stay as they stand in the annotations, as the result files carry them

    def __init__(self, annotations: Annotations, image_root: str | Path, transform: EvalImage) -> None:
        self.annotations = annotations
        self.image_root = image_root
        self.transform = transform

    def __len__(self) -> int:
        return len(self.annotations)

    def files(self, row: int) -> list[str]:
        """The pictures (or the clip) of a sample, for people to look at."""
        return [os.path.join(self.image_root, self.annotations[row]["image"])]

    def image(self, name: str, root: str | Path | None = None) -> torch.Tensor:
        """The pre-processed picture of file `name`: uint8 [3, S, S]."""
        return self.transform(open_image(os.path.join(self.image_root if root is None else root, name)))

    def collate(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """A batch of samples."""
        return collate(samples, self.listed)
