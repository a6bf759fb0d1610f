"""Check a config's data before a run: `python -m data.check configs/caption_coco.yaml`

It prints for each split how many records and texts there are, and each problem with its file and record: wrong fields,
ids that occur twice, images that are missing or cannot be read. A contact sheet (PNG) for each split shows whether
texts fit their images. The exit status is 0 when nothing is wrong, 1 when something is, 2 when the config is wrong.

The task follows from the config's file name (pretrain, caption, retrieval, msrvtt, vqa, nlvr, nocaps, capfilt) or from
--task.
Every image is looked for; `--read` of them in each split, evenly spread, are decoded.
"""

import contextlib
import json
import logging
import os
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from data.caption import CaptionEval
from data.check.contact_sheet import ON_SHEET, contact_sheet
from data.check.corpus import check_corpus
from data.check.split_check import EvenSubset, SplitCheck
from data.check.tasks import CORPUS, TASKS, Annotation, Task, task_of
from data.config import CaptionData, PretrainData, VideoData, VQAData
from data.config_base import DataConfig, PublishedData
from data.corpus.sources import CorpusData
from data.media.image_file import BadImage, open_image
from data.media.video import read_frames
from data.nlvr import MAX_WORDS as NLVR_WORDS
from data.records.annotations import AnnotationError, records
from data.records.formats import has_words
from data.records.pictures import picture_at, picture_exists
from data.records.shards import Shards, shard_files
from data.records.uids import UidList
from data.text import CAPTION_WORDS, clean_caption, least_tokens
from data.vqa import answer_list
from files import atomic_write, open_regular
from settings import ConfigError, MissingPackage, UserError, load_config
from settings.flags import Parser, file_path
from settings.messages import message, printable_lines
from settings.reader import find_config
from transform.image import EvalTransform

_MOST_TOKENS = 510  # BERT's 512, but for the two that begin and end a text
_COCO_TRUTH = '{"images": [{"id": 1}], "annotations": [{"image_id": 1, "id": 1, "caption": "a cat"}]}'


def check_split(task: Task, config: DataConfig, split: str, read: int) -> tuple[SplitCheck, Image.Image | None]:
    """Check one split: the result, and a contact sheet (None where no picture can be read)."""
    result = SplitCheck()
    unique = task.unique + (() if split == "train" else task.unique_in_evaluation)
    first_of: dict[tuple[str, object], str] = {}
    exists = picture_exists if isinstance(config, PretrainData) else os.path.exists
    chosen: EvenSubset[tuple[str, str, list[str]]] = EvenSubset(read)
    for place, record in _good_records(task, config, split, result):
        for name in unique:
            if record[name] is not None and first_of.setdefault((name, record[name]), place) != place:
                result.problem(f"{name} that an earlier record has", f"{place}: {record[name]!r}")
        missing = [file for file in task.files(config, record) if not exists(file)]
        if missing:
            result.problem("missing image", f"{place}: {', '.join(missing)}")
        else:
            chosen.offer((place, task.text(record), task.files(config, record)))
    shown: EvenSubset[tuple[Image.Image, str]] = EvenSubset(ON_SHEET)  # only these stay in memory
    for place, text, files in chosen.kept:
        picture = _read_picture(config, place, files, result)
        if picture is not None:
            shown.offer((picture, text))
    try:
        if isinstance(config, PretrainData):
            _check_shards(config, read, result, shown)
        elif isinstance(config, CaptionData) and split != "train":
            _check_ground_truth(config, split, result)
        elif isinstance(config, VQAData) and split != "train" and (config.answer_list or not config.train_file):
            result.count("candidate answers", len(answer_list(config.answer_file())))
    except MissingPackage:
        raise
    except (UserError, OSError, ValueError) as error:
        result.problem("broken file", str(error))
    return result, contact_sheet(shown.kept) if shown.kept else None


