"""Caption NoCaps, images of objects that COCO's captions do not name, for its server (paper, section 5.2).

Published, validation, a captioner fine-tuned on COCO (CIDEr / SPICE): ViT-B with CapFilt-L 109.6 / 14.7, ViT-L 113.2 /
14.8.

    python eval_nocaps.py --config configs/nocaps.yaml --output_dir output/nocaps
    python -m torch.distributed.run --nproc_per_node=8 eval_nocaps.py --config configs/nocaps.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

if __name__ == "__main__":
    from settings.interrupts import exit_on_interrupt

    exit_on_interrupt()

import engine
from data.config import NoCapsData
from data.loaders import EvalLoader
from data.nocaps import NoCapsEval
from evaluation.captioning import caption_images
from evaluation.cases import nocaps_findings
from evaluation.findings import Findings
from evaluation.run import evaluate_splits
from files import resolve
from metrics.caption import read_references
from metrics.nocaps import read_domains, score_nocaps
from metrics.scorers import require_scorers
from models.blip import BLIPDecoder, blip_decoder
from settings import setting
from settings.model import CaptionSettings, ModelSettings

Images = EvalLoader[NoCapsEval]


@dataclass
class Config(engine.RunConfig, ModelSettings, CaptionSettings, NoCapsData):
    """NoCaps's keys beside those of model and data."""

    val_gt_file: str = setting(
        "", "ground truth of val, with the domain of each image, to score by; empty: predictions only"
    )


def read_split(run: engine.Run[Config], name: str) -> Images:
    """The images of a split. Val's ground truth is read here, so that a wrong file ends the run at once."""
    config = run.config
    dataset = NoCapsEval(config.annotations(name), config.image_root, config.eval_transform())
    if name == "val" and config.val_gt_file:
        image_ids = dataset.annotations.values("img_id")
        require_scorers()
        read_references(resolve(config.val_gt_file), image_ids)
        read_domains(resolve(config.val_gt_file), image_ids)
    return config.eval_loader(dataset, config.batch_size, run.share)


def predict(run: engine.Run[Config], model: BLIPDecoder, images: Images) -> list[dict[str, Any]]:
    return caption_images(run, model, images, run.config.search())


def score(run: engine.Run[Config], name: str, images: Images, predictions: list[dict[str, Any]]) -> Findings:
    """The scores of val by domain. Test's ground truth is on the server only."""
    if name != "val" or not run.config.val_gt_file:
        return Findings({}, {}, [], {"CIDEr": f"no ground truth here; the server takes result/{name}.json"})
    ground_truth = resolve(run.config.val_gt_file)
    dataset = images.dataset
    files = {record["img_id"]: dataset.files(row) for row, record in enumerate(dataset.annotations)}
    domains = score_nocaps(predictions, ground_truth)
    return nocaps_findings(predictions, read_references(ground_truth), domains, files)


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/nocaps.yaml", "output/nocaps", arguments) as run:
        config = run.config
        splits = {name: read_split(run, name) for name in config.evaluated_splits()}
        captioner = blip_decoder(config.pretrained, prompt=config.prompt, **config.architecture())
        engine.run_evaluation(run, captioner, partial(evaluate_splits, run, "caption", splits, predict, score))


if __name__ == "__main__":
    main()
