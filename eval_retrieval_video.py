"""Find video clips by text with a model that was fine-tuned on images (paper, section 5.6).

Published, MSR-VTT 1k test, zero-shot, text-to-video R@1 / R@5 / R@10: ViT-B fine-tuned on COCO 43.3 / 65.6 / 74.7.

    python eval_retrieval_video.py --config configs/retrieval_msrvtt.yaml --output_dir output/retrieval_msrvtt
    python -m torch.distributed.run --nproc_per_node=8 eval_retrieval_video.py
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch
import torch.nn.functional as F
from torch.utils.data import DataLoader

import engine
from data.config import VideoData
from data.loaders import eval_loader
from data.video import read_frames
from data.video_retrieval import VideoEval
from metrics.cases import Searched, retrieval_findings
from metrics.report import Evaluated, report
from models.blip_itm import BLIPMatcher, blip_itm
from models.config import ModelConfig
from models.released import find_released
from models.rerank import rerank
from transform.image import EvalTransform, normalize
from utils import setting


@dataclass
class Config(engine.RunConfig, ModelConfig, VideoData):
    """Video retrieval's keys beside those of model and data."""

    embed_dim: int = setting(256, "width of the space in which clips and texts are compared")
    k_test: int = setting(128, "candidates of each query that the matching head re-ranks")

    def __post_init__(self) -> None:
        super().__post_init__()
        engine.check(self.k_test >= 1, "k_test", self.k_test, "at least 1")


def build_data(run: engine.Run[Config]) -> DataLoader:
    """This process's clips; the dataset holds all texts."""
    config = run.config
    clips = VideoEval(
        config.annotations("test"),
        config.video_root,
        EvalTransform(config.image_size),
        num_frames=config.num_frm_test,
    )
    return eval_loader(clips, config.batch_size, num_workers=config.num_workers, **run.share)


def build_model(config: Config) -> BLIPMatcher:
    return blip_itm(
        config.pretrained, image_size=config.image_size, embed_dim=config.embed_dim, **config.architecture()
    )


def evaluate(run: engine.Run[Config], loader: DataLoader, model: BLIPMatcher) -> dict[str, float]:
    """A clip is all tokens of its frames to the matching head, and the mean of their projections to the similarity."""
    config, dataset = run.config, loader.dataset
    states, features, index = [], [torch.empty(0, config.embed_dim)], []
    for batch in run.batches(loader, "encode clips"):
        clips, frames = batch["video"].shape[:2]
        embeds = model.visual_encoder(normalize(batch["video"].flatten(0, 1)))  # [clips * frames, T, D]
        projected = model.vision_proj(embeds[:, 0]).float().view(clips, frames, -1)
        states.extend(embeds.view(clips, -1, embeds.shape[-1]).cpu())  # [frames * T, D] each
        features.append(F.normalize(projected.mean(dim=1), dim=-1).cpu())
        index += batch["index"].tolist()
    first = index[0] if index else 0
    to_text, to_video = rerank(
        model, states, torch.cat(features), first, dataset.text, config.k_test, gather=engine.gather_objects
    )
    clips = range(len(dataset))
    texts_of, clip_of = [dataset.vid2txt[clip] for clip in clips], list(dataset.txt2vid.values())
    searched = Searched(dataset.text, texts_of, clip_of, [dataset.files(clip) for clip in clips], "vid")
    scores, found = retrieval_findings(to_text, to_video, searched)
    if run.is_first:
        files, released = config.annotations("test"), find_released(config.pretrained)
        evaluated = Evaluated("test", files, "retrieval", config.pretrained, released)
        report(run.output_dir, evaluated, found, open_source=lambda clip: read_frames(clip, 1)[0])
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_msrvtt.yaml", "output/retrieval_msrvtt", arguments) as run:
        engine.run_evaluation(run, build_model(run.config), partial(evaluate, run, build_data(run)))


if __name__ == "__main__":
    main()