def _good_records(task: Task, config: DataConfig, split: str, result: SplitCheck) -> Iterator[tuple[str, Annotation]]:
    """The records that are in their format, each with its place; the others become problems."""
    format = task.formats[split]
    files = config.annotations(split) + (config.laion_files() if isinstance(config, PretrainData) else [])
    for file in files:
        try:
            for number, raw in enumerate(records(file, format), start=1):
                place = f"{file}, record {number}"
                result.count("records")
                try:
                    record = format.from_row(format.to_row(raw))
                except ValueError as error:
                    result.problem("wrong field", f"{place}: {error}")
                    continue
                result.count("captions", len(record.get("caption") or []))
                _check_texts(place, raw, result)
                _check_lengths(place, record, result)
                yield place, record
        except (AnnotationError, OSError) as error:
            result.problem("broken file", str(error))


def _check_texts(place: str, raw: Annotation, result: SplitCheck) -> None:
    """Note the texts of a record that say nothing; of captions and answers, training leaves them out."""
    for name, keep in (("caption", has_words), ("question", has_words), ("sentence", has_words), ("answer", str.strip)):
        written = raw.get(name)
        for text in written if isinstance(written, list) else [written]:
            if isinstance(text, str) and not keep(text):
                result.problem(f"{name} that is empty or holds no word", f"{place}: {ascii(text)}")


def _check_lengths(place: str, record: Annotation, result: SplitCheck) -> None:
    """Count the captions that are cut; note what is too long to be trained on, of which training names the first."""
    for caption in record.get("caption") or []:
        if len(caption) > 2 * CAPTION_WORDS and clean_caption(caption) != clean_caption(caption, len(caption)):
            result.count(f"captions cut after {CAPTION_WORDS} words")
    sentence = clean_caption(record.get("sentence") or "", NLVR_WORDS)
    for name, texts in (("answer", record.get("answer") or []), ("sentence", [sentence])):
        for text in texts:
            if (tokens := least_tokens(text)) > _MOST_TOKENS:
                result.problem(f"{name} of more tokens than BERT reads", f"{place}: {tokens:,} or more, {text[:40]!a}")


def _read_picture(config: DataConfig, place: str, files: list[str], result: SplitCheck) -> Image.Image | None:
    """The record's picture: of a clip its first frame, of a pair both side by side. None if it cannot be read."""
    result.count("records whose images were read")
    try:
        if isinstance(config, VideoData):
            return read_frames(files[0], config.num_frm_test)[0]
        if isinstance(config, PretrainData):
            return open_image(picture_at(files[0]), files[0])
        pictures = [open_image(file) for file in files]
    except BadImage as error:
        result.problem("unreadable image", f"{place}: {error}")
        return None
    side = max(max(picture.size) for picture in pictures)
    return pictures[0] if len(pictures) == 1 else _side_by_side([p.resize((side, side)) for p in pictures])


def _side_by_side(pictures: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (sum(picture.width for picture in pictures), pictures[0].height))
    for number, picture in enumerate(pictures):
        page.paste(picture, (number * pictures[0].width, 0))
    return page


