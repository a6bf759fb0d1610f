"""The one training loop: processes, precision, checkpoints, logs. It knows no task; scripts pass it functions."""

from engine.config import RunConfig, TrainConfig
from engine.distributed import PREEMPTED, gather_objects
from engine.loop import fit, run_evaluation
from engine.progress import Progress
from engine.run import Run, start
from engine.step import NotFinite, unwrap

__all__ = [
    "PREEMPTED",
    "NotFinite",
    "Progress",
    "Run",
    "RunConfig",
    "TrainConfig",
    "fit",
    "gather_objects",
    "run_evaluation",
    "start",
    "unwrap",
]
