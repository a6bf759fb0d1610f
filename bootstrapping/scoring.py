"""Scores all units of a corpus: processes draw them one at a time, and a finished one is a file."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bootstrapping.caption_filter import CaptionFilter
from bootstrapping.progress import RunProgress, check_share_of_bad
from bootstrapping.scores import FOLDER, SYNTHETIC, TextScore, open_scores, write_scores
from data.corpus.units import BadRecord, Corpus, CorpusImage, Unit
from data.media.image_file import BadImage
from data.media.read_ahead import read_ahead
from engine import Preemption, Run, first_decides
from engine.log import logger
from files import remove_unfinished
from transform.image import EvalTransform

Bad = tuple[str, str]  # what cannot be used, and why


def score_corpus(run: Run[Any], corpus: Corpus, models: CaptionFilter, about: Mapping[str, Any]) -> None:
    """Write the scores of every unit that has none yet. A signal ends this at once: only begun units are lost.

    Args:
        about: what the metadata of each file say besides what could not be used.
    """
    folder = run.output_dir / FOLDER
    remaining = first_decides(lambda: _remaining(folder, corpus.units))
    work, config = run.shared_work(), run.config
    progress = RunProgress(work, len(remaining), config.threshold, config.max_bad_images)
    preemption = Preemption()
    preemption.state_is_saved = True
    try:
        for number in work.draw(len(remaining)):
            unit = corpus.units[remaining[number]]
            rows: list[TextScore] = []
            unusable: list[Bad] = []
            read = written = 0
            for step, (scored, images, bad) in enumerate(_batches(run, corpus, unit, models), 1):
                rows += scored
                read += images
                written += sum(row.source == SYNTHETIC for row in scored)
                unusable += bad
                progress.count(scored, images, bad)
                if run.is_first and step % config.print_freq == 0:
                    progress.report()
            wordless = read * config.captions_per_image - written
            found = {"images": read, "bad": unusable, "without_a_word": wordless}
            write_scores(folder / f"{unit.name}.parquet", rows, {**about, **found})
            progress.unit_done()
        work.finish("images")
    finally:
        preemption.restore()
    if run.is_first:
        progress.report()


def _remaining(folder: Path, units: Sequence[Unit]) -> list[int]:
    """The numbers of the units without scores. Deletes what killed processes left unfinished."""
    folder.mkdir(parents=True, exist_ok=True)
    remove_unfinished(folder, "*.parquet")
    return [number for number, unit in enumerate(units) if not (folder / f"{unit.name}.parquet").exists()]


def _batches(
    run: Run[Any], corpus: Corpus, unit: Unit, models: CaptionFilter
) -> Iterator[tuple[list[TextScore], int, list[Bad]]]:
    """The texts of each batch of a unit's images with their scores, the number of images, and what cannot be used."""
    transforms = {size: EvalTransform(size) for size in models.image_sizes}
    config = run.config

    def decode(record: CorpusImage | BadRecord) -> dict[int, Tensor]:
        if isinstance(record, BadRecord):
            raise BadImage(record.name, record.reason)
        if reason := models.refusal(record):
            raise BadImage(record.image, reason)
        picture = record.open().read()
        return {size: transform(picture) for size, transform in transforms.items()}

    with closing(read_ahead(corpus.read(unit), decode, config.batch_size, max(1, config.workers()))) as batches:
        for batch in batches:
            bad = [(result.path, result.reason) for _, result in batch if isinstance(result, BadImage)]
            images, pictures = [], []
            for record, result in batch:
                if isinstance(record, CorpusImage) and not isinstance(result, BadImage):
                    images.append(record)
                    pictures.append(result)
            scored: list[TextScore] = []
            if images:
                pixels = {size: torch.stack([each[size] for each in pictures]).to(run.device) for size in transforms}
                with run.autocast(config.eval_precision):
                    scored = models.scores(images, pixels)
            yield scored, len(images), bad


def list_unusable(run: Run[Any]) -> None:
    """Write `unusable.json`, what could not be used and why, of all units; TooManyBadImages where it is too much."""
    files = open_scores(run.output_dir).files
    if wordless := sum(file.about.get("without_a_word", 0) for file in files):
        logger.warning("%s synthetic texts hold no word: they are left out", f"{wordless:,}")
    bad: list[Bad] = [(name, reason) for file in files for name, reason in file.about["bad"]]
    run.write_json("unusable.json", bad)
    if bad:
        images = len(bad) + sum(file.about["images"] for file in files)
        check_share_of_bad(len(bad), images, run.config.max_bad_images, bad[-1])
