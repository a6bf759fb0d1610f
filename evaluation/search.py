"""Retrieval in both directions over the splits of images or clips."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from torch import Tensor

from data.loaders import listed_loader
from data.retrieval import RetrievalEval
from data.video_retrieval import VideoEval
from engine import Run, barrier, gather_objects
from evaluation.cases import SearchedSplit, retrieval_findings
from evaluation.findings import Picture
from evaluation.gallery import open_picture
from evaluation.run import report_split
from models.image_text import ImageTextModel
from models.rerank.image_states import ImageStates
from models.rerank.search import ScoredCandidates, rerank
from models.rerank.work_shares import Processes

Model = TypeVar("Model", bound=ImageTextModel)
Encode = Callable[[Model, dict[str, Any]], tuple[Tensor, Tensor]]


def evaluate_retrieval(
    run: Run[Any],
    splits: Mapping[str, RetrievalEval | VideoEval],
    encode: Encode[Model],
    batch_size: int,
    model: Model,
    *,
    prefix: str = "{split}_",
    open_source: Callable[[Any], Picture] = open_picture,
) -> dict[str, Any]:
    """Recall in both directions on every split: `txt_r1` of texts found by images, `img_r1` (`vid_r1`) the other way.

    Args:
        run: its config has `workers()`, `states_gib`, `k_test`, `pretrained` and `annotations(split)`.
        encode: model, batch on the device -> encoder states `[B, T, D]` and unit vectors `[B, embed_dim]`.
        batch_size: how many images (or clips) are encoded at once.
        model: in eval mode.
        prefix: put before the names of the metrics.
        open_source: opens the pictures (or clips) that the cases name.

    Returns:
        the metrics and, for `evaluate.txt`, figures that were published; on the first process.
    """
    for split in splits.values():
        split.check_not_empty()
    metrics: dict[str, Any] = {}
    for name, split in splits.items():
        found = search_split(run, model, split, encode, batch_size)
        if run.is_first:
            files = [split.files(row) for row in range(len(split))]
            visual = "vid" if isinstance(split, VideoEval) else "img"
            searched = SearchedSplit(split.text, split.texts_of, split.image_of, files, visual)
            findings = retrieval_findings(*found, searched)
            metrics |= report_split(run, "retrieval", name, findings, prefix.format(split=name), open_source)
        barrier(f"the scores of {name}")
    return metrics


def search_split(
    run: Run[Any], model: Model, split: RetrievalEval | VideoEval, encode: Encode[Model], batch_size: int
) -> tuple[ScoredCandidates, ScoredCandidates]:
    """The texts found for each image of a split, and the images found for each text, on every process."""
    config = run.config
    read = partial(listed_loader, split, num_workers=config.workers(), pin_memory=run.share["pin_memory"])
    images = ImageStates(
        len(split), batch_size, read, lambda batch: encode(model, run.to_device(batch)), config.states_gib
    )
    processes = Processes(run.rank, run.world_size, gather_objects)
    return rerank(model, images, split.text, config.k_test, processes=processes, progress=run.progress)
