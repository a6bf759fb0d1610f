"""Find video clips by text with a model that was fine-tuned on images (paper, section 5.6).

Published, MSR-VTT 1k test, zero-shot, text-to-video R@1 / R@5 / R@10: ViT-B fine-tuned on COCO 43.3 / 65.6 / 74.7.

    python eval_retrieval_video.py --config configs/retrieval_msrvtt.yaml --output_dir output/retrieval_msrvtt
    python -m torch.distributed.run --nproc_per_node=8 eval_retrieval_video.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import torch.nn.functional as F
from PIL import Image
from torch import Tensor

import engine
from data.config import VideoData
from data.media.video import read_frames
from data.video_retrieval import VideoEval
from evaluation.search import evaluate_retrieval
from models.blip_itm import BLIPMatcher, blip_itm
from settings import setting
from settings.model import EmbeddingSettings, ModelSettings, RerankSettings
from transform.image import normalize


@dataclass
class Config(engine.RunConfig, ModelSettings, EmbeddingSettings, RerankSettings, VideoData):
    """Video retrieval's keys beside those of model and data."""

    k_test: int = setting(128, "candidates of each query that the matching head re-ranks")


def read_split(config: Config, name: str) -> VideoEval:
    transform, frames = config.eval_transform(), config.num_frm_test
    return VideoEval(config.annotations(name), config.video_root, transform, num_frames=frames)


def first_frame(clip: str) -> Image.Image:
    return read_frames(clip, 1)[0]


def build_model(config: Config) -> BLIPMatcher:
    return blip_itm(config.pretrained, embed_dim=config.embed_dim, **config.architecture())


def encode_clips(model: BLIPMatcher, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Encode clips: all tokens of the frames, for the matching head, and the mean of the frames' projections."""
    clips, frames = batch["video"].shape[:2]
    states = model.visual_encoder(normalize(batch["video"].flatten(0, 1)))  # [clips * frames, T, D]
    projected = model.vision_proj(states[:, 0]).float().unflatten(0, (clips, frames))
    tokens = states.unflatten(0, (clips, frames)).flatten(1, 2)  # [clips, frames * T, D]
    return tokens, F.normalize(projected.mean(dim=1), dim=-1)


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_msrvtt.yaml", "output/retrieval_msrvtt", arguments) as run:
        config = run.config
        evaluate = partial(
            evaluate_retrieval,
            run,
            {"test": read_split(config, "test")},
            encode_clips,
            config.batch_size,
            prefix="",  # as the logs of 2022 have it: `vid_r1`
            open_source=first_frame,
        )
        engine.run_evaluation(run, build_model(config), evaluate)


if __name__ == "__main__":
    main()
