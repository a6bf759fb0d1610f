"""Checks a checkpoint: the file is the released one, it loads, and its answers are those that are known of it."""

import enum
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from data.media.image_file import BadImage, open_image
from files import DownloadError, WrongFile, cache_dir, download, is_web_address, resolve
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_nlvr import BLIPNLVR
from models.blip_pretrain import BLIPPretrain
from models.blip_vqa import BLIPVQA
from models.weights.build import build_from_checkpoint
from models.weights.digest import file_digest
from models.weights.files import find
from models.weights.released import RELEASED
from settings import MissingFile, UserError
from transform.image import EvalTransform, normalize
from verify.vectors import Finding, Vector

KINDS: Mapping[str, type[VisionLanguageModel]] = {
    "caption": BLIPDecoder,
    "nlvr": BLIPNLVR,
    "pretrain": BLIPPretrain,
    "retrieval": BLIPMatcher,
    "vqa": BLIPVQA,
}


class Outcome(enum.IntEnum):
    """What became of a check, as an exit status."""

    HOLDS = 0
    DIFFERS = 1
    MISSING = 2


def worst(outcomes: Iterable[Outcome]) -> Outcome:
    """The outcome of several checks: a difference weighs more than what is missing."""
    return max(outcomes, key=(Outcome.HOLDS, Outcome.MISSING, Outcome.DIFFERS).index)


@dataclass(frozen=True)
class Checker:
    """What checkpoints are checked with.

    Attributes:
        vectors: what is asked of them.
        pictures: name of a picture -> its address, or its path in the repository.
        picture_folder: holds those that have an address, under their names; when None, they are downloaded into the
            cache.
        device: where models compute.
        say: takes each line of the report.
    """

    vectors: Sequence[Vector[Any]]
    pictures: Mapping[str, str]
    picture_folder: Path | None
    device: torch.device
    say: Callable[[str], None]

    def check(self, name: str, file: Path | None = None) -> Outcome:
        """Check the checkpoint of this name, a released one or one that comes along.

        Args:
            file: where it is; when None, in the cache, where it is downloaded to if it is not there.
        """
        self.say(f"{name}:")
        try:
            path = file or find(name)
            outcomes = [self._check_file(name, path)]
            vectors = sorted((v for v in self.vectors if v.checkpoint == name), key=_model)
            if not vectors:
                build_from_checkpoint(KINDS[RELEASED[name].task], path)
                self.say("  loads; there is no public test of what it gives")
            outcomes += self._ask(vectors, path)
        except (DownloadError, MissingFile) as error:
            wrong = isinstance(error, WrongFile)
            self.say(f"  {'DIFFERS' if wrong else 'MISSING'} {error}")
            return Outcome.DIFFERS if wrong else Outcome.MISSING
        except UserError as error:
            self.say(f"  DIFFERS {error}")
            return Outcome.DIFFERS
        return worst(outcomes)

    def _check_file(self, name: str, path: Path) -> Outcome:
        """Compare the file with what is known of the released one."""
        if not path.is_file():
            raise MissingFile(f"{path}: there is no such file")
        expected = RELEASED[name].sha256 if name in RELEASED else None
        digest, size = file_digest(path), path.stat().st_size
        known = "no hash of the released file is known" if expected is None else f"{expected} is expected"
        same = expected is None or digest == expected
        self.say(f"  {'ok' if same else 'DIFFERS'} {path}: {size:,} bytes, SHA-256 {digest}; {known}")
        return Outcome.HOLDS if same else Outcome.DIFFERS

    def _ask(self, vectors: Sequence[Vector[Any]], path: Path) -> Iterator[Outcome]:
        """Ask the checkpoint each vector, all that need the same model one after another."""
        model = built = None
        for vector in vectors:
            try:
                pixels = self._pixels(vector)
            except (DownloadError, MissingFile, BadImage) as error:
                self.say(f"  MISSING {vector.picture}: {error}")
                yield Outcome.MISSING
                continue
            if model is None or built != _model(vector):
                built = _model(vector)
                model = build_from_checkpoint(vector.kind, path, image_size=vector.image_size).to(self.device).eval()
            with torch.no_grad():
                for finding in vector.ask(model, normalize(pixels.to(self.device), model.pixels)):
                    self.say(f"  {_line(finding)} ({vector.picture} at {vector.image_size} pixels; {vector.origin})")
                    yield Outcome.HOLDS if finding.holds else Outcome.DIFFERS

    def _pixels(self, vector: Vector[Any]) -> Tensor:
        """The picture of a vector as pixels uint8 [1, 3, S, S]."""
        name, address = vector.picture, self.pictures[vector.picture]
        if not is_web_address(address):
            path = resolve(address)
        elif self.picture_folder is not None:
            path = self.picture_folder / name
        else:
            path = download(address, cache_dir() / "pictures" / name)
        if not path.is_file():
            raise MissingFile(f"{path}: there is no such picture; it comes from {address}")
        return EvalTransform(vector.image_size)(open_image(path))[None]


def _model(vector: Vector[Any]) -> tuple[str, int]:
    """What tells apart the models that vectors of one checkpoint need."""
    return vector.kind.__name__, vector.image_size


def _line(finding: Finding) -> str:
    verdict = "ok" if finding.holds else "DIFFERS"
    if finding.difference is None:
        return f"{verdict} {finding.what}: got {finding.got!r}, expected {finding.expected!r}"
    numbers = f"got {finding.got:.5f}, expected {finding.expected:.5f}, difference {finding.difference:+.5f}"
    return f"{verdict} {finding.what}: {numbers}"
