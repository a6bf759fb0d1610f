"""A checkpoint's model on a device, and pictures read for it in batches."""

import os
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Generic, TypeVar

import torch
from PIL import Image
from torch import Tensor

from data.media.folder import read_batches
from data.media.image_file import BadImage
from engine.device import precision_of
from models.base import VisionLanguageModel
from models.weights.build import build_from_checkpoint
from models.weights.released import find_released
from transform.image import normalize

Model = TypeVar("Model", bound=VisionLanguageModel)

Picture = str | os.PathLike[str] | Image.Image
"""A picture's file, or a Pillow picture."""
AnyPicture = TypeVar("AnyPicture", bound=Picture)

PRECISIONS = ("fp32", "bf16", "fp16")


def load_model(
    kind: type[Model], source: str | Path, vocab_file: str | Path | None, warn: Callable[[str], None]
) -> Model:
    """The model of a checkpoint; warns where that was never fine-tuned for a task.

    Raises:
        CheckpointError, ConfigError, DownloadError: as `build_from_checkpoint`.
    """
    entry = find_released(str(source))
    if entry and entry.task == "pretrain":
        warn(f"{entry.name} was not fine-tuned; expect poor results")
    return build_from_checkpoint(kind, source, vocab_file=vocab_file)


class Predictor(Generic[Model]):
    """A model in evaluation mode on its device, and the pictures that it is shown.

    Args:
        model: moved to the device, and put into evaluation mode.
        device: where it computes.
        precision: one of `PRECISIONS`.
        batch_size: pictures that are read, and computed on, at once.
    """

    def __init__(self, model: Model, device: torch.device, precision: str, batch_size: int) -> None:
        self.model = model.to(device).eval()
        self.device, self.batch_size = device, batch_size
        self._dtype = precision_of(precision, device)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Inside, nothing is kept for gradients, and the precision is the one that was asked for."""
        lower = self._dtype is not torch.float32
        # Not in inference mode, in which autocast would cast every weight anew for every use.
        with torch.no_grad(), torch.autocast(self.device.type, dtype=self._dtype, enabled=lower):
            yield

    def batches(
        self, pictures: Sequence[AnyPicture]
    ) -> Generator[tuple[list[AnyPicture], Tensor, list[BadImage]], None, None]:
        """Read pictures, in threads, ahead of their use.

        Yields, for every `batch_size` of them: those that could be read, the model's input `[B, 3, S, S]` of them on
        the device, and an error for each of the others. B may be 0.
        """
        with closing(read_batches(pictures, self.model.visual_encoder.image_size, self.batch_size)) as batches:
            for readable, pixels, broken in batches:
                yield readable, normalize(pixels.to(self.device), self.model.pixels), broken
