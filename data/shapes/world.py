"""Write a world into a folder: pictures, clips and the annotation files of every task."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from data.media.video import write_clip
from data.shapes import task_records
from data.shapes.clips import FPS, sample_clip
from data.shapes.questions import ANSWERS
from data.shapes.render import render
from data.shapes.scene import HELD_OUT, LEVELS, SEEN, Scene, sample_kinds, sample_scene, seeded_rng
from data.shapes.task_records import SplitScenes
from data.shapes.vocabulary import vocabulary
from files import atomic_write

DOMAINS = ("in-domain", "near-domain", "out-domain")
FEWEST_IMAGES, MOST_IMAGES = 24, 10_000_000


@dataclass(frozen=True)
class World:
    """The settings of a world, and the scenes that follow from them; `build_world` says what each setting means."""

    images: int
    seed: int
    noise: float
    size: int
    max_objects: int
    level: int

    def __post_init__(self) -> None:
        if self.images < FEWEST_IMAGES:
            raise ValueError(f"images is {self.images}; every split needs some, so ask for at least {FEWEST_IMAGES}")
        if self.images > MOST_IMAGES:
            raise ValueError(f"images is {self.images}; all scenes are kept in memory, so at most {MOST_IMAGES:,}")
        if not 0 <= self.noise <= 1:
            raise ValueError(f"noise is {self.noise}; it is the share of wrong captions, so between 0 and 1")
        if not 32 <= self.size <= 1024 or self.size % 2:
            raise ValueError(f"size is {self.size}; pictures have an even number of pixels, from 32 to 1024")
        if not 1 <= self.max_objects <= 4:
            raise ValueError(f"max_objects is {self.max_objects}; a scene holds 1 to 4 things")
        if self.level not in LEVELS:
            raise ValueError(f"level is {self.level}; there are {', '.join(map(str, LEVELS))}")

    @property
    def splits(self) -> dict[str, int]:
        """A tenth of the pictures each for val, test and nocaps (4 at least, 500 at most), the rest for train."""
        held = min(max(self.images // 10, 4), 500)
        return {"train": self.images - 3 * held, "val": held, "test": held, "nocaps": held}

    @property
    def clips(self) -> int:
        """The number of clips: one for 50 pictures (4 at least, 100 at most)."""
        return min(max(self.images // 50, 4), 100)

    def split(self, name: str) -> SplitScenes:
        """All scenes of a split."""
        scenes = [self.scene(name, k) for k in range(self.splits[name])]
        return SplitScenes(self.seed, name, LEVELS[self.level], scenes)

    def scene(self, split: str, k: int) -> Scene:
        """The scene of picture `k` of a split."""
        rng = seeded_rng(self.seed, split, k, "scene")
        count = rng.randint(1, self.max_objects)
        domain = self.domain(k) if split == "nocaps" else "in-domain"
        if domain == "in-domain":
            kinds = sample_kinds(rng, count, SEEN)
        elif domain == "out-domain":
            kinds = sample_kinds(rng, count, HELD_OUT)
        else:  # something seen and something held out
            count = max(count, 2)
            known = rng.randint(1, count - 1)
            kinds = sample_kinds(rng, known, SEEN) + sample_kinds(rng, count - known, HELD_OUT)
        return sample_scene(rng, LEVELS[self.level], kinds)

    def domain(self, k: int) -> str:
        """The domain of picture `k` of the nocaps split; a near-domain scene has at least two things."""
        domains = DOMAINS if self.max_objects > 1 else ("in-domain", "out-domain")
        return domains[k % len(domains)]


def build_world(
    out: str | os.PathLike[str],
    images: int,
    seed: int = 0,
    noise: float = 0.0,
    size: int = 64,
    max_objects: int = 4,
    level: int = 3,
) -> None:
    """Write a world of `images` pictures of `size` x `size` pixels into the folder `out` (see `data.shapes`).

    Raises:
        ValueError: a setting is out of its range.
        FileExistsError: `out` holds other files, or a world of other settings.
    """
    world, out = World(images, seed, noise, size, max_objects, level), Path(out)
    _write_settings(out, world)
    splits = {name: world.split(name) for name in world.splits}
    scenes = {
        image: scene for split in splits.values() for image, scene in zip(split.images, split.scenes, strict=True)
    }
    for name in splits:
        (out / "images" / name).mkdir(parents=True, exist_ok=True)
    for image, scene in scenes.items():
        # full chroma resolution: small colored things are all there is to see
        render(scene, size).save(out / "images" / image, quality=92, subsampling=0)
    _write_clips(out, world)
    _write_annotations(out, world, splits)
    _write_json(out / "scenes.json", {image: scene.to_json() for image, scene in scenes.items()})


def read_scenes(path: str | os.PathLike[str]) -> dict[str, Scene]:
    """Picture -> scene, from a world's `scenes.json`."""
    return {image: Scene.from_json(record) for image, record in json.loads(Path(path).read_text()).items()}


