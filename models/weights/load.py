"""Load weights into a model: from released files, our own checkpoints, or Hugging Face's BLIP.

A checkpoint rarely fits a model key by key: a pre-trained one holds momentum copies that a captioner lacks, NLVR2 needs
each cross-attention twice, and a larger image needs more position embeddings. The loader handles these cases and
reports each. A mismatch that it cannot explain is an error, since a partly loaded model gives plausible nonsense.
"""

import logging
import math
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from models.base import VisionLanguageModel
from models.errors import one_line
from models.vit import interpolate_pos_embed
from models.weights.files import State, read_state, without_wrappers
from models.weights.huggingface_names import from_huggingface, is_huggingface
from models.weights.integrity import CheckpointError, check_finite

__all__ = ["CheckpointError", "LoadReport", "load_checkpoint", "load_state", "read_state"]

logger = logging.getLogger("blip.models")

_PARTS = {"visual_encoder", "text_encoder", "text_decoder", "vision_proj", "text_proj", "itm_head", "cls_head", "temp"}
_QUEUES = {"image_queue", "text_queue", "idx_queue", "queue_ptr", "ptr_queue"}
# Tensors with a row for each token of the vocabulary.
BY_VOCABULARY = ("word_embeddings.weight", "cls.predictions.decoder.weight", "predictions.bias", "decoder.bias")
_OTHER_QUEUE = "the queue has another size and is reinitialized"
_LINES = 13  # of the message about keys that do not fit
_PROBLEMS = 4  # that it tells of
_TWIN_KEY = re.compile(r"(.*\.crossattention\.(?:self|output\.dense))[01](\..*)")


@runtime_checkable
class HasMomentumCopies(Protocol):
    """A model with momentum copies. Where a checkpoint lacks them, they start as copies of the loaded weights."""

    def reset_momentum(self) -> None: ...


@dataclass(frozen=True)
class LoadReport:
    """Which tensors of a checkpoint were loaded into a model, which were not, and why.

    Attributes:
        source: where the weights came from.
        loaded: the model's keys that were loaded, including `resized`.
        missing: the model's keys that the checkpoint lacks or holds in an unusable shape.
        unexpected: the checkpoint's keys that the model lacks.
        explained: the reason for each key of `missing` and `unexpected`.
        resized: keys of position embeddings that were interpolated to the model's image size.
        wrappers: the wrappers, outermost first, that the model was saved in (`DistributedDataParallel`); their prefixes
            (`module.`) were stripped from every key.
    """

    source: str
    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    explained: Mapping[str, str]
    resized: tuple[str, ...]
    wrappers: tuple[str, ...] = ()

    def __str__(self) -> str:
        lines = [f"{self.source}: {len(self.loaded)} tensors loaded"]
        lines += [f"saved from inside {wrapper}, whose prefix was taken off every key" for wrapper in self.wrappers]
        lines += [f"{key} resized to the model's image size" for key in self.resized]
        lines += [f"{count} left out: {reason}" for reason, count in Counter(self.explained.values()).items()]
        return "; ".join(lines)


def load_checkpoint(model: nn.Module, source: str | Path, *, reinitialized: Sequence[str] = ()) -> LoadReport:
    """Load the weights that `source` names (see `read_state`) into `model`.

    Args:
        model: any BLIP model. Momentum copies that the checkpoint lacks are set by `reset_momentum()`.
        source: released name, URL, file, folder or hub repository.
        reinitialized: the model's keys that may keep their initial values where the checkpoint has none that fit:
            prefixes, or patterns with `*`.

    Raises:
        CheckpointError: keys are missing, unexpected, or of another shape or kind, for no known reason, or hold weights
            that are not finite; the message lists them.
        ConfigError: the checkpoint tells that its weights were trained with another vocabulary.
        DownloadError: the weights are not on this machine and cannot be downloaded.
    """
    state, metadata = read_state(source)
    if isinstance(model, VisionLanguageModel):
        model.check_weights(metadata, str(source))
    return load_state(
        model, state, source=str(source), reinitialized=dict.fromkeys(reinitialized, "the task reinitializes it")
    )


