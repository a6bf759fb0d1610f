"""The annotation files that were published with the paper: their names, and where each comes from when it is missing."""

from pathlib import Path

from download import download
from utils import resolve

ADDRESS = "https://storage.googleapis.com/sfr-vision-language-research/datasets/"

NAMES = frozenset(
    """
    coco_karpathy_train.json coco_karpathy_val.json coco_karpathy_test.json
    coco_karpathy_val_gt.json coco_karpathy_test_gt.json
    flickr30k_train.json flickr30k_val.json flickr30k_test.json
    vqa_train.json vqa_val.json vg_qa.json vqa_test.json answer_list.json
    nlvr_train.json nlvr_dev.json nlvr_test.json
    nocaps_val.json nocaps_test.json
    msrvtt_test.jsonl
    """.split()
)


def annotation_file(path: str | Path) -> Path:
    """The annotation file at `path`; one that is missing but has a published name is downloaded to there first.

    Raises FileNotFoundError for a missing file of another name, DownloadError (which names the file, its address and
    where it was looked for) when a published one cannot be fetched.
    """
    path = resolve(path)
    if path.exists():
        return path
    if path.name in NAMES:
        return download(ADDRESS + path.name, path)
    raise FileNotFoundError(
        f"annotation file {path} does not exist (looked for at {path.absolute()}), and {path.name!r} is not one of the "
        "published files, so it cannot be downloaded: check the path in the config"
    )
