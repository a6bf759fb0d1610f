"""The task of `predict.py explain`: a strip of heat maps that show where a model looks for each word."""

from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from data.media.folder import picture_suffixes
from models.base import VisionLanguageModel
from models.blip import BLIPDecoder
from models.blip_itm import BLIPMatcher
from models.blip_vqa import BLIPVQA
from models.explain import answer_maps, caption_maps, match_maps
from models.word_maps import WordMaps
from prediction.json_lines import Record
from prediction.tasks import PredictionTask, check_texts
from prediction.writers import Write, strip_writer
from settings import ConfigError, UserError
from settings.flags import at_least, file_path, flag

_RELEASED: dict[type[VisionLanguageModel], str] = {
    BLIPDecoder: "model_base_caption_capfilt_large",
    BLIPMatcher: "model_base_retrieval_coco",
    BLIPVQA: "model_base_vqa_capfilt_large",
}


@dataclass(frozen=True, kw_only=True)
class Explain(PredictionTask[VisionLanguageModel]):
    """Maps of the words of a text, of a question and its answer, or of the caption that the model writes."""

    text: str | None = flag(None, "the words of a text that the matching head compares with the picture")
    question: str | None = flag(None, "the words of a question, and of the answer that the model writes")
    answer: str | None = flag(None, "explain this answer to the question instead")
    caption: str | None = flag(None, "explain this caption instead of the one that the model writes")
    layer: int | None = flag(None, "of the cross-attention, from 0 (default: 7 of 12)", type=at_least(0))
    attention: bool = flag(False, "draw the attention itself, not its Grad-CAM", action="store_true")
    out: Path = flag(..., ".png file to write; of several pictures, a folder of them", type=file_path)

    def __post_init__(self) -> None:
        given = {name: value for name in ("text", "question", "caption") if (value := getattr(self, name)) is not None}
        if len(given) > 1:
            raise ConfigError(f"{' and '.join(f'--{name}' for name in given)} exclude each other: ask one at a time")
        if self.answer is not None and self.question is None:
            raise ConfigError("--answer needs the --question that it answers")
        if self.out.suffix.lower() in picture_suffixes() - {".png"}:
            raise ConfigError(f"--out {self.out} must end in .png, or be a folder")
        for name, value in {**given, "answer": self.answer}.items():
            check_texts(name, [value or ""])

    @property
    def kind(self) -> type[VisionLanguageModel]:  # pyright: ignore[reportIncompatibleVariableOverride]: it is only read
        """The class of the model: what is asked decides."""
        return BLIPMatcher if self.text is not None else BLIPVQA if self.question is not None else BLIPDecoder

    @property
    def released(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]: it is only read
        """The released checkpoint that is taken where none is named."""
        return _RELEASED[self.kind]

    def outputs(self, paths: Sequence[Path]) -> Iterable[Path]:
        return [self._strip_of(path) for path in paths]

    def prepare(self, paths: Sequence[Path], device: torch.device) -> "Explain":
        del device
        if self.out.suffix.lower() == ".png" and len(paths) > 1:
            raise UserError(f"--out {self.out} is one file, and there are {len(paths)} pictures: name a folder")
        picture_of: dict[Path, Path] = {}
        for path in paths:
            first = picture_of.setdefault(self._strip_of(path), path)
            if first != path:
                raise UserError(f"{first} and {path} would both be drawn in {self._strip_of(path)}: do one at a time")
        return self

    def _strip_of(self, path: Path) -> Path:
        """The file in which a picture's maps are drawn."""
        return self.out if self.out.suffix.lower() == ".png" else self.out / f"{path.stem}.png"

    def predict(self, model: VisionLanguageModel, image: Tensor) -> list[Record]:
        records: list[Record] = []
        for picture in image.split(1):
            strips = self._maps(model, picture)
            maps = [(label, one.words, one.attention if self.attention else one.grad_cam) for label, one in strips]
            records.append({"text": strips[0][1].text, "strips": maps})
        return records

    def _maps(self, model: VisionLanguageModel, image: Tensor) -> list[tuple[str, WordMaps]]:
        """What is drawn of a picture [1, 3, H, W], each with what it is called."""
        if isinstance(model, BLIPVQA):
            maps = answer_maps(model, image, self.question or "", self.answer, self.layer)
            return [("answer", maps), ("question", maps.question)]
        if isinstance(model, BLIPMatcher):
            return [("", match_maps(model, image, self.text or "", self.layer))]
        assert isinstance(model, BLIPDecoder)  # `kind` knows no other
        return [("", caption_maps(model, image, self.caption, self.layer))]

    def writer(self, model: VisionLanguageModel) -> AbstractContextManager[Write]:
        del model
        return strip_writer(self._strip_of)
