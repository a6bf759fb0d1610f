"""The annotation files that were published with the paper: names, splits, and where a missing one comes from."""

from dataclasses import dataclass
from pathlib import Path

from files import download, resolve
from settings import MissingFile

ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"
WEB_ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/datasets/"


@dataclass(frozen=True)
class Split:
    """One published split.

    Attributes:
        file: its annotation file; the name without suffix stands for the split wherever one is spoken of.
        name: what people call it.
        figures: what the names of its published figures begin with (`COCO CIDEr`); empty where none were published.
    """

    file: str
    name: str
    figures: str = ""


_SPLITS = (
    Split("coco_karpathy_train.json", "COCO Karpathy train"),
    Split("coco_karpathy_val.json", "COCO Karpathy val"),
    Split("coco_karpathy_test.json", "COCO Karpathy test", "COCO"),
    Split("flickr30k_train.json", "Flickr30k train"),
    Split("flickr30k_val.json", "Flickr30k val"),
    Split("flickr30k_test.json", "Flickr30k test", "Flickr30k"),
    Split("vqa_train.json", "VQA v2 train"),
    Split("vqa_val.json", "VQA v2 val"),
    Split("vqa_test.json", "VQA v2 test", "VQA"),
    Split("vg_qa.json", "Visual Genome QA"),
    Split("nlvr_train.json", "NLVR2 train"),
    Split("nlvr_dev.json", "NLVR2 dev", "NLVR2 dev"),
    Split("nlvr_test.json", "NLVR2 test-P", "NLVR2 test-P"),
    Split("nocaps_val.json", "NoCaps val", "NoCaps"),
    Split("nocaps_test.json", "NoCaps test"),
    Split("msrvtt_test.jsonl", "MSR-VTT test", "MSR-VTT"),
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


def annotation_file(path: str | Path) -> Path:
    """The annotation file at `path`; one that is missing but has a published name is downloaded to there first.

    Raises MissingFile for a missing file of another name, DownloadError (which names the file, its address and
    where it was looked for) when a published one cannot be fetched.
    """
    path = resolve(path)
    if path.is_dir():
        raise MissingFile(f"annotation file {path} is a folder: name a file in it")
    if path.exists():
        return path
    if path.name in ADDRESSES:
        return download(ADDRESSES[path.name], path)
    raise MissingFile(
        f"annotation file {path} does not exist (looked for at {path.absolute()}), and {path.name!r} is not one of the "
        "published files, so it cannot be downloaded: check the path in the config"
    )
