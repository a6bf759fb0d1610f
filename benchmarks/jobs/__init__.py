"""What `benchmarks.run` measures: a file a task, and here the list of all, the most important first."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from benchmarks.comparison import Comparison
from benchmarks.context import Context
from benchmarks.jobs import capfilt, caption, loader, nlvr, pretrain, retrieval, vqa
from benchmarks.training import TrainingSide


@dataclass(frozen=True)
class Job:
    """Comparisons that share a set-up.

    Attributes:
        name: what `--only` chooses it by, as by its group.
        group: 'steps' of training, 'evaluation', 'loader', or 'compile', which takes minutes on a CPU.
        prepare: builds models and inputs; each comparison is measured before the next is asked for.
    """

    name: str
    group: str
    prepare: Callable[[Context], Iterator[Comparison]]


JOBS = (
    Job("pretrain_base", "steps", pretrain.base),
    Job("retrieval_step", "steps", retrieval.step),
    Job("caption_step", "steps", caption.step),
    Job("rerank", "evaluation", retrieval.reranking),
    Job("caption", "evaluation", caption.generation),
    Job("vqa_step", "steps", vqa.step),
    Job("nlvr_step", "steps", nlvr.step),
    Job("vqa_rank", "evaluation", vqa.rank),
    Job("capfilt", "evaluation", capfilt.capfilt),
    Job("pretrain_large", "steps", pretrain.large),
    Job("pretrain_base_compiled", "compile", pretrain.compiled),
    Job("loader_224", "loader", loader.to_224),
    Job("loader_384", "loader", loader.to_384),
)

TRAININGS: dict[str, Callable[..., TrainingSide]] = {  # each script's model, step and batch
    "pre-training": pretrain.side,
    "retrieval": retrieval.side,
    "captioning": caption.side,
    "VQA": vqa.side,
    "NLVR2": nlvr.side,
}
