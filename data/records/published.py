"""The annotation files that were published with the paper: their splits, names and addresses."""

import os
from dataclasses import dataclass
from pathlib import Path

from files import download, resolve
from settings import MissingFile

ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"
WEB_ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/datasets/"


@dataclass(frozen=True)
class PublishedSplit:
    """One published split.

    Attributes:
        file: the name of its annotation file; without suffix, it is the key of the split in `SPLITS`.
        name: the usual name of the split, for people.
        figures: the beginning of the names of its published figures (`COCO CIDEr`); empty where none were published.
    """

    file: str
    name: str
    figures: str = ""


_SPLITS = (
    PublishedSplit("coco_karpathy_train.json", "COCO Karpathy train"),
    PublishedSplit("coco_karpathy_val.json", "COCO Karpathy val"),
    PublishedSplit("coco_karpathy_test.json", "COCO Karpathy test", "COCO"),
    PublishedSplit("flickr30k_train.json", "Flickr30k train"),
    PublishedSplit("flickr30k_val.json", "Flickr30k val"),
    PublishedSplit("flickr30k_test.json", "Flickr30k test", "Flickr30k"),
    PublishedSplit("vqa_train.json", "VQA v2 train"),
    PublishedSplit("vqa_val.json", "VQA v2 val"),
    PublishedSplit("vqa_test.json", "VQA v2 test", "VQA"),
    PublishedSplit("vg_qa.json", "Visual Genome QA"),
    PublishedSplit("nlvr_train.json", "NLVR2 train"),
    PublishedSplit("nlvr_dev.json", "NLVR2 dev", "NLVR2 dev"),
    PublishedSplit("nlvr_test.json", "NLVR2 test-P", "NLVR2 test-P"),
    PublishedSplit("nocaps_val.json", "NoCaps val", "NoCaps"),
    PublishedSplit("nocaps_test.json", "NoCaps test"),
    PublishedSplit("msrvtt_test.jsonl", "MSR-VTT test", "MSR-VTT"),
)
SPLITS = {Path(split.file).stem: split for split in _SPLITS}

_OTHERS = ("coco_karpathy_val_gt.json", "coco_karpathy_test_gt.json", "answer_list.json")
_WEB_NAMES = (
    f"{source}_{captions}.json"
    for source in ("ccs", "laion")
    for captions in ("filtered", "synthetic_filtered", "synthetic_filtered_large")
)
ADDRESSES = {name: ADDRESS + name for name in (*(split.file for split in _SPLITS), *_OTHERS)} | {
    name: WEB_ADDRESS + name for name in _WEB_NAMES
}


def annotation_file(path: str | Path, kind: str = "annotation file") -> Path:
    """The annotation file at `path`; one that is missing but has a published name is downloaded to there first.

    Errors call it `kind`.

    Raises MissingFile for a missing file of another name, DownloadError (which names the file, its address and
    where it was looked for) when a published one cannot be fetched.
    """
    path = resolve(path)
    if os.path.isdir(path):  # unlike pathlib's, these two take any name
        raise MissingFile(f"{kind} {path} is a folder: name a file in it")
    if os.path.exists(path):
        return path
    if path.name in ADDRESSES:
        return download(ADDRESSES[path.name], path)
    name, place = map(_shown, (path, path.absolute()))
    raise MissingFile(
        f"{kind} {name} does not exist (looked for at {place}), and {_shown(path.name)!r} is not one of the "
        "published files, so it cannot be downloaded: check the path in the config"
    )


def _shown(path: str | Path) -> str:
    """A path for a message of one line: control characters and the like are escaped."""
    return str(path) if str(path).isprintable() else ascii(str(path))[1:-1]
