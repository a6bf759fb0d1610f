"""Whether training and evaluation come out right on a device: tiny models, with plain training as the measure.

Run by `python -m benchmarks.run`, or alone by `--only checks`; every check also runs on a CPU.
"""

import json
import math
import tempfile
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import engine
from benchmarks.context import TINY_TEXT, Context
from benchmarks.jobs import TRAININGS
from benchmarks.made_up import WORDS, pixels
from benchmarks.training import OurStep, TrainingSide, single_run
from engine.checkpoint import LAST
from models.blip_retrieval import BLIPRetrieval
from models.rerank import ImageStates, ScoredCandidates, rerank
from transform.image import normalize

STEPS = 4
MOST_ROUNDING = {"bf16": 0.02, "fp16": 0.005}  # how much a loss may differ from fp32's, relatively
SAME = 1e-4  # the same between two ways to compute one thing in fp32, relatively
PAIRS = 4  # so few that a tiny retrieval model tells them apart by far more than bf16 rounds, whatever it draws
MEMORIZING_STEPS, MEMORIZING_RATE = 120, 5e-3


@dataclass(frozen=True)
class Finding:
    """What a check found, and whether that is right."""

    passed: bool
    text: str


def training_in_bf16(context: Context) -> Finding:
    """Steps of all five models in bf16 give the losses of fp32."""
    return _training_in(replace(context, precision="bf16"))


def training_in_fp16(context: Context) -> Finding:
    """Steps of all five models in fp16, with a scaled loss, give the losses of fp32."""
    return _training_in(replace(context, precision="fp16"))


def _training_in(context: Context) -> Finding:
    def both(build: Callable[..., TrainingSide]) -> tuple[TrainingSide, TrainingSide]:
        return build(replace(context, precision="fp32")), build(context)

    # The first losses alone: a scaled loss that overflows skips a step, after which fp16 is a step behind.
    return _compare_trainings(both, MOST_ROUNDING[context.precision], steps=1)


def checkpointing(context: Context) -> Finding:
    """Image encoders that recompute their activations train as those that keep them."""
    exact = replace(context, precision="fp32")

    def both(build: Callable[..., TrainingSide]) -> tuple[TrainingSide, TrainingSide]:
        return build(exact), build(exact, vit_grad_ckpt=True, vit_ckpt_layer=2)

    return _compare_trainings(both, SAME)


def compiled(context: Context) -> Finding:
    """Compiled blocks train as blocks that are not."""
    exact = replace(context, precision="fp32")

    def both(build: Callable[..., TrainingSide]) -> tuple[TrainingSide, TrainingSide]:
        return build(exact, compile=False), build(exact, compile=True)

    return _compare_trainings(both, SAME)


def _compare_trainings(
    both: Callable[[Callable[..., TrainingSide]], tuple[TrainingSide, TrainingSide]], most: float, steps: int = STEPS
) -> Finding:
    """Train each of the five models in two ways, which `both` builds, and compare the losses of the first steps.

    Whatever is compared, all losses have to be finite, and the last one another than the first: the weights moved.
    """
    passed, found = True, []
    for name, build in TRAININGS.items():
        expected, losses = (_losses(side.ours(), side) for side in both(build))
        difference = max(abs(a - b) / abs(a) for a, b in zip(expected[:steps], losses[:steps], strict=True))
        moved = all(map(math.isfinite, losses)) and losses[-1] != losses[0]
        passed = passed and difference <= most and moved
        found.append(f"{name} {difference:.1e}" + ("" if moved else f" ({losses}: not finite, or nothing moved)"))
    return Finding(passed, f"losses of {steps} step(s) differ by {', '.join(found)} (at most {most:g})")


def _losses(step: OurStep, side: TrainingSide) -> list[float]:
    torch.manual_seed(1)
    return [step(side.batch)["loss"].item() for _ in range(STEPS)]


def evaluation_in_bf16(context: Context) -> Finding:
    """A retrieval model that knows its pairs finds them in bf16 as in fp32."""
    side = TRAININGS["retrieval"](replace(context, precision="fp32"), init_lr=MEMORIZING_RATE, vocab_file="")
    model = side.model
    assert isinstance(model, BLIPRetrieval)
    texts = [f"a {word}" for word in WORDS[-PAIRS:]]
    images = _patterns(len(texts), model.visual_encoder.image_size)
    batch = {"image": images, "caption": texts, "image_id": torch.arange(len(texts))}
    step = side.ours()
    for left in range(MEMORIZING_STEPS, 0, -1):
        step.lr = MEMORIZING_RATE * min(1.0, 2 * left / MEMORIZING_STEPS)
        step(batch)
    model.eval()
    found = {name: _search(replace(context, precision=name), model, images, texts) for name in ("fp32", "bf16")}
    recalls = {name: [_recall_at_1(one) for one in both] for name, both in found.items()}
    exact, rounded = (_by_candidate(both[0]) for both in found.values())
    change, spread = (exact - rounded).abs().max().item(), (exact.max() - exact.min()).item()
    shown = ", ".join(f"{image:.2f} / {text:.2f} in {name}" for name, (image, text) in recalls.items())
    text = f"R@1 {shown}; scores, which range over {spread:.2g}, change by {change:.1e} at most"
    return Finding(recalls["fp32"] == recalls["bf16"] == [1.0, 1.0], text)


