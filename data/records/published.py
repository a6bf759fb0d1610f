"""The annotation files that were published with the paper: their names, and where a missing one comes from."""

from pathlib import Path

from files import download, resolve
from settings import MissingFile

ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"
WEB_ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/datasets/"

_NAMES = (
    *(f"coco_karpathy_{split}.json" for split in ("train", "val", "test", "val_gt", "test_gt")),
    *(f"flickr30k_{split}.json" for split in ("train", "val", "test")),
    *(f"{name}.json" for name in ("vqa_train", "vqa_val", "vg_qa", "vqa_test", "answer_list")),
    *(f"nlvr_{split}.json" for split in ("train", "dev", "test")),
    *(f"nocaps_{split}.json" for split in ("val", "test")),
    "msrvtt_test.jsonl",
)
_WEB_NAMES = (
    f"{source}_{captions}.json"
    for source in ("ccs", "laion")
    for captions in ("filtered", "synthetic_filtered", "synthetic_filtered_large")
)
ADDRESSES = {name: ADDRESS + name for name in _NAMES} | {name: WEB_ADDRESS + name for name in _WEB_NAMES}


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
