"""The released BLIP checkpoints, the paper's (arXiv 2201.12086) and LAVIS's: what each is, its URL, published scores.

`python -m models.weights.released` prints the tables of docs/checkpoints.md.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from models.weights import conversions
from models.weights.conversions import CONVERSIONS

PAPER = "https://storage.googleapis.com/sfr-vision-language-research/BLIP/models/"
LAVIS = "https://storage.googleapis.com/sfr-vision-language-research/LAVIS/models/BLIP/"

IMAGES_14M = "14M images: COCO, Visual Genome, CC3M, CC12M, SBU"
IMAGES_129M = "129M images: the 14M and LAION-115M"
IMAGES_129M_CAPFILT_L = "129M images, captions bootstrapped by a ViT-L captioner and filter"


@dataclass(frozen=True)
class Released:
    """One released checkpoint.

    Attributes:
        name: the file's name without `.pth`; `pretrained: NAME` works wherever a path does.
        task: 'pretrain', 'retrieval', 'caption', 'vqa' or 'nlvr': which model it fits. A 'pretrain' checkpoint is meant
            for fine-tuning, and performs poorly on every task without it.
        vit: size of the image encoder.
        image_size: side of the square images it was last trained on, in pixels.
        pretrained_on: the pre-training data.
        finetuned_on: the splits that it was fine-tuned on, by their annotation files' names without suffix; a score on
            one of them says nothing about new data. Where it is not known which splits, the data set's name.
        scores: published results (the paper's tables, or what LAVIS reports of its own files) by metric; empty for
            pre-training.
        folder: the address of the folder that holds the file.
        size, sha256: of the file, if known; checked after a download.
    """

    name: str
    task: str
    vit: str
    image_size: int
    pretrained_on: str
    finetuned_on: tuple[str, ...] = ()
    scores: Mapping[str, float] = field(default_factory=dict)
    folder: str = PAPER
    size: int | None = None
    sha256: str | None = None

    @property
    def url(self) -> str:
        return f"{self.folder}{self.name}.pth"


_VQA_SPLITS = ("vqa_train", "vqa_val", "vg_qa")


def _nocaps(cider: Sequence[float], spice: Sequence[float]) -> dict[str, float]:
    """Scores on NoCaps val: in-domain, near-domain, out-domain, all."""
    return {
        f"NoCaps {domain}{metric}": value
        for metric, values in (("CIDEr", cider), ("SPICE", spice))
        for domain, value in zip(("in-domain ", "near-domain ", "out-domain ", ""), values, strict=True)
    }


_TABLE = (
    Released("model_base_14M", "pretrain", "base", 224, IMAGES_14M),
    Released("model_base", "pretrain", "base", 224, IMAGES_129M),
    Released("model_base_capfilt_large", "pretrain", "base", 224, IMAGES_129M_CAPFILT_L),
    Released("model_large", "pretrain", "large", 224, IMAGES_129M),
    Released(
        "model_base_retrieval_coco",
        "retrieval",
        "base",
        384,
        IMAGES_129M,
        ("coco_karpathy_train",),
        {
            "COCO TR R@1": 81.9,
            "COCO IR R@1": 64.3,
            "MSR-VTT text-to-video R@1": 43.3,
            "MSR-VTT text-to-video R@5": 65.6,
            "MSR-VTT text-to-video R@10": 74.7,
        },
    ),
    Released(
        "model_large_retrieval_coco",
        "retrieval",
        "large",
        384,
        IMAGES_129M,
        ("coco_karpathy_train",),
        {"COCO TR R@1": 82.4, "COCO IR R@1": 65.1},
    ),
    Released(
        "model_base_retrieval_flickr",
        "retrieval",
        "base",
        384,
        IMAGES_129M,
        ("flickr30k_train",),
        {"Flickr30k TR R@1": 97.3, "Flickr30k IR R@1": 87.3},
    ),
    Released(
        "model_large_retrieval_flickr",
        "retrieval",
        "large",
        384,
        IMAGES_129M,
        ("flickr30k_train",),
        {"Flickr30k TR R@1": 97.4, "Flickr30k IR R@1": 87.6},
    ),
    Released(
        "model_base_caption_capfilt_large",
        "caption",
        "base",
        384,
        IMAGES_129M_CAPFILT_L,
        ("coco_karpathy_train",),
        {"COCO BLEU-4": 39.7, "COCO CIDEr": 133.3}
        | _nocaps(cider=(111.8, 108.6, 111.5, 109.6), spice=(14.9, 14.8, 14.2, 14.7)),
        size=896_081_425,
        sha256="96ac8749bd0a568c274ebe302b3a3748ab9be614c737f3d8c529697139174086",
    ),
    Released(
        "model_large_caption",
        "caption",
        "large",
        384,
        IMAGES_129M,
        ("coco_karpathy_train",),
        {"COCO BLEU-4": 40.4, "COCO CIDEr": 136.7}
        | _nocaps(cider=(114.9, 112.1, 115.3, 113.2), spice=(15.2, 14.9, 14.4, 14.8)),
    ),
    Released(
        "model_vqa",
        "vqa",
        "base",
        480,
        IMAGES_129M,
        _VQA_SPLITS,
        {"VQA test-dev": 78.24, "VQA test-std": 78.17},
    ),
    Released(
        "model_base_vqa_capfilt_large",
        "vqa",
        "base",
        480,
        IMAGES_129M_CAPFILT_L,
        _VQA_SPLITS,
        {"VQA test-dev": 78.25, "VQA test-std": 78.32},
    ),
    Released(
        "model_base_nlvr",
        "nlvr",
        "base",
        384,
        IMAGES_129M,
        ("nlvr_train",),
        {"NLVR2 dev": 82.48, "NLVR2 test-P": 83.08},
    ),
    Released(
        "blip_coco_retrieval",
        "retrieval",
        "base",
        384,
        IMAGES_129M_CAPFILT_L,
        ("coco_karpathy_train",),
        {"COCO TR R@1": 82.0, "COCO IR R@1": 64.5},
        LAVIS,
    ),
    Released(
        "blip_flickr_retrieval",
        "retrieval",
        "base",
        384,
        IMAGES_129M_CAPFILT_L,
        ("flickr30k_train",),
        {"Flickr30k TR R@1": 96.9, "Flickr30k IR R@1": 87.5},
        LAVIS,
    ),
    Released(
        "blip_coco_caption_base",
        "caption",
        "base",
        384,
        IMAGES_129M_CAPFILT_L,
        ("coco_karpathy_train",),
        {"COCO CIDEr": 133.5},
        LAVIS,
    ),
    Released("blip_okvqa", "vqa", "base", 480, IMAGES_129M_CAPFILT_L, ("OK-VQA",), folder=LAVIS),
    Released("blip_aokvqa", "vqa", "base", 480, IMAGES_129M_CAPFILT_L, ("A-OKVQA",), folder=LAVIS),
)

RELEASED: Mapping[str, Released] = {entry.name: entry for entry in _TABLE}


def find_released(source: str) -> Released | None:
    """Find the released checkpoint that `source` names: by hub name, or by the file name that a path or URL ends in.

    A path counts, too: from `~/weights/model_base_nlvr.pth`, an evaluation knows which scores were published. A hub
    name counts where it is known which file was converted.
    """
    if conversion := CONVERSIONS.get(source):
        return RELEASED[conversion.source] if conversion.source else None
    name = source.replace("\\", "/").rsplit("/", 1)[-1]
    return RELEASED.get(name.removesuffix(".pth"))


def markdown_table() -> str:
    """The table of docs/checkpoints.md, one line a checkpoint."""
    lines = [
        "| name | task | ViT | pixels | pre-trained on | fine-tuned on | published scores |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for entry in RELEASED.values():
        scores = ", ".join(f"{metric} {value:g}" for metric, value in entry.scores.items()) or "-"
        cells = [
            f"[`{entry.name}`]({entry.url})",
            entry.task,
            entry.vit,
            str(entry.image_size),
            entry.pretrained_on,
            ", ".join(entry.finetuned_on) or "-",
            scores,
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    print(markdown_table(), conversions.markdown_table(), sep="\n\n")
