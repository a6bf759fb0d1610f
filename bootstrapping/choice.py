"""`capfilt.py select FOLDER key=value ...`: choose among the texts that a run scored, and write what is kept.

No network runs, and nothing of the run's output is changed: try one threshold after another.
"""

import argparse
import itertools
import json
import logging
import math
import os
import sys
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from bootstrapping.blocks import Block, blocks, colliding, in_order
from bootstrapping.lists import json_records, open_list
from bootstrapping.page import write_page
from bootstrapping.pictures import picture_opener
from bootstrapping.samples import Samples
from bootstrapping.scores import FOLDER, SYNTHETIC, WEB, Scores, open_scores
from bootstrapping.selection import Chosen, Rule, choose, least_of_share
from bootstrapping.statistics import Statistics, statistics
from bootstrapping.truth import Truth
from bootstrapping.uids import UidSet, write_uids
from bootstrapping.whole_files import write_whole
from files import resolve
from settings import ConfigError, Settings, UserError, check, describe, load_config, setting
from settings.flags import Parser, file_path
from settings.messages import message

if TYPE_CHECKING:
    from bootstrapping.shards import ShardWriter

logger = logging.getLogger("blip.capfilt")

_THRESHOLD = 0.5  # of the paper's authors
_UNUSABLE_SHOWN = 20  # on the page
LISTS = {WEB: "filtered_web.json", SYNTHETIC: "filtered_synthetic.json", "both": "both.json"}


@dataclass
class Selection(Settings):
    """The keys of the choice."""

    threshold: float | None = setting(
        None, f"keep texts whose matching probability is at least this; {_THRESHOLD} where no other way is chosen"
    )
    keep: float | None = setting(None, "instead: keep this share of all texts, those of the highest probability")
    by_source: bool = setting(False, "with `keep`: that share of the web's texts, and of the synthetic ones")
    cosine: float | None = setting(None, "instead: keep texts whose cosine is at least this")
    captions_per_image: int | None = setting(None, "keep only the best so many texts of an image; null: all")
    out: str | None = setting(None, "folder to write to; null: selected/ in the run's output folder")
    shards: bool = setting(False, "also write the corpus' shards (or Parquet files) anew, with the kept texts")
    truth: str | None = setting(
        None, "JSON file {uid: true | false}: does the web's text belong to its image; reports how right the filter is"
    )
    gallery: int = setting(24, "examples of each kind on the page capfilt.html")

    def __post_init__(self) -> None:
        ways = [name for name in ("threshold", "keep", "cosine") if getattr(self, name) is not None]
        if len(ways) > 1:
            raise ConfigError(f"{' and '.join(ways)}: give one of them")
        check(self.threshold is None or 0 <= self.threshold <= 1, "threshold", self.threshold, "from 0 to 1")
        check(self.keep is None or 0 < self.keep <= 1, "keep", self.keep, "above 0, at most 1")
        check(self.cosine is None or -1 <= self.cosine <= 1, "cosine", self.cosine, "from -1 to 1")
        check(not self.by_source or self.keep is not None, "by_source", self.by_source, "false without keep")
        most = self.captions_per_image
        check(most is None or most >= 1, "captions_per_image", most, "1 or more")
        check(0 <= self.gallery <= 1000, "gallery", self.gallery, "from 0 to 1000")
        super().__post_init__()

    def rule(self, scores: Scores) -> Rule:
        """The rule that these keys mean; `keep` is looked up in the scores."""
        if self.keep is not None:
            least = least_of_share(scores, "match", self.keep, self.by_source)
            return Rule("match", least, self.captions_per_image)
        if self.cosine is not None:
            return Rule("cosine", dict.fromkeys((WEB, SYNTHETIC), self.cosine), self.captions_per_image)
        threshold = _THRESHOLD if self.threshold is None else self.threshold
        return Rule("match", dict.fromkeys((WEB, SYNTHETIC), threshold), self.captions_per_image)


