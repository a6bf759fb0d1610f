"""Caption NoCaps, whose objects COCO never names, for its server (paper, section 5.2).

Published, validation, a captioner fine-tuned on COCO (CIDEr / SPICE): ViT-B with CapFilt-L 109.6 / 14.7, ViT-L 113.2 /
14.8.

    python eval_nocaps.py --config configs/nocaps.yaml --output_dir output/nocaps
    python -m torch.distributed.run --nproc_per_node=8 eval_nocaps.py --config configs/nocaps.yaml
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from torch.utils.data import DataLoader

import engine
from data.config import NoCapsData
from data.loaders import eval_loader
from data.nocaps import NoCapsEval
from evaluation.cases import caption_cases
from evaluation.provenance import provenance
from evaluation.report import Evaluated, Findings, report
from files import resolve
from metrics.caption import read_references
from metrics.nocaps import read_domains, score_nocaps
from models.blip import BLIPDecoder, blip_decoder
from models.config import ModelConfig, SearchConfig
from settings import setting
from transform.image import EvalTransform, normalize


@dataclass
class Config(engine.RunConfig, ModelConfig, SearchConfig, NoCapsData):
    """NoCaps's keys beside those of model and data."""

    val_gt_file: str = setting("", "ground truth of val with a domain an image, to score here; empty: predictions only")


def build_data(run: engine.Run[Config]) -> dict[str, DataLoader]:
    """The images of each split."""
    config = run.config
    loaders = {}
    for split in dict.fromkeys(config.own_split(split) or split for split in ("val", "test")):
        images = NoCapsEval(config.annotations(split), config.image_root, EvalTransform(config.image_size))
        loaders[split] = eval_loader(images, config.batch_size, num_workers=config.num_workers, **run.share)
    return loaders


def build_model(config: Config) -> BLIPDecoder:
    return blip_decoder(config.pretrained, image_size=config.image_size, prompt=config.prompt, **config.architecture())


def evaluate(run: engine.Run[Config], loaders: dict[str, DataLoader], model: BLIPDecoder) -> dict[str, Any]:
    """Caption every image: `result/SPLIT.json` is what the server takes. Scores by domain where there is a truth."""
    config, metrics = run.config, {}
    lengths = {"max_length": config.max_length, "min_length": config.min_length}
    truth = resolve(config.val_gt_file) if config.val_gt_file else None
    # Read before anything is captioned, so that a wrong file costs no evaluation.
    references = {}
    if truth and "val" in loaders:
        images = [one["img_id"] for one in loaders["val"].dataset.annotations]
        references = read_references(truth, images)
        read_domains(truth, images)
    for split, loader in loaders.items():
        predictions = []
        for batch in run.batches(loader, f"caption {split}"):
            captions = model.generate(normalize(batch["image"]), num_beams=config.num_beams, **lengths)
            pairs = zip(batch["image_id"], captions, strict=True)
            predictions += [{"image_id": image, "caption": caption} for image, caption in pairs]
        predictions = engine.gather_objects(predictions)
        run.write_json(f"result/{split}.json", predictions)
        if not run.is_first:
            continue
        found = Findings({}, [], {"CIDEr": f"no ground truth here; the server takes result/{split}.json"})
        if split == "val" and truth:
            domains = score_nocaps(predictions, truth)
            figures, not_computed = {}, {}
            for domain, scored in domains.items():
                metrics |= {f"val_{domain}_{name}": value for name, value in scored.scores.items()}
                prefix = "" if domain == "all" else f"{domain}-domain "
                figures |= {f"{prefix}{name}": value for name, value in scored.scores.items()}
                not_computed |= {f"{prefix}{name}": reason for name, reason in scored.not_computed.items()}
            files = {one["img_id"]: loader.dataset.files(row) for row, one in enumerate(loader.dataset.annotations)}
            cases = caption_cases(predictions, references, domains["all"], files)
            found = Findings(figures, cases, not_computed, domains["all"].remarks)
        known = provenance(config.pretrained)
        evaluated = Evaluated(split, config.annotations(split), "caption", config.pretrained, known)
        metrics |= report(run.output_dir, evaluated, found)
    return metrics


def main(arguments: Sequence[str] | None = None) -> None:
    with engine.start(Config, __doc__, "configs/nocaps.yaml", "output/nocaps", arguments) as run:
        engine.run_evaluation(run, build_model(run.config), partial(evaluate, run, build_data(run)))


if __name__ == "__main__":
    main()
