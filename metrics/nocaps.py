"""NoCaps: captions of objects that COCO never names, scored by how far an image lies from COCO (its domain)."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from metrics.caption import CaptionScores, read_references, score_captions
from metrics.ground_truth import GroundTruthError, entries, is_id, read_json

DOMAINS = {"in-domain": "in", "near-domain": "near", "out-domain": "out"}


def read_domains(ground_truth: str | Path | Mapping[str, Any], images: Iterable[Any]) -> dict[Any, str]:
    """The domain ('in', 'near' or 'out') of each of these image ids, from a ground truth as `score_nocaps` takes it.

    Raises GroundTruthError for the first image whose domain is none of NoCaps's, or which is not in the file.
    """
    content = ground_truth if isinstance(ground_truth, Mapping) else read_json(ground_truth)
    where = "the ground truth" if isinstance(ground_truth, Mapping) else str(ground_truth)
    listed = entries(content, "images", where)
    named = {image["id"]: image.get("domain") for image in listed if is_id(image.get("id"))}
    domains = {}
    for image in images:
        domain = named.get(image)
        if not isinstance(domain, str) or domain not in DOMAINS:
            raise GroundTruthError(
                f"image {image!r} has domain {domain!r} in the ground truth; known are {', '.join(DOMAINS)}"
            )
        domains[image] = DOMAINS[domain]
    return domains


def score_nocaps(
    predictions: Sequence[Mapping[str, Any]], ground_truth: str | Path | Mapping[str, Any]
) -> dict[str, CaptionScores]:
    """Scores by domain: 'in', 'near', 'out' (those that occur) and 'all'.

    The ground truth is COCO format whose `images` carry `id` and `domain` ('in-domain', 'near-domain', 'out-domain').
    Each domain is scored as a set of its own, so CIDEr weighs words by the images of that domain.
    """
    content = ground_truth if isinstance(ground_truth, Mapping) else read_json(ground_truth)
    images = [prediction["image_id"] for prediction in predictions]
    domains, references = read_domains(content, images), read_references(content, images)
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for prediction in filter(lambda one: references[one["image_id"]], predictions):  # else there is nothing to score by
        groups.setdefault(domains[prediction["image_id"]], []).append(prediction)
    scores = {name: _score_group(groups[name], content) for name in DOMAINS.values() if name in groups}
    return scores | {"all": score_captions(predictions, content)}


def _score_group(predictions: Sequence[Mapping[str, Any]], ground_truth: Mapping[str, Any]) -> CaptionScores:
    images = {prediction["image_id"] for prediction in predictions}
    annotations = [annotation for annotation in ground_truth["annotations"] if annotation["image_id"] in images]
    return score_captions(predictions, {"annotations": annotations})
