"""Text-to-video retrieval: JSON lines `{clip_name, caption}`, MSR-VTT's test clips or own ones."""

from collections.abc import Sequence
from pathlib import Path

import torch

from data.dataset import EvalDataset, EvalImage, Sample
from data.media.video import read_frames
from data.records.annotations import Annotations
from data.records.formats import Format, captions, path
from data.text import clean_caption

EVAL = Format("video", (path("clip_name"), captions("caption")), needed="caption")


class VideoEval(EvalDataset):
    """The clips of a split as samples, its texts as one list, and which text belongs to which clip.

    Batch: video uint8 [B, num_frames, 3, S, S], index int64 [B]. `text`, `vid2txt`, `txt2vid` as in RetrievalEval;
    records of one clip_name are one clip with several texts. `clips`: the clips' files.
    """

    def __init__(
        self,
        files: Sequence[str | Path],
        video_root: str | Path,
        transform: EvalImage,
        *,
        num_frames: int = 8,
        max_words: int = 40,
    ) -> None:
        super().__init__(Annotations(files, EVAL), video_root, transform)
        self.num_frames = num_frames
        self.clips: list[Path] = []
        self.text: list[str] = []
        self.vid2txt: dict[int, list[int]] = {}
        self.txt2vid: dict[int, int] = {}
        numbers: dict[str, int] = {}
        for record in self.annotations:
            name = record["clip_name"]
            if name not in numbers:
                numbers[name] = len(self.clips)
                self.clips.append(clip_file(video_root, name))
            for caption in record["caption"]:
                self.vid2txt.setdefault(numbers[name], []).append(len(self.text))
                self.txt2vid[len(self.text)] = numbers[name]
                self.text.append(clean_caption(caption, max_words))

    @property
    def texts_of(self) -> list[list[int]]:
        """The texts of each clip."""
        return [self.vid2txt[clip] for clip in range(len(self))]

    @property
    def image_of(self) -> list[int]:
        """The clip of each text."""
        return [self.txt2vid[text] for text in range(len(self.text))]

    def __len__(self) -> int:
        return len(self.clips)

    def files(self, row: int) -> list[str]:
        return [str(self.clips[row])]

    def __getitem__(self, row: int) -> Sample:
        frames = read_frames(self.clips[row], self.num_frames)
        return {"video": torch.stack([self.transform(frame) for frame in frames]), "index": row}


def clip_file(video_root: str | Path, clip_name: str) -> Path:
    """The file of a clip; a `clip_name` without a suffix means .mp4."""
    return Path(video_root) / (clip_name if Path(clip_name).suffix else f"{clip_name}.mp4")