def select(arguments: Sequence[str]) -> int:
    """Run `capfilt.py select` with these arguments; its exit status: 0, or 1 after an error, which is printed."""
    parser = Parser(
        prog="capfilt.py select",
        description=__doc__,
        epilog=f"keys:\n{describe(Selection)}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=file_path, help="the output folder of capfilt.py")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="see the keys below")
    flags = parser.parse_args(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    try:
        write_selection(flags.folder, load_config(Selection, None, flags.overrides))
    except Exception as error:
        explanation = _explained(error)
        if explanation is None:
            raise
        print(f"capfilt.py select: {message(explanation, sys.stderr.encoding)}", file=sys.stderr)
        return 1
    return 0


def _explained(error: Exception) -> str | None:
    """What to tell the user of an error; None of an error that comes from a bug."""
    if isinstance(error, UserError):
        return str(error)
    from engine.failure import explain  # imports torch

    return explain(error)


def write_selection(folder: Path, selection: Selection) -> dict[str, Any]:
    """Choose among the scores in `folder` and write everything that `selection` asks for. Returns the summary."""
    scores = open_scores(folder)
    if not scores.rows:
        raise UserError(f"{folder / FOLDER}: the scores hold no text, so there is nothing to choose")
    units = scores.run.get("units")
    if isinstance(units, int) and len(scores.files) < units:
        logger.warning("%d of %d units of work have scores: capfilt.py has not finished", len(scores.files), units)
    out = folder / "selected" if selection.out is None else Path(os.path.expanduser(selection.out))
    inside = (folder / FOLDER).resolve()
    check(inside not in (out.resolve(), *out.resolve().parents), "out", out, "outside of the scores")
    check(out.is_dir() or not out.exists(), "out", out, "a folder")
    truth = Truth(resolve(selection.truth)) if selection.truth is not None else None
    shards = _shard_writer(scores, out) if selection.shards else None
    rule = selection.rule(scores)
    found, samples = _write_lists(scores, rule, truth, out, selection.gallery)
    if shards is not None:
        shards.write(rule)
    summary = _summary(scores, selection, rule, found, truth)
    with write_whole(out / "summary.json") as file:
        file.write(json.dumps(summary, indent=2, allow_nan=False).encode() + b"\n")
    unusable = itertools.islice((bad for file in scores.files for bad in file.about.get("bad", ())), _UNUSABLE_SHOWN)
    write_page(out / "capfilt.html", summary, found, samples, list(unusable), picture_opener(scores.run))
    _log(summary, out)
    return summary


def _shard_writer(scores: Scores, out: Path) -> "ShardWriter":
    from bootstrapping.shards import ShardWriter  # imports torch

    return ShardWriter(scores, out)


@dataclass(frozen=True)
class _Chosen:
    """What is written and counted of a block."""

    block: Block
    chosen: Chosen
    statistics: Statistics
    uids: np.ndarray
    records: dict[str, Any]


def _write_lists(
    scores: Scores, rule: Rule, truth: Truth | None, out: Path, examples: int
) -> tuple[Statistics, Samples]:
    """Write the lists and the uids of what is kept. Raises CollidingUids, and then writes nothing."""

    def work(block: Block) -> _Chosen:
        chosen = choose(block, rule)
        kept = np.flatnonzero(chosen.kept)
        records = json_records(block.column("image").take(kept), block.column("text").take(kept))
        synthetic = block.synthetic[kept]
        lists = {WEB: records.filter(~synthetic), SYNTHETIC: records.filter(synthetic), "both": records}
        uids = block.uids[np.unique(block.image_numbers[kept])]
        return _Chosen(block, chosen, statistics(block, chosen, len(uids), truth), uids, lists)

    total, samples = Statistics(), Samples(examples)
    all_uids, kept_uids = UidSet(scores.rows), UidSet(scores.rows)
    with ExitStack() as stack:
        lists = {source: stack.enter_context(open_list(out / name)) for source, name in LISTS.items()}
        for one in in_order(work, blocks(scores.files)):
            for source, records in one.records.items():
                lists[source].add(records)
            total.add(one.statistics)
            samples.add(one.block, one.chosen)
            all_uids.add(one.block.uids)
            kept_uids.add(one.uids)
        for uid in all_uids.repeated():
            raise _collision(scores, uid)
    write_uids(out / "uids.npy", kept_uids.sorted())
    return total, samples


def _collision(scores: Scores, uid: str) -> UserError:
    """The error that names two places of a uid."""
    number = np.frombuffer(bytes.fromhex(uid), "S16")
    places: list[tuple[Path, str]] = []
    for block in blocks(scores.files, ("uid", "image")):
        for image in np.flatnonzero(block.uids == number):
            places.append((block.path, str(block.column("image")[int(block.firsts[image])])))
            if len(places) == 2:
                return colliding(uid, places)
    raise RuntimeError(f"uid {uid} stands once when read again: did the scores change meanwhile?")


def _summary(
    scores: Scores, selection: Selection, rule: Rule, found: Statistics, truth: Truth | None
) -> dict[str, Any]:
    about = scores.files[0].about
    keys = {name: value for name, value in asdict(selection).items() if name not in ("out", "truth", "gallery")}
    return {
        "selection": keys,
        "score": rule.score,
        "least_score": {
            source: rule.least[source]
            for source, counts in found.sources.items()
            if counts.texts and not math.isnan(rule.least[source])
        },
        "captioner": about.get("captioner"),
        "filter": about.get("filter"),
        "images": found.images,
        "images_kept": found.images_kept,
        "images_not_used": sum(len(file.about.get("bad", ())) for file in scores.files),
        "texts": {source: counts.record() for source, counts in found.sources.items()},
        **({"truth": found.truth.record()} if truth is not None else {}),
    }


def _log(summary: dict[str, Any], out: Path) -> None:
    for source, counts in summary["texts"].items():
        if counts["texts"]:
            logger.info("%s: %s of %s texts kept", source, f"{counts['kept']:,}", f"{counts['texts']:,}")
    logger.info("%s of %s images kept", f"{summary['images_kept']:,}", f"{summary['images']:,}")
    if not summary["images_kept"]:
        logger.warning("no text is kept: choose a lower threshold")
    logger.info("written to %s", out)
