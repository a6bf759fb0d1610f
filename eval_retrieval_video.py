"""Find video clips by text with a model that was fine-tuned on images (paper, section 5.6).

Published, MSR-VTT 1k test, zero-shot, text-to-video R@1 / R@5 / R@10: ViT-B fine-tuned on COCO 43.3 / 65.6 / 74.7.

    python eval_retrieval_video.py --config configs/retrieval_msrvtt.yaml --output_dir output/retrieval_msrvtt
    python -m torch.distributed.run --nproc_per_node=8 eval_retrieval_video.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch.nn.functional as F
from torch import Tensor

import engine
from data.config import VideoData
from data.media.video import read_frames
from data.video_retrieval import VideoEval
from evaluation.cases import SearchedSplit, retrieval_findings
from evaluation.search import search_split
from evaluation.splits import report_split
from models.blip_itm import BLIPMatcher, blip_itm
from settings import setting
from settings.model import ModelSettings, RerankSettings
from transform.image import normalize


@dataclass
class Config(engine.RunConfig, ModelSettings, RerankSettings, VideoData):
    """Video retrieval's keys beside those of model and data."""

    embed_dim: int = setting(256, "width of the common space of clips and texts")
    k_test: int = setting(128, "candidates of each query that the matching head re-ranks")


def build_clips(config: Config) -> VideoEval:
    transform, frames = config.eval_transform(), config.num_frm_test
    return VideoEval(config.annotations("test"), config.video_root, transform, num_frames=frames)


def build_model(config: Config) -> BLIPMatcher:
    return blip_itm(config.pretrained, embed_dim=config.embed_dim, **config.architecture())


def encode_clips(model: BLIPMatcher, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Encode clips: all tokens of the frames, for the matching head, and the mean of the frames' projections."""
    clips, frames = batch["video"].shape[:2]
    states = model.visual_encoder(normalize(batch["video"].flatten(0, 1)))  # [clips * frames, T, D]
    projected = model.vision_proj(states[:, 0]).float().unflatten(0, (clips, frames))
    tokens = states.unflatten(0, (clips, frames)).flatten(1, 2)  # [clips, frames * T, D]
    return tokens, F.normalize(projected.mean(dim=1), dim=-1)


def evaluate(run: engine.Run[Config], dataset: VideoEval, model: BLIPMatcher) -> dict[str, Any]:
    """Recall in both directions: `vid_r1` of clips found by texts, `txt_r1` of texts by clips."""
    encode = partial(encode_clips, model)
    to_text, to_clip = search_split(run, model, dataset, dataset.text, encode, run.config.batch_size)
    if not run.is_first:
        return {}
    clips = range(len(dataset))
    texts_of, clip_of = [dataset.vid2txt[clip] for clip in clips], list(dataset.txt2vid.values())
    searched = SearchedSplit(dataset.text, texts_of, clip_of, [dataset.files(clip) for clip in clips], "vid")
    found = retrieval_findings(to_text, to_clip, searched)
    return report_split(run, "retrieval", "test", found, prefix="", open_source=lambda clip: read_frames(clip, 1)[0])


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_msrvtt.yaml", "output/retrieval_msrvtt", arguments) as run:
        clips = build_clips(run.config)
        engine.run_evaluation(run, build_model(run.config), partial(evaluate, run, clips))


if __name__ == "__main__":
    main()
