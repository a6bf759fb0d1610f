"""Image-text retrieval: `{image, caption, image_id}` to train on, `{image, caption: [..]}` to evaluate."""

from collections.abc import Sequence
from pathlib import Path

from data.caption import CaptionTrain
from data.dataset import EvalDataset, EvalImage, Sample
from data.records.annotations import Annotations
from data.records.formats import Format, captions, path
from data.text import clean_caption

EVAL = Format("retrieval eval", (path("image"), captions("caption")), needed="caption")


class RetrievalTrain(CaptionTrain):
    """The records of captioning, without a prompt; pairs with the same `image_id` are positives of each other.

    Batch: image uint8 [B, 3, S, S], caption list[str], image_id int64 [B].
    """


class RetrievalEval(EvalDataset):
    """The images of a split as samples, its texts as one list, and which text belongs to which image.

    Batch: image uint8 [B, 3, S, S], index int64 [B]. `text`: the cleaned captions of all images in one list;
    `img2txt[i]`: the texts of image i; `txt2img[t]`: the image of text t.
    """

    def __init__(
        self, files: Sequence[str | Path], image_root: str | Path, transform: EvalImage, *, max_words: int = 30
    ) -> None:
        super().__init__(Annotations(files, EVAL), image_root, transform)
        self.text: list[str] = []
        self.img2txt: dict[int, list[int]] = {}
        self.txt2img: dict[int, int] = {}
        for row, record in enumerate(self.annotations):
            self.img2txt[row] = list(range(len(self.text), len(self.text) + len(record["caption"])))
            self.txt2img.update(dict.fromkeys(self.img2txt[row], row))
            self.text += [clean_caption(caption, max_words) for caption in record["caption"]]

    @property
    def texts_of(self) -> list[list[int]]:
        """The texts of each image."""
        return [self.img2txt[row] for row in range(len(self))]

    @property
    def image_of(self) -> list[int]:
        """The image of each text."""
        return [self.txt2img[text] for text in range(len(self.text))]

    def __getitem__(self, row: int) -> Sample:
        return {"image": self.image(self.annotations[row]["image"]), "index": row}
