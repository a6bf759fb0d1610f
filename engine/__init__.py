"""The one training loop: processes, precision, checkpoints, logs. It knows no task; scripts pass it functions."""

from engine.config import RunConfig, TrainConfig
from engine.distributed import PREEMPTED, gather_objects
from engine.loop import fit, run_evaluation
from engine.progress import Progress, cosine_by_epoch
from engine.run import Run, start
from engine.step import NotFinite, unwrap

__all__ = [
    "PREEMPTED",
    "NotFinite",
    "Progress",
    "Run",
    "RunConfig",
    "TrainConfig",
    "cosine_by_epoch",
    "fit",
    "gather_objects",
    "run_evaluation",
    "start",
    "unwrap",
]