def _write_settings(out: Path, world: World) -> None:
    """Write world.json, which marks `out` as the folder of this world.

    Raises FileExistsError where `out` holds anything else: files of two worlds would mix unnoticed.
    """
    settings = asdict(world) | {"splits": world.splits, "held_out": [list(kind) for kind in HELD_OUT]}
    record = out / "world.json"
    if record.exists():
        if json.loads(record.read_text()) != settings:
            raise FileExistsError(
                f"{record} describes a world of other settings: choose another folder or delete this one"
            )
    elif out.exists() and any(out.iterdir()):
        raise FileExistsError(f"{out} is not empty and holds no world: choose another folder")
    _write_json(record, settings)


def _write_annotations(out: Path, world: World, splits: dict[str, SplitScenes]) -> None:
    train = splits["train"]
    pairs, swapped = task_records.pretraining(train, world.noise)
    files: dict[str, object] = {
        "pretrain": pairs,
        "noise": swapped,
        "caption_train": task_records.training_captions(train, detailed=False),
        "retrieval_train": task_records.training_captions(train, detailed=True),
        "vqa_train": task_records.vqa(train, with_answers=True),
        "vqa_val": task_records.vqa(splits["val"], with_answers=True),
        "vqa_test": task_records.vqa(splits["test"], with_answers=False),
        "vg_qa": task_records.visual_genome(train),
        "answer_list": list(ANSWERS),
    }
    for name in ("val", "test"):
        captions = task_records.reference_captions(splits[name], detailed=False)
        files[f"caption_{name}"] = captions
        files[f"caption_{name}_gt"] = task_records.coco_ground_truth(captions)
        files[f"retrieval_{name}"] = task_records.reference_captions(splits[name], detailed=True)
        questions, answers = task_records.official_vqa(splits[name])
        files[f"vqa_{name}_questions"], files[f"vqa_{name}_annotations"] = questions, answers
    for name in ("train", "val", "test"):
        files[f"nlvr_{name}"] = task_records.nlvr(splits[name])
    nocaps = task_records.reference_captions(splits["nocaps"], detailed=False)
    files["nocaps_val"] = [{"image": record["image"], "img_id": k} for k, record in enumerate(nocaps)]
    domains = [world.domain(k) for k in range(len(nocaps))]
    files["nocaps_val_gt"] = task_records.coco_ground_truth(nocaps, domains)
    for name, content in files.items():
        _write_json(out / f"{name}.json", content)
    with atomic_write(out / "vocab.txt") as path:
        path.write_text("\n".join(vocabulary()) + "\n")


def _write_clips(out: Path, world: World) -> None:
    (out / "videos").mkdir(exist_ok=True)
    lines: list[str] = []
    for k in range(world.clips):
        clip = sample_clip(seeded_rng(world.seed, "clip", k), LEVELS[world.level], world.max_objects)
        write_clip(out / "videos" / f"video{k}.mp4", [render(scene, world.size) for scene in clip.frames], FPS)
        lines.append(json.dumps({"clip_name": f"video{k}", "caption": clip.caption}) + "\n")
    with atomic_write(out / "video_test.jsonl") as path:
        path.write_text("".join(lines))


def _write_json(path: Path, content: object) -> None:
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(content))