def _check_shards(
    config: PretrainData, read: int, result: SplitCheck, shown: EvenSubset[tuple[Image.Image, str]]
) -> None:
    """Count the samples of the shards, and read some of their pictures."""
    if not config.shards:
        return
    shards = Shards(shard_files(config.shards), UidList(config.uids) if config.uids else None, config.staging())
    result.count("shards", len(shards.files))
    result.count("samples in shards", len(shards))
    if not len(shards):
        raise ValueError(f"no sample with a picture and a caption in shards: {', '.join(config.shards)}")
    rows = range(0, len(shards), -(-len(shards) // read))
    stager = shards.stager(((np.array([row]), np.array([0])) for row in rows), 0)
    with stager or contextlib.nullcontext():
        if stager is not None:
            stager.start()
        for number, row in enumerate(rows):
            try:
                sample = shards[row]
                shown.offer((open_image(sample["image"], sample["name"]), sample["caption"][0]))
            except BadImage as error:
                result.problem("unreadable image", str(error))
            if stager is not None:
                stager.consumed(number)


def _check_ground_truth(config: CaptionData, split: str, result: SplitCheck) -> None:
    """Check that every image of the split has a caption in the split's ground truth."""
    file = config.ground_truth(split)
    if file is None and not result.counts.get("captions"):
        files = ", ".join(map(str, config.annotations(split)))
        result.problem("no caption to score by", f"{files}: give its records a 'caption', or name {split}_gt_file")
    if file is None or result.problems:  # with wrong records or ids there is nothing to compare
        return
    try:
        with open_regular(file) as truth:
            known = {caption["image_id"] for caption in json.loads(truth.read())["annotations"]}
    except (TypeError, KeyError, RecursionError):
        raise ValueError(f"{file}: expected ground truth as COCO has it: {_COCO_TRUTH}") from None
    result.count("images with ground truth", len(known))
    for image_id in CaptionEval(config.annotations(split), config.image_root, EvalTransform(1)).image_ids:
        if image_id not in known:
            result.problem(f"image without a caption in {file}", f"image_id {image_id!r}")


def _has_split(config: DataConfig, split: str) -> bool:
    """Whether the config has annotations for the split: an own file, or published ones."""
    if not isinstance(config, PublishedData):
        return True
    try:
        own = config.own_split(split)
    except ConfigError:  # only an own val or test, to evaluate on
        return False
    return own == split or (own is None and (split == "train" or config.published_file(split) is not None))


def main(arguments: list[str] | None = None) -> int:
    parser = Parser(prog="python -m data.check", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("config", type=file_path, help="YAML file of a task")
    parser.add_argument("--task", choices=[*TASKS, CORPUS], help="what the config is for, where its name does not tell")
    parser.add_argument("--out", type=file_path, default=Path("output/check"), help="folder of the contact sheets")
    parser.add_argument("--read", type=int, default=20_000, help="images of a split that are decoded (default 20,000)")
    options = parser.parse_args(arguments)
    if options.read < 1:
        parser.error(f"--read {options.read}: it must be at least 1")
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    try:
        file = find_config(options.config)
        name = options.task or task_of(file)
        if name is None:
            parser.error(
                f"the name {file.name} does not tell the task: add --task, one of {', '.join([*TASKS, CORPUS])}"
            )
        kind = CorpusData if name == CORPUS else TASKS[name].config
        config = load_config(kind, file, part=True)  # the scripts read the model's and training's keys
    except ConfigError as error:
        parser.error(str(error))

    good = True
    for split in ["corpus"] if isinstance(config, CorpusData) else TASKS[name].formats:
        if not isinstance(config, CorpusData) and not _has_split(config, split):
            continue
        print(f"{split}: {name} data of {file}")
        try:
            if isinstance(config, CorpusData):
                result, sheet = check_corpus(config, options.read)
            else:
                result, sheet = check_split(TASKS[name], config, split, options.read)
        except MissingPackage as error:
            parser.error(str(error))
        except (UserError, OSError, ValueError) as error:
            print(f"  {message(error, sys.stdout.encoding)}")
            good = False
            continue
        print(printable_lines(str(result), sys.stdout.encoding))
        good = good and not result.problems and bool(result.counts)
        if sheet is not None:
            page = options.out / f"{file.stem}_{split}.png"
            try:
                with atomic_write(page) as temporary:
                    sheet.save(temporary)
            except OSError as error:
                parser.error(f"--out {options.out}: the contact sheet cannot be written ({error.strerror or error})")
            print(f"  contact sheet: {page}")
    print("nothing is wrong" if good else "something is wrong, see above")
    return 0 if good else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except BrokenPipeError:  # whoever read our lines, such as `head`, has enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # or Python complains of it while it ends
        sys.exit(1)
