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
from data.loaders import listed_loader
from data.media.video import read_frames
from data.video_retrieval import VideoEval
from evaluation.cases import Searched, retrieval_findings
from evaluation.provenance import provenance
from evaluation.report import Evaluated, report
from models.blip_itm import BLIPMatcher, blip_itm
from models.config import ModelConfig
from models.rerank.image_states import ImageStates
from models.rerank.search import Candidates, rerank
from models.rerank.work_shares import Processes
from settings import setting
from transform.image import EvalTransform, normalize


@dataclass
class Config(engine.RunConfig, ModelConfig, VideoData):
    """Video retrieval's keys beside those of model and data."""

    embed_dim: int = setting(256, "width of the space in which clips and texts are compared")
    k_test: int = setting(128, "candidates of each query that the matching head re-ranks")
    states_gib: float = setting(
        16.0, "GiB of clip states that a process keeps for re-ranking; where they take more, clips are encoded again"
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        engine.check(self.k_test >= 1, "k_test", self.k_test, "at least 1")
        engine.check(self.states_gib >= 0, "states_gib", self.states_gib, "0 or more")


def build_data(config: Config) -> VideoEval:
    return VideoEval(
        config.annotations("test"),
        config.video_root,
        EvalTransform(config.image_size),
        num_frames=config.num_frm_test,
    )


def build_model(config: Config) -> BLIPMatcher:
    return blip_itm(
        config.pretrained, image_size=config.image_size, embed_dim=config.embed_dim, **config.architecture()
    )


def search(run: engine.Run[Config], model: BLIPMatcher, dataset: VideoEval) -> tuple[Candidates, Candidates]:
    """The texts found for each clip, and the clips found for each text.

    A clip is all tokens of its frames to the matching head, and the mean of their projections to the similarity.
    """
    config = run.config

    def encode(batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        frames = run.to_device(batch)["video"]
        embeds = model.visual_encoder(normalize(frames.flatten(0, 1)))  # [clips * frames, T, D]
        projected = model.vision_proj(embeds[:, 0]).float().unflatten(0, frames.shape[:2])
        states = embeds.unflatten(0, frames.shape[:2]).flatten(1, 2)  # [clips, frames * T, D]
        return states, F.normalize(projected.mean(dim=1), dim=-1)

    read = partial(listed_loader, dataset, num_workers=config.num_workers, pin_memory=run.share["pin_memory"])
    clips = ImageStates(len(dataset), config.batch_size, read, encode, config.states_gib)
    processes = Processes(run.rank, run.world_size, engine.gather_objects)
    return rerank(model, clips, dataset.text, config.k_test, processes=processes, progress=run.progress)


def evaluate(run: engine.Run[Config], dataset: VideoEval, model: BLIPMatcher) -> dict[str, Any]:
    """Recall in both directions: `vid_r1` of clips found by texts, `txt_r1` of texts by clips."""
    config = run.config
    to_text, to_video = search(run, model, dataset)
    clips = range(len(dataset))
    texts_of, clip_of = [dataset.vid2txt[clip] for clip in clips], list(dataset.txt2vid.values())
    searched = Searched(dataset.text, texts_of, clip_of, [dataset.files(clip) for clip in clips], "vid")
    scores, found = retrieval_findings(to_text, to_video, searched)
    if run.is_first:
        files, known = config.annotations("test"), provenance(config.pretrained)
        evaluated = Evaluated("test", files, "retrieval", config.pretrained, known)
        scores |= report(run.output_dir, evaluated, found, open_source=lambda clip: read_frames(clip, 1)[0])
    return scores


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/retrieval_msrvtt.yaml", "output/retrieval_msrvtt", arguments) as run:
        engine.run_evaluation(run, build_model(run.config), partial(evaluate, run, build_data(run.config)))


if __name__ == "__main__":
    main()