def load_state(
    model: nn.Module,
    state: State,
    *,
    source: str,
    reinitialized: Mapping[str, str] | None = None,
    ignored: Mapping[str, str] | None = None,
) -> LoadReport:
    """Load tensors into `model` under the rules of `load_checkpoint`.

    Args:
        state: the tensors by key.
        source: where they come from, for messages and the report.
        reinitialized: prefixes or patterns of the model's keys that may keep their values, each with the reason.
        ignored: prefixes or patterns of the state's keys that the model may lack, each with the reason.
    """
    reinitialized, ignored = dict(reinitialized or {}), ignored or {}
    state, wrappers = without_wrappers(state)
    if is_huggingface(state):
        state = from_huggingface(state)
        reinitialized["temp"] = "Hugging Face's format has no place for it"
    expected = model.state_dict()
    state = _double_cross_attention(state, expected)
    match = _match(state, expected, reinitialized, ignored)
    _explain_missing(match, model, expected, reinitialized)
    if match.problems:
        raise CheckpointError(_problem_message(source, match.problems))
    check_finite(((key, tensor.to(expected[key].dtype)) for key, tensor in match.fitting.items()), source)

    model.load_state_dict(match.fitting, strict=False)
    missing = tuple(key for key in expected if key not in match.fitting)
    if any(_is_momentum(key) for key in missing) and isinstance(model, HasMomentumCopies):
        model.reset_momentum()
    unexpected = tuple(key for key in state if key not in expected)
    report = LoadReport(
        source, tuple(match.fitting), missing, unexpected, match.explained, tuple(match.resized), wrappers
    )
    logger.info("%s", report)
    return report


@dataclass
class _Match:
    """A checkpoint compared with a model: the tensors that fit, and why the others do not.

    `explained` holds the harmless mismatches (reason by key), `problems` those that are errors (keys by problem).
    """

    fitting: State = field(default_factory=dict)
    resized: list[str] = field(default_factory=list)
    explained: dict[str, str] = field(default_factory=dict)
    problems: dict[str, list[str]] = field(default_factory=lambda: defaultdict(list))


def _match(state: State, expected: State, reinitialized: Mapping[str, str], ignored: Mapping[str, str]) -> _Match:
    """Compare the checkpoint's tensors with the model's; see `_Match`."""
    match = _Match()
    for key, tensor in state.items():
        if key not in expected:
            if reason := _reason_for(key, ignored) or _why_unexpected(key, expected):
                match.explained[key] = reason
            else:
                match.problems["in the checkpoint, but not in the model"].append(key)
        elif tensor.shape == expected[key].shape or _resizable(key, tensor, expected[key]):
            if key not in _QUEUES and _kind(tensor) != _kind(expected[key]):
                match.problems[f"{tensor.dtype} in the checkpoint, but {expected[key].dtype} in the model"].append(key)
                continue
            match.fitting[key] = tensor
            if tensor.shape != expected[key].shape:
                match.fitting[key] = interpolate_pos_embed(tensor, expected[key].shape[1] - 1)
                match.resized.append(key)
        elif key in _QUEUES:
            match.explained[key] = _OTHER_QUEUE
        elif reason := _reason_for(key, reinitialized):
            match.explained[key] = reason
        else:
            match.problems[_shape_problem(key, tensor, expected[key])].append(key)
    if _OTHER_QUEUE in match.explained.values():  # a pointer makes no sense without its queue
        for key in _QUEUES & match.fitting.keys():
            del match.fitting[key]
            match.explained[key] = _OTHER_QUEUE
    return match


def _explain_missing(match: _Match, model: nn.Module, expected: State, reinitialized: Mapping[str, str]) -> None:
    """Add to `match` the model's keys that the checkpoint lacks, and tied tensors to which it gives two values."""
    tied = _tied_keys(expected)
    found = {key.split(".")[0] for key in (*match.fitting, *match.explained)}
    missing: dict[str, None] = {}
    done = {*match.fitting, *match.explained, *(key for keys in match.problems.values() for key in keys)}
    for key in expected:
        first = next((name for name in tied[key] if name in match.fitting), key)
        if key not in done:
            reason = f"it is the same tensor as {first}" if first != key else None
            if reason := reason or _reason_for(key, reinitialized) or _why_missing(key, model):
                match.explained[key] = reason
            else:
                part = key.split(".")[0]
                missing.setdefault(key if part in found else f"{part} (the whole part)")
        elif first != key and key in match.fitting and not torch.equal(match.fitting[key], match.fitting[first]):
            match.problems[f"differs in the checkpoint from {first}, and both are one tensor in the model"].append(key)
    if missing:
        match.problems["in the model, but not in the checkpoint"] += missing


