"""Retrieval in both directions over a split of images or clips."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from torch import Tensor

from data.dataset import EvalDataset
from data.loaders import listed_loader
from engine import Run, gather_objects
from models.image_text import ImageTextModel
from models.rerank.image_states import ImageStates
from models.rerank.search import ScoredCandidates, rerank
from models.rerank.work_shares import Processes


def search_split(
    run: Run[Any],
    model: ImageTextModel,
    dataset: EvalDataset,
    texts: Sequence[str],
    encode: Callable[[dict[str, Any]], tuple[Tensor, Tensor]],
    batch_size: int,
) -> tuple[ScoredCandidates, ScoredCandidates]:
    """Retrieve over a split -> the candidate texts of each image and the candidate images of each text, with scores.

    Every process gets them all; see `models.rerank`.

    Args:
        run: its config has `num_workers`, `states_gib` and `k_test`.
        encode: a batch on the device -> encoder states `[B, T, D]` and unit vectors `[B, embed_dim]`.
        batch_size: how many images (or clips) are encoded at once.
    """
    config = run.config
    read = partial(listed_loader, dataset, num_workers=config.num_workers, pin_memory=run.share["pin_memory"])
    images = ImageStates(len(dataset), batch_size, read, lambda batch: encode(run.to_device(batch)), config.states_gib)
    processes = Processes(run.rank, run.world_size, gather_objects)
    return rerank(model, images, texts, config.k_test, processes=processes, progress=run.progress)
