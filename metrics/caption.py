"""Captions against references: BLEU-1..4, METEOR, ROUGE-L, CIDEr and SPICE as COCO's evaluation defines them.

The scorers are pycocoevalcap's. METEOR and SPICE are Java programs; without Java the others are computed all the same,
on the equivalent tokens of metrics/tokenize.py, and these two are named with their reason, never with a number.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsFloat

from metrics import java
from metrics.ground_truth import GroundTruthError, read_json
from metrics.scorers import require_scorers
from metrics.tokenize import ptb_tokenize

Captions = Mapping[Any, list[str]]  # image id -> captions


@dataclass(frozen=True)
class CaptionScores:
    """The scores of `score_captions`.

    Attributes:
        scores: metric -> value in percent (CIDEr too: 133.3, as papers print it), over all images.
        not_computed: metric -> why it is not among `scores`.
        per_image: image id -> metric -> value in percent.
        images: how many images were scored.
        unanswered: images of the ground truth without a prediction, which no score counts.
        tokenizer: 'java' or 'python', which agree on captions as people write them.
    """

    scores: dict[str, float]
    not_computed: dict[str, str]
    per_image: dict[Any, dict[str, float]]
    images: int
    unanswered: int
    tokenizer: str

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores should know, a sentence each."""
        missing = f"images of the ground truth without a caption, which no score counts: {self.unanswered}"
        return [missing] if self.unanswered else []


def score_captions(
    predictions: Sequence[Mapping[str, Any]], ground_truth: str | Path | Mapping[str, Any], use_java: bool = True
) -> CaptionScores:
    """Scores of `predictions` ({image_id, caption}, one an image) against references in COCO format (file or content).

    Without `use_java` METEOR and SPICE, whose programs take many seconds to start, are left out even where Java is.

    Raises ValueError where an image has two predictions, GroundTruthError where the ground truth has none for it,
    ScorersMissing where pycocoevalcap is not installed.
    """
    require_scorers()
    candidates = _by_image(predictions)
    references = read_references(ground_truth, candidates)
    if not candidates:
        raise ValueError("there are no predictions to score")
    unanswered = len(references) - len(candidates)
    return _score({image: references[image] for image in candidates}, candidates, unanswered, use_java)


def read_references(ground_truth: str | Path | Mapping[str, Any], images: Collection[Any] = ()) -> dict[Any, list[str]]:
    """Reference captions by image id, from COCO format: `annotations` with `image_id` and `caption`.

    Raises GroundTruthError where it is in another format, or one of `images` (ids) has no caption.
    """
    content = ground_truth if isinstance(ground_truth, Mapping) else read_json(ground_truth)
    where = "the ground truth" if isinstance(ground_truth, Mapping) else str(ground_truth)
    if not isinstance(content, Mapping) or "annotations" not in content:
        raise GroundTruthError(f"{where} is not in COCO format: it has no 'annotations' list of {{image_id, caption}}")
    references: dict[Any, list[str]] = {}
    for row, annotation in enumerate(content["annotations"]):
        if "image_id" not in annotation or "caption" not in annotation:
            raise GroundTruthError(f"{where}: annotation {row} lacks image_id or caption, it has {sorted(annotation)}")
        references.setdefault(annotation["image_id"], []).append(annotation["caption"])
    unknown = [image for image in images if image not in references]
    if unknown:
        raise GroundTruthError(
            f"{where}: {len(unknown)} of {len(images)} captioned images have no reference caption, image_id "
            f"{unknown[0]!r} among them: is this the ground truth of the split that is captioned?"
        )
    return references


def _by_image(predictions: Sequence[Mapping[str, Any]]) -> dict[Any, list[str]]:
    candidates: dict[Any, list[str]] = {}
    for prediction in predictions:
        if prediction["image_id"] in candidates:
            raise ValueError(f"image_id {prediction['image_id']!r} has two predictions: merge them to one an image")
        candidates[prediction["image_id"]] = [prediction["caption"]]
    return candidates


def _score(references: Captions, candidates: Captions, unanswered: int, use_java: bool) -> CaptionScores:
    from pycocoevalcap.bleu.bleu import Bleu
    from pycocoevalcap.cider.cider import Cider
    from pycocoevalcap.rouge.rouge import Rouge

    tokenize, tokenizer = (java.java_tokenize, "java") if use_java else (ptb_tokenize, "python")
    try:
        references, candidates = _tokenized(references, tokenize), _tokenized(candidates, tokenize)
    except java.JavaMissing:
        tokenize, tokenizer = ptb_tokenize, "python"
        references, candidates = _tokenized(references, tokenize), _tokenized(candidates, tokenize)

    scores: dict[str, float] = {}
    not_computed: dict[str, str] = {}
    per_image: dict[Any, dict[str, float]] = {image: {} for image in candidates}

    def keep(metric: str, total: SupportsFloat, each: Iterable[SupportsFloat]) -> None:
        scores[metric] = 100 * float(total)
        for image, value in zip(candidates, each, strict=True):
            per_image[image][metric] = 100 * float(value)

    totals, lists = Bleu(4).compute_score(references, candidates, verbose=0)
    for order, (total, each) in enumerate(zip(totals, lists, strict=True), 1):
        keep(f"BLEU-{order}", total, each)
    keep("ROUGE-L", *Rouge().compute_score(references, candidates))
    if len(candidates) > 1:
        keep("CIDEr", *Cider().compute_score(references, candidates))
    else:
        not_computed["CIDEr"] = "needs two images or more: it weighs words by how many images they occur in"
    for metric, scorer in (("METEOR", java.meteor), ("SPICE", java.spice)):
        if not use_java:
            not_computed[metric] = "it is computed by Java, which was not asked for"
            continue
        try:
            keep(metric, *scorer(references, candidates))
        except java.JavaMissing as reason:
            not_computed[metric] = str(reason)
    return CaptionScores(scores, not_computed, per_image, len(candidates), unanswered, tokenizer)


def _tokenized(captions: Captions, tokenize: Callable[[Sequence[str]], list[str]]) -> dict[Any, list[str]]:
    tokens = iter(tokenize([caption for several in captions.values() for caption in several]))
    return {image: [next(tokens) for _ in several] for image, several in captions.items()}
