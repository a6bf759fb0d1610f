"""Conversions of BLIP checkpoints on the Hugging Face hub, made by others: which released file each is known to hold.

`python -m models.weights.released` prints the table of docs/checkpoints.md.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class Conversion:
    """One conversion.

    Attributes:
        name: of its repository.
        task: as in `Released`: which model it fits.
        source: the released checkpoint that it is known to hold; None where none is, and then no published score may
            stand beside its own.
        reason: how that is known, or why it is not.
    """

    name: str
    task: str
    source: str | None
    reason: str


_CONVERTER = "the converter of `transformers` names that file"


def _likely(source: str) -> str:
    return f"its name suggests {source}; nothing else is known"


_TABLE = (
    Conversion("Salesforce/blip-itm-base-coco", "retrieval", "model_base_retrieval_coco", _CONVERTER),
    Conversion("Salesforce/blip-itm-large-coco", "retrieval", None, _likely("model_large_retrieval_coco")),
    Conversion("Salesforce/blip-itm-base-flickr", "retrieval", None, _likely("model_base_retrieval_flickr")),
    Conversion("Salesforce/blip-itm-large-flickr", "retrieval", None, _likely("model_large_retrieval_flickr")),
    Conversion(
        "Salesforce/blip-image-captioning-base",
        "caption",
        "model_base_capfilt_large",
        f"{_CONVERTER}, which is pre-trained only; it is not model_base_caption_capfilt_large",
    ),
    Conversion("Salesforce/blip-image-captioning-large", "caption", None, _likely("model_large_caption")),
    Conversion(
        "Salesforce/blip-vqa-base",
        "vqa",
        None,
        "its name suggests model_vqa, but the converter of `transformers` names model_base_vqa_capfilt_large",
    ),
    Conversion("Salesforce/blip-vqa-capfilt-large", "vqa", None, _likely("model_base_vqa_capfilt_large")),
)

CONVERSIONS: Mapping[str, Conversion] = {entry.name: entry for entry in _TABLE}


def markdown_table() -> str:
    """The table of docs/checkpoints.md, one line a conversion."""
    lines = ["| Hugging Face | task | holds | how that is known |", "| --- | --- | --- | --- |"]
    for entry in CONVERSIONS.values():
        source = f"`{entry.source}`" if entry.source else "not known"
        lines.append(f"| `{entry.name}` | {entry.task} | {source} | {entry.reason} |")
    return "\n".join(lines)
