"""NoCaps: `{image, img_id}`, captioned and sent to the server."""

from collections.abc import Sequence
from pathlib import Path

from data.dataset import EvalDataset, EvalImage, Sample
from data.records.annotations import Annotations
from data.records.formats import Format, identifier, path

EVAL = Format("nocaps", (path("image"), identifier("img_id")))


class NoCapsEval(EvalDataset):
    """Batch: image uint8 [B, 3, S, S], image_id list (the file's `img_id`), index int64 [B]."""

    listed = ("image_id",)

    def __init__(self, files: Sequence[str | Path], image_root: str | Path, transform: EvalImage) -> None:
        annotations = Annotations(files, EVAL)
        annotations.check_distinct("img_id", annotations.values("img_id"))
        super().__init__(annotations, image_root, transform)

    def __getitem__(self, row: int) -> Sample:
        record = self.annotations[row]
        return {"image": self.image(record["image"]), "image_id": record["img_id"], "index": row}