def _double_cross_attention(state: State, expected: State) -> State:
    """Copy a checkpoint's single cross-attention into both of NLVR2's (`self0`/`self1`, `dense0`/`dense1`)."""
    state, singles = dict(state), set()
    for key in expected:
        if key not in state and (match := _TWIN_KEY.fullmatch(key)) and match[1] + match[2] in state:
            single = match[1] + match[2]
            state[key] = state[single]
            singles.add(single)
    return {key: tensor for key, tensor in state.items() if key not in singles}


def _reason_for(key: str, reasons: Mapping[str, str]) -> str | None:
    """The reason of the first pattern that matches `key` or a prefix of it; None if none does."""
    return next((why for name, why in reasons.items() if fnmatchcase(key, name) or fnmatchcase(key, f"{name}.*")), None)


def _is_momentum(key: str) -> bool:
    return key.split(".")[0].endswith("_m")


def _why_unexpected(key: str, expected: State) -> str | None:
    if key.endswith("position_ids"):
        return "position ids are computed, not stored"
    part = key.split(".")[0]
    if part in {name.split(".")[0] for name in expected}:
        return None
    if part in _QUEUES or part.removesuffix("_m") in _PARTS:
        return "this model has no such part"
    return None


def _why_missing(key: str, model: nn.Module) -> str | None:
    if key.endswith("position_ids"):
        return "position ids are computed, not stored"
    if key in _QUEUES:
        return "the queue is reinitialized"
    if _is_momentum(key) and isinstance(model, HasMomentumCopies):
        return "momentum copies start from the loaded weights"
    return None


def _tied_keys(expected: State) -> dict[str, list[str]]:
    """For each key, all keys of the same tensor (tied weights), itself included."""
    names = defaultdict(list)
    for key, tensor in expected.items():
        names[tensor.data_ptr(), tensor.shape].append(key)
    return {key: names[tensor.data_ptr(), tensor.shape] for key, tensor in expected.items()}


def _kind(tensor: Tensor) -> str:
    """What kind of numbers a tensor holds, within which one precision stands for another."""
    dtype = tensor.dtype
    kinds = {"floating": dtype.is_floating_point, "complex": dtype.is_complex, "bool": dtype is torch.bool}
    return next((kind for kind, holds in kinds.items() if holds), "whole")


def _resizable(key: str, tensor: Tensor, wanted: Tensor) -> bool:
    """Whether `key` is a position embedding, and both tensors are [1, 1 + side * side, D] with the same D."""
    return (
        key.split(".")[-1] == "pos_embed"
        and tensor.ndim == wanted.ndim == 3
        and tensor.shape[::2] == wanted.shape[::2]
        and all(t.shape[1] > 1 and math.isqrt(t.shape[1] - 1) ** 2 == t.shape[1] - 1 for t in (tensor, wanted))
    )


def _shape_problem(key: str, tensor: Tensor, wanted: Tensor) -> str:
    if key.endswith(BY_VOCABULARY) and tensor.dim() and tensor.shape[1:] == wanted.shape[1:]:
        return (
            f"the checkpoint's vocabulary has {tensor.shape[0]:,} entries and the model's {wanted.shape[0]:,}: build "
            "the model with the tokenizer file (vocab_file) that the checkpoint was trained with"
        )
    return (
        f"{list(tensor.shape)} in the checkpoint, but {list(wanted.shape)} in the model (another size of vit or text? "
        "`models.build_from_checkpoint` takes the sizes from the file)"
    )


def _problem_message(source: str, problems: Mapping[str, Sequence[str]]) -> str:
    """The error message: the first keys of each problem. Keys that differ only in the layer's number share a line."""
    lines = [f"{source} does not fit the model, and nothing was loaded:"]
    shown = list(problems.items())[:_PROBLEMS]
    most = max(1, _LINES // len(shown) - 2)  # keys of each
    for problem, keys in shown:
        lines.append(f"- {problem}:")
        alike = defaultdict(list)
        for key in sorted(keys):
            alike[re.sub(r"\b(layer|blocks)\.\d+\.", r"\1.*.", key)].append(key)
        named = [same[0] if len(same) == 1 else f"{name} ({len(same)} keys)" for name, same in alike.items()]
        lines += [f"    {one_line(name)}" for name in named[:most]]
        lines += [f"    and {len(named) - most:,} others"] if len(named) > most else []
    if len(problems) > _PROBLEMS:
        lines.append(f"- and {len(problems) - _PROBLEMS:,} other problems of the kind")
    return "\n".join(lines)
