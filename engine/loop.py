"""The training loop of every task. Scripts pass functions, which alone know what is in a batch and what the loss is."""

import logging
import sys
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from engine.config import TrainConfig
from engine.distributed import barrier, broadcast_object
from engine.log import EpochLog
from engine.progress import Evaluate, Loader, Schedule, TrainStep, cosine_by_epoch
from engine.randomness import preserved_rng
from engine.replay import replay
from engine.run import Run
from engine.training import Training

logger = logging.getLogger("blip.engine")


def fit(
    run: Run[TrainConfig],
    build_model: Callable[[Any], nn.Module],
    build_loader: Callable[[Run[Any]], Loader],
    train_step: TrainStep,
    *,
    schedule: Schedule | None = None,
    evaluate: Evaluate | None = None,
    best: str | None = None,
) -> dict[str, float]:
    """Train for `max_epoch` epochs, evaluating after each; with `--evaluate`, evaluate only. Returns the last metrics.

    Args:
        build_model: config -> the model, on any device.
        build_loader: run -> the loader of the batches to train on; called first, so that a wrong file is found before
            weights are fetched, and not at all where there is nothing to train.
        train_step: (model, batch on the device, progress) -> scalars on the device; `loss` among them is minimized,
            all are reported.
        schedule: progress -> learning rate, called before every step; by default `cosine_by_epoch`.
        evaluate: see `run_evaluation`.
        best: the metric whose highest value chooses `checkpoint_best.pth`; None keeps every epoch's weights, as
            `checkpoint_EPOCH.pth`.
    """
    if run.evaluate_only:
        if evaluate is None:
            sys.exit("there is nothing to evaluate: this script trains only")
        return run_evaluation(run, build_model(run.config), evaluate)
    if run.replays and run.resume_from is not None:
        replay(run, run.resume_from, build_model(run.config), train_step)
        return {}
    loader, model = build_loader(run), build_model(run.config)
    barrier("the data and the model")  # a machine whose cache is empty reads all annotations first
    training = Training(run, model, loader, train_step, schedule or cosine_by_epoch(run.config))
    log = EpochLog(run.output_dir / "log.txt", training.epoch)
    metrics: dict[str, float] = {}
    try:
        while training.epoch < run.config.max_epoch:
            training.train_epoch()
            with training.state_saved():
                if evaluate is not None:
                    metrics = run_evaluation(run, model, evaluate)
                if run.is_first:
                    training.keep_weights(metrics, best)
                    train = {f"train_{name}": value for name, value in training.losses.epoch_means().items()}
                    log.write({"epoch": training.epoch, **train, "train_lr": training.lr, **metrics})
                    training.events.write({f"eval/{name}": value for name, value in metrics.items()}, training.step)
            training.next_epoch()
        training.finish_writing()
    finally:
        training.close()
    return metrics


def run_evaluation(run: Run[Any], model: nn.Module, evaluate: Evaluate) -> dict[str, float]:
    """Evaluate, log the metrics, write them to `evaluate.txt`, and return them: on every process those of the first.

    Args:
        evaluate: model, in eval mode and without gradients -> metrics. It is called on every process. What is no number
            (a comparison with published figures) goes into `evaluate.txt` only.
    """
    model.to(run.device).eval()
    # Evaluations see many shapes, each of which compiled blocks would be compiled for anew.
    eager = torch.compiler.set_stance("force_eager")
    with preserved_rng(), torch.no_grad(), run.autocast(run.config.eval_precision), eager:
        found = broadcast_object(evaluate(model), "the scores of the evaluation")
    run.write_json("evaluate.txt", found)
    metrics: dict[str, float] = {name: value for name, value in found.items() if isinstance(value, float | int)}
    logger.info("evaluation: %s", "  ".join(f"{name} {value:.4g}" for name, value in metrics.items()))
    return metrics