def _search(
    context: Context, model: BLIPRetrieval, images: Tensor, texts: list[str]
) -> tuple[ScoredCandidates, ScoredCandidates]:
    """The texts found for each image, and the images for each text, as an evaluation in the context's precision."""
    with torch.no_grad(), context.autocast():
        states = model.visual_encoder(normalize(images.to(context.device)))
        features = model.project_image(states)
        source = ImageStates(len(images), len(images), lambda _: [states], lambda batch: (batch, features))
        return rerank(model, source, texts, k=len(texts))


def _patterns(number: int, side: int) -> Tensor:
    """Pictures that differ in more than noise: uint8 [number, 3, side, side], patches of random colors."""
    return pixels(number, 4).repeat_interleave(side // 4, dim=2).repeat_interleave(side // 4, dim=3)


def _recall_at_1(found: ScoredCandidates) -> float:
    best = found.ids[range(len(found.ids)), found.scores.argmax(axis=1)]
    return float((best == range(len(best))).mean())


def _by_candidate(found: ScoredCandidates) -> Tensor:
    scores = torch.from_numpy(found.scores).float()
    return torch.zeros_like(scores).scatter(1, torch.from_numpy(found.ids), scores)


class _Batches:
    """Three batches an epoch, as `engine.progress.Loader` has them."""

    num_workers = 0

    def __init__(self, side: TrainingSide) -> None:
        self.batch_size, self._start = side.samples, 0
        images = pixels(3 * self.batch_size, side.batch["image"].shape[-1]).split(self.batch_size)
        self._batches = [{**side.batch, "image": image} for image in images]

    def set_epoch(self, epoch: int, start_batch: int = 0, batches_per_step: int = 1) -> None:
        del epoch, batches_per_step  # the batches are the same in each, and each is a step
        self._start = start_batch

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dicts(self, states: list[dict[str, Any]]) -> None:
        """There is nothing to restore."""

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self._batches[self._start :])


def resuming(context: Context) -> Finding:
    """A pre-training that is resumed after its first epoch ends as one that never stopped: bitwise on a CPU."""
    with tempfile.TemporaryDirectory(dir=context.folder) as folder:
        straight, stopped = Path(folder, "straight"), Path(folder, "stopped")
        _fit(context, straight, epochs=2)
        _fit(context, stopped, epochs=1)
        _fit(context, stopped, epochs=2, resume_from=stopped / LAST)
        (expected, losses), (weights, other) = (
            [json.loads((run / "log.txt").read_text().splitlines()[-1])["train_loss"] for run in (straight, stopped)],
            [torch.load(run / LAST, weights_only=False)["model"] for run in (straight, stopped)],
        )
    difference = abs(losses - expected) / abs(expected)
    moved = max((weights[key].float() - other[key].float()).abs().max().item() for key in weights)
    # Some kernels of a GPU add up in another order each time; the loss would tell of dropout that was drawn anew.
    passed = moved == 0 if context.device.type == "cpu" else difference < 1e-3
    return Finding(passed, f"the loss of the second epoch differs by {difference:.1e}, weights by {moved:.1e}")


def _fit(context: Context, folder: Path, epochs: int, resume_from: Path | None = None) -> None:
    folder.mkdir(exist_ok=True)
    exact = replace(context, precision="fp32")
    text = TINY_TEXT | {"hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
    side = TRAININGS["pre-training"](exact, max_epoch=epochs, tensorboard=False, med_config=text)
    run = single_run(side.config, folder, context.device, resume_from)
    lr = side.config.init_lr
    engine.fit(run, lambda _: side.model, lambda _: _Batches(side), side.train_step, schedule=lambda _: lr)


CHECKS = (training_in_bf16, training_in_fp16, checkpointing, evaluation_in_bf16, resuming, compiled)
SLOW_CHECKS = {compiled.__name__}  # minutes, in which many jobs could be measured


def run_check(check: Callable[[Context], Finding], context: Context) -> Finding:
    """Run a check with tiny models; an exception is a finding, too, but for an ImportError: a package is missing."""
    try:
        return check(replace(context, tiny=True))
    except ImportError:
        raise
    except Exception as error:
        traceback.print_exc()
        return Finding(False, f"{type(error).__name__}: {error}")
