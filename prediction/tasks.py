"""The tasks of predict.py. Each is a class: its flags, what it predicts about pictures, and how that is written."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor

from data.media.folder import picture_suffixes
from data.vqa import answer_list
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.generation import SearchOptions
from prediction.writers import Record, Write, check_sidecars, feature_writer, line_writer, sidecar_writer
from settings import ConfigError
from settings.flags import at_least, flag

Model = TypeVar("Model", bound=VisionLanguageModel)


class PredictionTask(ABC, Generic[Model]):
    """A task of predict.py. Its dataclass fields are the command-line flags of this task only.

    Attributes:
        kind: the model's class.
        released: the released checkpoint that is used if the user names none.
    """

    kind: type[Model]
    released: str

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "PredictionTask[Model]":
        """Read what the task needs beside the model -> the task with it. Raises here, before a model is downloaded."""
        del paths, device
        return self

    @abstractmethod
    def predict(self, model: Model, image: Tensor) -> list[Record]:
        """Predict a record for each image [B, 3, H, W], normalized."""

    @abstractmethod
    def writer(self, model: Model) -> AbstractContextManager[Write]:
        """A context that yields a function to write a record, which has the path of its picture under `image`."""


@dataclass(frozen=True, kw_only=True)
class Caption(PredictionTask[BLIPDecoder]):
    """Captions pictures, with the log-probabilities of the captions."""

    kind = BLIPDecoder
    released = "model_base_caption_capfilt_large"

    num_beams: int = flag(3, "beams of the search; 1 is greedy (default: %(default)s)", type=at_least(1))
    sample: bool = flag(False, "nucleus sampling instead of a search", action="store_true")
    top_p: float = flag(0.9, "probability of the nucleus (default: %(default)s)", type=float)
    top_k: int = flag(50, "tokens to choose from, 0: all (default: %(default)s)", type=at_least(0))
    seed: int = flag(0, "of the samples (default: %(default)s)", type=int)
    max_length: int = flag(20, "tokens, prompt included (default: %(default)s)", type=at_least(1))
    min_length: int = flag(5, "tokens, prompt included (default: %(default)s)", type=at_least(0))
    repetition_penalty: float | None = flag(None, "default: none in a search, 1.1 in sampling", type=float)
    n_best: int = flag(1, "captions of each picture (default: %(default)s)", type=at_least(1))
    sidecar: str | None = flag(None, "write each caption beside its picture, with this suffix", metavar=".txt")
    out: Path | None = flag(None, "JSON lines file to write", type=Path)
    generator: torch.Generator | None = None  # of the samples; `prepare` makes it

    def __post_init__(self) -> None:
        if self.out and self.sidecar:
            raise ConfigError("--out and --sidecar exclude each other")
        if self.sidecar is not None:
            if not self.sidecar.startswith(".") or Path(f"a{self.sidecar}").suffix != self.sidecar:
                raise ConfigError(f"--sidecar {self.sidecar} must be a suffix such as .txt")
            if self.sidecar.lower() in picture_suffixes():
                raise ConfigError(f"--sidecar {self.sidecar} would write captions over pictures")
        if self.min_length > self.max_length:
            raise ConfigError(f"--min_length {self.min_length} must not be above --max_length {self.max_length}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"--top_p {self.top_p} must be above 0, at most 1")
        if self.repetition_penalty is not None and self.repetition_penalty <= 0:
            raise ConfigError(f"--repetition_penalty {self.repetition_penalty} must be above 0")

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "Caption":
        if self.sidecar:
            check_sidecars(paths, self.sidecar)
        return replace(self, generator=torch.Generator(device).manual_seed(self.seed)) if self.sample else self

    @property
    def search(self) -> SearchOptions:
        """The options of the search, or of sampling."""
        return SearchOptions(
            sample=self.sample,
            num_beams=max(self.num_beams, 1 if self.sample else self.n_best),
            max_length=self.max_length,
            min_length=self.min_length,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            num_return_sequences=self.n_best,
            generator=self.generator,
        )

    def predict(self, model: BLIPDecoder, image: Tensor) -> list[Record]:
        captions, generated = model.generate_n_best(image, self.search)
        records: list[Record] = []
        for texts, log_probs in zip(captions, generated.log_probs.tolist(), strict=True):
            best = [{"caption": text, "log_prob": log_prob} for text, log_prob in zip(texts, log_probs, strict=True)]
            records.append({**best[0], "captions": best} if self.n_best > 1 else best[0])
        return records

    def lines(self, record: Record) -> Iterator[str]:
        if self.n_best > 1:
            yield from (f"{record['image']}\t{row['log_prob']:.2f}\t{row['caption']}" for row in record["captions"])
        else:
            yield f"{record['image']}\t{record['caption']}"

    def writer(self, model: BLIPDecoder) -> AbstractContextManager[Write]:
        del model
        return sidecar_writer(self.sidecar, "caption") if self.sidecar else line_writer(self.out, self.lines)


@dataclass(frozen=True, kw_only=True)
class Answer(PredictionTask[BLIPVQA]):
    """Answers questions about pictures: generates answers, or chooses among given ones."""

    kind = BLIPVQA
    released = "model_base_vqa_capfilt_large"

    question: list[str] = flag(..., "may be given several times", action="append")
    answers: Path | None = flag(None, "JSON list of answers to choose from (default: write an answer)", type=Path)
    k_test: int = flag(128, "answers compared to the end (default: %(default)s)", type=at_least(1))
    out: Path | None = flag(None, "JSON lines file to write", type=Path)
    candidates: list[str] | None = None  # the content of `answers`; `prepare` reads it

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "Answer":
        del paths, device
        return self if self.answers is None else replace(self, candidates=answer_list(self.answers))

    def predict(self, model: BLIPVQA, image: Tensor) -> list[Record]:
        by_question = [self._answers(model, image, question) for question in self.question]
        return [{"answers": list(answers)} for answers in zip(*by_question, strict=True)]

    def _answers(self, model: BLIPVQA, image: Tensor, question: str) -> list[Record]:
        """Answer one question about each image."""
        questions = [question] * len(image)
        if self.candidates is None:
            return [{"question": question, "answer": answer} for answer in model.generate_answers(image, questions)]
        best, scores = model.rank_answers(image, questions, self.candidates, self.k_test)
        first, probability = best[:, 0].tolist(), scores.softmax(dim=1)[:, 0].tolist()
        return [
            {"question": question, "answer": self.candidates[i], "probability": p}
            for i, p in zip(first, probability, strict=True)
        ]

    def lines(self, record: Record) -> Iterator[str]:
        for row in record["answers"]:
            certainty = f"\t{row['probability']:.1%}" if "probability" in row else ""
            yield f"{record['image']}\t{row['question']}\t{row['answer']}{certainty}"

    def writer(self, model: BLIPVQA) -> AbstractContextManager[Write]:
        del model
        return line_writer(self.out, self.lines)


@dataclass(frozen=True, kw_only=True)
class Match(PredictionTask[BLIPMatcher]):
    """Compares pictures with texts: matching probabilities and cosine similarities."""

    kind = BLIPMatcher
    released = "model_base_retrieval_coco"

    text: list[str] = flag(..., "may be given several times", action="append")
    out: Path | None = flag(None, "JSON lines file to write", type=Path)

    def predict(self, model: BLIPMatcher, image: Tensor) -> list[Record]:
        scores = model.score(image, self.text)
        return [
            {"texts": [{"text": t, "match": m, "cosine": c} for t, m, c in zip(self.text, *row, strict=True)]}
            for row in zip(scores.match.tolist(), scores.cosine.tolist(), strict=True)
        ]

    def lines(self, record: Record) -> Iterator[str]:
        for row in record["texts"]:
            yield f"{record['image']}\tmatch {row['match']:.1%}\tcosine {row['cosine']:.3f}\t{row['text']}"

    def writer(self, model: BLIPMatcher) -> AbstractContextManager[Write]:
        del model
        return line_writer(self.out, self.lines)


@dataclass(frozen=True, kw_only=True)
class Features(PredictionTask[BLIPMatcher]):
    """Embeds pictures and texts as unit vectors; with `tokens`, also writes the states of all image tokens."""

    kind = BLIPMatcher
    released = "model_base_retrieval_coco"

    text: list[str] = flag([], "also embed this; several times if need be", action="append")
    tokens: bool = flag(False, "also write the states of all image tokens", action="store_true")
    out: Path = flag(..., ".safetensors or .npz file to write", type=Path)

    def __post_init__(self) -> None:
        if self.out.suffix not in (".safetensors", ".npz"):
            raise ConfigError(f"--out {self.out} must end in .safetensors or .npz")

    def predict(self, model: BLIPMatcher, image: Tensor) -> list[Record]:
        states = model.visual_encoder(image)
        records: list[Record] = [{"vector": row} for row in model.project_image(states).cpu()]
        if self.tokens:
            for record, row in zip(records, states.float().cpu(), strict=True):
                record["tokens"] = row
        return records

    def writer(self, model: BLIPMatcher) -> AbstractContextManager[Write]:
        return feature_writer(self.out, self.text, model.encode_text(self.text) if self.text else None)
