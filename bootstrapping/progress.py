"""How far a CapFilt run is: images and texts of all processes, the share kept so far, pictures that cannot be used."""

import time
from collections.abc import Sequence
from datetime import timedelta

from bootstrapping.scores import SYNTHETIC, WEB, TextScore
from data.media.image_file import TooManyBadImages
from engine.log import logger
from engine.shared_work import SharedWork

_FIRST_JUDGED = 10_000  # images; before the end, the share of bad ones among fewer says little about a corpus


class RunProgress:
    """Counts in the processes' store, so that any process sees those of all.

    Args:
        units: how many are to be done in this run.
        threshold: probability from which on a text counts as kept.
        max_bad_images: share of images that may be unusable.
    """

    def __init__(self, work: SharedWork, units: int, threshold: float, max_bad_images: float) -> None:
        self._work, self._units, self._threshold, self._max_bad = work, units, threshold, max_bad_images
        self._began = time.perf_counter()

    def count(self, rows: Sequence[TextScore], images: int, bad: Sequence[tuple[str, str]]) -> None:
        """Count a batch.

        Args:
            rows: its texts.
            images: how many of them were read.
            bad: (name, reason) of those that were not.

        Raises TooManyBadImages as soon as more of them are bad than may be.
        """
        for source in (WEB, SYNTHETIC):
            of_source = [row for row in rows if row.source == source]
            self._work.add(source, len(of_source))
            self._work.add(f"{source} kept", sum(row.match >= self._threshold for row in of_source))
        total = self._work.add("images", images + len(bad))
        failed = self._work.add("bad", len(bad))
        if bad:
            check_share_of_bad(failed, max(total, _FIRST_JUDGED), self._max_bad, bad[-1])

    def unit_done(self) -> None:
        """Count a unit."""
        self._work.add("units", 1)

    def report(self) -> None:
        """Log how far the run is."""
        seconds = time.perf_counter() - self._began
        units, images, bad = (self._work.add(name, 0) for name in ("units", "images", "bad"))
        parts = [f"{images / seconds:.3g} images/s"]
        for source in (WEB, SYNTHETIC):
            if texts := self._work.add(source, 0):
                parts.append(f"{self._work.add(f'{source} kept', 0) / texts:.1%} of {texts:,} {source} texts kept")
        if bad:
            parts.append(f"{bad:,} images unusable")
        if units:
            parts.append(f"ETA {timedelta(seconds=round(seconds * (self._units - units) / units))}")
        logger.info("units [%d/%d]  %s", units, self._units, "  ".join(parts))


def check_share_of_bad(bad: int, images: int, most: float, last: tuple[str, str]) -> None:
    """Raise TooManyBadImages, with the last one, where more than the share `most` of the images cannot be used."""
    if bad > most * images:
        name, reason = last
        raise TooManyBadImages(
            f"{bad:,} of {images:,} images cannot be used, more than max_bad_images = {most:g}; the last one is "
            f"{name}: {reason}. What was scored stays: repair the corpus, or raise max_bad_images, and start again"
        )
