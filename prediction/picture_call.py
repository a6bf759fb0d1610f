"""Pictures in, a result for each out: what the calls of `prediction.calls` share."""

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar, overload

import torch
from PIL import Image
from torch import Tensor
from tqdm import tqdm

from data.media.folder import find_pictures
from data.media.image_file import BadImage, upright_rgb
from engine.device import choose_device
from prediction.predictor import PRECISIONS, AnyPicture, Model, Picture, Predictor, load_model
from settings import UserError, check

logger = logging.getLogger("blip.prediction")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Folder:
    """All pictures of a folder, at any depth; or those that a glob such as `holiday/*.jpg` matches."""

    path: str | os.PathLike[str]


class PictureCall(Generic[Model]):
    """A model that is called with pictures: a single one, a list of them, or a folder.

    Attributes:
        model: the network, in evaluation mode.
        device: where it computes.

    Raises:
        UserError: for a checkpoint or device that is not there, or another impossible argument.
    """

    def __init__(
        self,
        kind: type[Model],
        checkpoint: str | Path | Model,
        device: str,
        precision: str,
        batch_size: int,
        vocab_file: str | Path | None,
    ) -> None:
        check(batch_size >= 1, "batch_size", batch_size, "at least 1")
        check(precision in PRECISIONS, "precision", precision, f"one of {', '.join(PRECISIONS)}")
        chosen = choose_device(device)
        if isinstance(checkpoint, str | Path):
            model = load_model(kind, checkpoint, vocab_file, logger.warning)
        else:
            model = checkpoint
        check(isinstance(model, kind), "checkpoint", type(model).__name__, f"a name, a path or a {kind.__name__}")
        self._predictor = Predictor(model, chosen, precision, batch_size)

    @property
    def model(self) -> Model:
        return self._predictor.model

    @property
    def device(self) -> torch.device:
        return self._predictor.device

    @overload
    def _call(self, pictures: Picture, compute: Callable[[Tensor], list[Result]]) -> Result: ...
    @overload
    def _call(self, pictures: Sequence[Picture], compute: Callable[[Tensor], list[Result]]) -> list[Result]: ...
    @overload
    def _call(self, pictures: Folder, compute: Callable[[Tensor], list[Result]]) -> dict[Path, Result]: ...
    def _call(
        self, pictures: Picture | Sequence[Picture] | Folder, compute: Callable[[Tensor], list[Result]]
    ) -> Result | list[Result] | dict[Path, Result]:
        """What `compute` makes of batches [B, 3, S, S], a result a picture, in the form in which the pictures came.

        Raises:
            BadImage: a picture cannot be read. One of a folder is left out instead, with a warning in the log.
            UserError: none of a folder can be read, or `pictures` holds something else.
        """
        if isinstance(pictures, Folder):
            return self._of_folder(pictures, compute)
        if isinstance(pictures, str | os.PathLike | Image.Image):
            return self._of_list([pictures], compute)[0]
        return self._of_list(pictures, compute)

    def _of_list(self, pictures: object, compute: Callable[[Tensor], list[Result]]) -> list[Result]:
        if not isinstance(pictures, Sequence):
            raise _no_picture(pictures)
        ready = [_ready(picture) for picture in pictures]

        def stop(error: BadImage) -> None:
            raise error

        return [result for _, result in self._results(ready, compute, stop)]

    def _of_folder(self, folder: Folder, compute: Callable[[Tensor], list[Result]]) -> dict[Path, Result]:
        paths = find_pictures([os.fspath(folder.path)])
        results = dict(self._results(paths, compute, lambda error: logger.warning("left out: %s", error)))
        if not results:
            raise UserError(f"{folder.path}: none of its {len(paths)} pictures can be read; the log says why")
        return results

    def _results(
        self,
        pictures: Sequence[AnyPicture],
        compute: Callable[[Tensor], list[Result]],
        unreadable: Callable[[BadImage], None],
    ) -> Iterator[tuple[AnyPicture, Result]]:
        """Yield each picture that can be read with its result; show how many are done, where that takes a while."""
        one_batch = len(pictures) <= self._predictor.batch_size
        with (
            tqdm(total=len(pictures), unit="picture", disable=True if one_batch else None) as bar,
            closing(self._predictor.batches(pictures)) as batches,
        ):
            for readable, image, broken in batches:
                for error in broken:
                    unreadable(error)
                if readable:
                    with self._predictor.computing():
                        results = compute(image)
                    yield from zip(readable, results, strict=True)
                bar.update(len(readable) + len(broken))


def _ready(picture: object) -> Picture:
    """The picture, if it is one; of Pillow's, upright RGB, since two threads may not decode the same."""
    if isinstance(picture, Image.Image):
        return upright_rgb(picture)
    if not isinstance(picture, str | os.PathLike):
        raise _no_picture(picture)
    if os.path.isdir(picture):
        raise UserError(f"{os.fspath(picture)} is a folder: give Folder({os.fspath(picture)!r})")
    return picture


def _no_picture(found: object) -> UserError:
    return UserError(
        f"a picture is the path of a file or a Pillow picture, and several are a list; got {type(found).__name__}"
    )
