"""Pre-training takes what `capfilt.py select` writes as it is."""

import json
import tarfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

import pretrain
from bootstrapping.choice import select
from tests.bootstrapping.made_up import scored

KEPT, DROPPED = 0.9, 0.1


@pytest.fixture
def pairs(in_demo_folder):
    found = json.loads((in_demo_folder / "output/demo/web/pretrain.json").read_text())[:8]
    return [(in_demo_folder / "output/demo/web/images" / pair["image"], pair["caption"]) for pair in found]


def steps(folder, quick, *keys):
    """How many steps an epoch of pre-training takes, 4 images each."""
    keys = [*quick, "train_file=[]", "max_epoch=1", "batch_size=4", *keys]
    pretrain.main(["--config", "configs/demo/pretrain.yaml", "--output_dir", str(folder), *keys])
    return torch.load(folder / "checkpoint_last.pth", weights_only=True)["step"]


def texts_of(names):
    """Both texts of half of the images, and the synthetic one of the others."""
    return {
        name: [("web", "a red circle", (KEPT, DROPPED)[number % 2]), ("synthetic", "a blue square", KEPT)]
        for number, name in enumerate(names)
    }


def test_lists_of_pictures(pairs, quick, tmp_path):
    records = [{"image": image.name, "caption": caption} for image, caption in pairs]
    (tmp_path / "web.json").write_text(json.dumps(records))
    root = str(pairs[0][0].parent)
    names = [image.name for image, _ in pairs]
    run = scored(tmp_path / "run", [str(tmp_path / "web.json")], texts_of(names), image_root=root)
    assert select([str(run)]) == 0
    for file, number in (("filtered_web.json", 4), ("filtered_synthetic.json", 8), ("both.json", 12)):
        found = steps(tmp_path / file, quick, f"image_root={root}", f"train_file=[{run}/selected/{file}]")
        assert found == number // 4


def test_tar_files_and_their_lists(pairs, quick, tmp_path):
    with tarfile.open(tmp_path / "00000.tar", "w") as tar:
        for number, (image, _) in enumerate(pairs):
            tar.add(image, f"{number}{image.suffix}")
    names = [f"/{number}" for number in range(8)]
    run = scored(tmp_path / "run", [str(tmp_path / "00000.tar")], texts_of(names))
    assert select([str(run), "shards=true"]) == 0
    assert steps(tmp_path / "shards", quick, f"shards=['{run}/selected/shards/*.tar']") == 2
    assert steps(tmp_path / "list", quick, f"image_root={tmp_path}", f"train_file=[{run}/selected/both.json]") == 3


def test_parquet_files_with_pictures(pairs, quick, tmp_path):
    table = pa.table({"image": [image.read_bytes() for image, _ in pairs], "caption": [text for _, text in pairs]})
    pq.write_table(table, tmp_path / "part.parquet")
    names = [f"/row {number + 1}" for number in range(8)]
    run = scored(tmp_path / "run", [str(tmp_path / "part.parquet")], texts_of(names))
    assert select([str(run), "shards=true"]) == 0
    assert steps(tmp_path / "pretrained", quick, f"shards=['{run}/selected/shards/*.parquet']") == 2
