"""Captions against references: BLEU-1..4, METEOR, ROUGE-L, CIDEr and SPICE as COCO's evaluation defines them.

The scorers are pycocoevalcap's. METEOR and SPICE are Java programs; without Java the others are computed all the same,
on the equivalent tokens of metrics/tokenize.py, and these two are named with their reason, never with a number.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, SupportsFloat

from metrics import java
from metrics.ground_truth import GroundTruthError, entries, has_words, is_id, read_json
from metrics.scorers import require_scorers
from metrics.tokenize import ptb_tokenize

_NAMED = 10  # images that a remark names

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
        without_references: images whose references are empty or hold no word; no score counts them.
    """

    scores: dict[str, float]
    not_computed: dict[str, str]
    per_image: dict[Any, dict[str, float]]
    images: int
    unanswered: int
    tokenizer: str
    without_references: tuple[Any, ...] = ()

    @property
    def remarks(self) -> list[str]:
        """What a reader of the scores should know, a sentence each."""
        missing = f"images of the ground truth without a caption, which no score counts: {self.unanswered}"
        empty = ", ".join(map(repr, self.without_references[:_NAMED]))
        without = (
            f"images whose references hold no word, which no score counts: {len(self.without_references)} ({empty})"
        )
        return [*([missing] if self.unanswered else []), *([without] if self.without_references else [])]


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
    scored = {image: caption for image, caption in candidates.items() if references[image]}
    scores = _score({image: references[image] for image in scored}, scored, unanswered, use_java)
    return replace(scores, without_references=tuple(image for image in candidates if not references[image]))


def read_references(ground_truth: str | Path | Mapping[str, Any], images: Collection[Any] = ()) -> dict[Any, list[str]]:
    """Reference captions by image id, from COCO format: `annotations` with `image_id` and `caption`.

    Those without a word are left out, so that an image's list may be empty. Raises GroundTruthError where it is in
    another format, one of `images` (ids) has no caption, or all their captions are without a word.
    """
    content = ground_truth if isinstance(ground_truth, Mapping) else read_json(ground_truth)
    where = "the ground truth" if isinstance(ground_truth, Mapping) else str(ground_truth)
    references: dict[Any, list[str]] = {}
    for row, annotation in enumerate(entries(content, "annotations", where)):
        if "image_id" not in annotation or "caption" not in annotation:
            raise GroundTruthError(f"{where}: annotation {row} lacks image_id or caption, it has {sorted(annotation)}")
        image, caption = annotation["image_id"], annotation["caption"]
        if not is_id(image):
            raise GroundTruthError(
                f"{where}: annotation {row} has the image_id {image!r:.60}, expected a number or text"
            )
        if not isinstance(caption, str):
            raise GroundTruthError(
                f"{where}: annotation {row} (image_id {image!r}) has the caption {caption!r:.60}, expected text"
            )
        several = references.setdefault(image, [])
        if has_words(caption):
            several.append(caption)
    unknown = [image for image in images if image not in references]
    if unknown:
        raise GroundTruthError(
            f"{where}: {len(unknown)} of {len(images)} captioned images have no reference caption, image_id "
            f"{unknown[0]!r} among them: {_why_unknown(unknown[0], references)}"
        )
    if images and not any(references[image] for image in images):
        raise GroundTruthError(
            f"{where}: the references of all {len(images)} captioned images are empty, or hold no word: there is "
            "nothing to compare with"
        )
    return references


def _why_unknown(image: Any, references: Captions) -> str:
    other = next((known for known in references if str(known) == str(image)), None)
    if other is None:
        return "is this the ground truth of the split that is captioned?"
    kinds = ("text", "a number") if isinstance(image, str) else ("a number", "text")
    return f"the ids of the captioned images are {kinds[0]}, those of the ground truth {kinds[1]}; write both alike"


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
