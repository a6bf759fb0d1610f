"""The training loop that all tasks share: processes, precision, checkpoints, resuming, logs.

It knows no task. A script opens a run (`start`) from its config, a dataclass that extends `TrainConfig` or `RunConfig`,
and passes functions to `fit` or `run_evaluation`. Config classes are made, read and checked by `settings`.
"""

from engine.config import RunConfig, TrainConfig
from engine.distributed import barrier, first_decides, gather_objects, once_a_node
from engine.loop import fit, run_evaluation
from engine.preemption import PREEMPTED, Preemption
from engine.progress import Progress
from engine.run import Run, start
from engine.step import unwrap
from engine.step_record import NotFinite

__all__ = [
    "PREEMPTED",
    "NotFinite",
    "Preemption",
    "Progress",
    "Run",
    "RunConfig",
    "TrainConfig",
    "barrier",
    "first_decides",
    "fit",
    "gather_objects",
    "once_a_node",
    "run_evaluation",
    "start",
    "unwrap",
]
