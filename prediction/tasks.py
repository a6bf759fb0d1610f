"""What a model can be asked about pictures: a task is its flags, its prediction, and how that is written."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Generic

import torch
from torch import Tensor

from data.media.folder import picture_suffixes
from data.records.annotations import TextLimit
from data.vqa import answer_list
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.generation import MOST_BEAMS, SearchOptions
from prediction.calls import ANSWERER, CAPTIONER, MATCHER
from prediction.json_lines import Record, finished
from prediction.predictor import Model
from prediction.results import best_captions, ranked_answers, require_finite, text_matches, written_answers
from prediction.writers import Write, check_sidecars, feature_writer, line_writer, sidecar_writer
from settings import ConfigError
from settings.flags import at_least, file_path, flag, seed

_PENALTIES = 0.001, 1000.0  # beyond, a token's probability is 0 or 1 whatever the model says, or no number


class PredictionTask(ABC, Generic[Model]):
    """What is asked about pictures: its fields are the task's own flags.

    Attributes:
        kind: the class of the model that does it.
        released: the released checkpoint that is taken where none is named.
    """

    kind: type[Model]
    released: str

    @abstractmethod
    def outputs(self, paths: Sequence[Path]) -> Iterable[Path]:
        """The files that are written about these pictures."""

    def inputs(self) -> Iterable[Path]:
        """The files that are read beside pictures and model."""
        return ()

    def remaining(self, paths: Sequence[Path]) -> Sequence[Path]:
        """The pictures that an earlier run, which this one shall go on with, has not finished."""
        return paths

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "PredictionTask[Model]":
        """The task with all it needs beside the model; what cannot work is refused before a model is fetched."""
        del paths, device
        return self

    @abstractmethod
    def predict(self, model: Model, image: Tensor) -> list[Record]:
        """A record about each image [B, 3, H, W], normalized."""

    @abstractmethod
    def writer(self, model: Model) -> AbstractContextManager[Write]:
        """Where the records go: a context that yields a function of one record, with its picture under `image`."""


@dataclass(frozen=True, kw_only=True)
class LineTask(PredictionTask[Model]):
    """A task whose records are lines: of JSON in a file, or of columns on the terminal."""

    out: Path | None = flag(None, "JSON lines file to write", type=file_path)
    resume: bool = flag(
        False, "go on with the files of an interrupted run; what they hold is kept", action="store_true"
    )

    def __post_init__(self) -> None:
        if self.resume and not self.out:
            raise ConfigError("--resume needs the --out FILE that it shall go on with")

    def outputs(self, paths: Sequence[Path]) -> Iterable[Path]:
        del paths
        return [self.out] if self.out else []

    def remaining(self, paths: Sequence[Path]) -> Sequence[Path]:
        if not self.resume or not self.out:
            return paths
        done = finished(self.out, self.same_flags)
        return [path for path in paths if str(path) not in done]

    @abstractmethod
    def same_flags(self, record: Record) -> bool:
        """Whether a record of a file, which may be anything, is of this task and answers the same."""

    @abstractmethod
    def columns(self, record: Record) -> Iterator[Sequence[str]]:
        """The columns of each line that shows a record to a person."""

    def writer(self, model: Model) -> AbstractContextManager[Write]:
        del model
        return line_writer(self.out, self.columns, append=self.resume)


def check_texts(name: str, texts: Sequence[str]) -> None:
    """Refuse what the shell handed over undecoded."""
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ConfigError(f"--{name} {ascii(text)}: not valid text in this terminal's encoding") from None


@dataclass(frozen=True, kw_only=True)
class Caption(LineTask[BLIPDecoder]):
    """Captions with their log-probabilities."""

    kind = BLIPDecoder
    released = CAPTIONER

    prompt: str | None = flag(None, "words that every caption starts with (default: those of the training)")
    num_beams: int = flag(3, "beams of the search; 1 is greedy (default: %(default)s)", type=at_least(1))
    sample: bool = flag(False, "nucleus sampling instead of a search", action="store_true")
    top_p: float = flag(0.9, "probability of the nucleus (default: %(default)s)", type=float)
    top_k: int = flag(50, "tokens to choose from, 0: all (default: %(default)s)", type=at_least(0))
    seed: int = flag(0, "of the samples (default: %(default)s)", type=seed)
    max_length: int = flag(20, "tokens, prompt included (default: %(default)s)", type=at_least(1))
    min_length: int = flag(5, "tokens, prompt included (default: %(default)s)", type=at_least(0))
    repetition_penalty: float | None = flag(None, "default: none in a search, 1.1 in sampling", type=float)
    n_best: int = flag(1, "captions of each picture (default: %(default)s)", type=at_least(1))
    sidecar: str | None = flag(None, "write each caption beside its picture, with this suffix", metavar=".txt")
    generator: torch.Generator | None = None  # of the samples; `prepare` makes it

    def __post_init__(self) -> None:
        if not self.sidecar:
            super().__post_init__()
        if self.out and self.sidecar:
            raise ConfigError("--out and --sidecar exclude each other")
        if self.sidecar is not None:
            if not self.sidecar.startswith(".") or Path(f"a{self.sidecar}").suffix != self.sidecar:
                raise ConfigError(f"--sidecar {self.sidecar} must be a suffix such as .txt")
            if self.sidecar.lower() in picture_suffixes():
                raise ConfigError(f"--sidecar {self.sidecar} would write captions over pictures")
        check_texts("prompt", [self.prompt or ""])
        for name, count in (("num_beams", self.num_beams), ("n_best", self.n_best)):
            if count > MOST_BEAMS:
                raise ConfigError(f"--{name} {count} must be at most {MOST_BEAMS}")
        if self.min_length > self.max_length:
            raise ConfigError(f"--min_length {self.min_length} must not be above --max_length {self.max_length}")
        if not 0 < self.top_p <= 1:
            raise ConfigError(f"--top_p {self.top_p} must be above 0, at most 1")
        least, most = _PENALTIES
        if self.repetition_penalty is not None and not least <= self.repetition_penalty <= most:
            raise ConfigError(f"--repetition_penalty {self.repetition_penalty} must be from {least} to {most:g}")

    def outputs(self, paths: Sequence[Path]) -> Iterable[Path]:
        if self.sidecar:
            return [path.with_suffix(self.sidecar) for path in paths]
        return super().outputs(paths)

    def remaining(self, paths: Sequence[Path]) -> Sequence[Path]:
        if self.sidecar and self.resume:
            return [path for path in paths if not path.with_suffix(self.sidecar).exists()]
        return super().remaining(paths)

    def same_flags(self, record: Record) -> bool:
        return "caption" in record and ("captions" in record) == (self.n_best > 1)

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "Caption":
        if self.sidecar:
            check_sidecars(paths, self.sidecar, may_exist=self.resume)
        return replace(self, generator=torch.Generator(device).manual_seed(self.seed)) if self.sample else self

    @property
    def search(self) -> SearchOptions:
        """How captions are searched for, or sampled."""
        return SearchOptions(
            sample=self.sample,
            num_beams=self.num_beams,
            max_length=self.max_length,
            min_length=self.min_length,
            top_p=self.top_p,
            top_k=self.top_k,
            repetition_penalty=self.repetition_penalty,
            generator=self.generator,
        ).with_results(self.n_best)

    def predict(self, model: BLIPDecoder, image: Tensor) -> list[Record]:
        records: list[Record] = []
        for captions in best_captions(model, image, self.search, self.prompt):
            best = [asdict(caption) for caption in captions]
            records.append({**best[0], "captions": best} if self.n_best > 1 else best[0])
        return records

    def columns(self, record: Record) -> Iterator[Sequence[str]]:
        if self.n_best > 1:
            yield from ((record["image"], f"{row['log_prob']:.2f}", row["caption"]) for row in record["captions"])
        else:
            yield record["image"], record["caption"]

    def writer(self, model: BLIPDecoder) -> AbstractContextManager[Write]:
        return sidecar_writer(self.sidecar, "caption") if self.sidecar else super().writer(model)


@dataclass(frozen=True, kw_only=True)
class Answer(LineTask[BLIPVQA]):
    """Answers to questions: written, or the best of those given."""

    kind = BLIPVQA
    released = ANSWERER

    question: list[str] = flag(..., "may be given several times", action="append")
    answers: Path | None = flag(None, "JSON list of answers to choose from (default: write an answer)", type=file_path)
    k_test: int = flag(128, "answers compared to the end (default: %(default)s)", type=at_least(1))
    candidates: list[str] | None = None  # the content of `answers`; `prepare` reads it

    def __post_init__(self) -> None:
        super().__post_init__()
        check_texts("question", self.question)

    def inputs(self) -> Iterable[Path]:
        return [self.answers] if self.answers else []

    def same_flags(self, record: Record) -> bool:
        chosen = all(("probability" in row) == (self.answers is not None) for row in record["answers"])
        return chosen and [row["question"] for row in record["answers"]] == self.question

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "Answer":
        del paths, device
        return self if self.answers is None else replace(self, candidates=answer_list(self.answers))

    def writer(self, model: BLIPVQA) -> AbstractContextManager[Write]:
        if self.answers is not None:  # whose lengths the model's tokenizer tells
            positions = model.text_decoder.bert.config.max_position_embeddings
            answer_list(self.answers, TextLimit(lambda text: len(model.tokenizer(text).input_ids), positions))
        return super().writer(model)

    def predict(self, model: BLIPVQA, image: Tensor) -> list[Record]:
        by_question = [self._answers(model, image, question) for question in self.question]
        return [{"answers": list(answers)} for answers in zip(*by_question, strict=True)]

    def _answers(self, model: BLIPVQA, image: Tensor, question: str) -> list[Record]:
        """The answer to one question about each image."""
        if self.candidates is None:
            return [{"question": question, "answer": answer} for answer in written_answers(model, image, question)]
        ranked = ranked_answers(model, image, question, self.candidates, self.k_test)
        return [{"question": question, **asdict(answers[0])} for answers in ranked]

    def columns(self, record: Record) -> Iterator[Sequence[str]]:
        for row in record["answers"]:
            certainty = [f"{row['probability']:.1%}"] if "probability" in row else []
            yield record["image"], row["question"], row["answer"], *certainty


@dataclass(frozen=True, kw_only=True)
class Match(LineTask[BLIPMatcher]):
    """Matching probability and cosine of pictures with texts."""

    kind = BLIPMatcher
    released = MATCHER

    text: list[str] = flag(..., "may be given several times", action="append")

    def __post_init__(self) -> None:
        super().__post_init__()
        check_texts("text", self.text)

    def same_flags(self, record: Record) -> bool:
        return [row["text"] for row in record["texts"]] == self.text

    def predict(self, model: BLIPMatcher, image: Tensor) -> list[Record]:
        rows = text_matches(model, image, self.text)
        return [{"texts": [asdict(match) for match in row]} for row in rows]

    def columns(self, record: Record) -> Iterator[Sequence[str]]:
        for row in record["texts"]:
            yield record["image"], f"match {row['match']:.1%}", f"cosine {row['cosine']:.3f}", row["text"]


@dataclass(frozen=True, kw_only=True)
class Features(PredictionTask[BLIPMatcher]):
    """Unit vectors of pictures and texts, and all token states of the pictures if asked for."""

    kind = BLIPMatcher
    released = MATCHER

    text: list[str] = flag([], "also embed this; several times if need be", action="append")
    tokens: bool = flag(False, "also write the states of all image tokens", action="store_true")
    out: Path = flag(..., ".safetensors or .npz file to write", type=file_path)

    def __post_init__(self) -> None:
        if self.out.suffix not in (".safetensors", ".npz"):
            raise ConfigError(f"--out {self.out} must end in .safetensors or .npz")
        check_texts("text", self.text)

    def outputs(self, paths: Sequence[Path]) -> Iterable[Path]:
        del paths
        return [self.out]

    def predict(self, model: BLIPMatcher, image: Tensor) -> list[Record]:
        states = model.visual_encoder(image)
        vectors = model.project_image(states).cpu()
        require_finite(vectors)
        records: list[Record] = [{"vector": row} for row in vectors]
        if self.tokens:
            for record, row in zip(records, states.float().cpu(), strict=True):
                record["tokens"] = row
        return records

    def writer(self, model: BLIPMatcher) -> AbstractContextManager[Write]:
        return feature_writer(self.out, self.text, model.encode_text(self.text) if self.text else None)
