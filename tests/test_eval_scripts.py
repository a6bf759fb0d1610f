"""What every evaluation leaves behind; and the two scripts that only evaluate, NoCaps and retrieval of clips."""

import json

import pytest
import torch

import eval_nocaps
import eval_retrieval_video
import train_caption
import train_nlvr
import train_retrieval
import train_vqa
from settings import ConfigError, load_config

EVERY_CAPTION = [{"image_id": image, "caption": "a circle"} for image in range(10_000)]


@pytest.mark.parametrize(
    ("script", "config", "options"),
    [
        (train_caption, "caption", ["max_length=12"]),
        (train_nlvr, "nlvr", []),
        (train_vqa, "vqa", []),
        (train_retrieval, "retrieval", ["k_test=4", "queue_size=50"]),
        (eval_retrieval_video, "video", ["k_test=3"]),
        (eval_nocaps, "nocaps", ["max_length=12"]),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_samples_by_error_and_a_gallery_with_pictures(script, config, options, quick, in_demo_folder, tmp_path, capsys):
    flags = ["--config", f"configs/demo/{config}.yaml", "--evaluate", "--output_dir", str(tmp_path)]
    script.main([*flags, *quick, "pretrained=''", *options])
    split = "val" if config == "nocaps" else "test"
    errors = [sample["error"] for sample in json.loads((tmp_path / "result" / f"{split}_samples.json").read_text())]
    assert errors == sorted(errors, reverse=True)
    page = (tmp_path / "result" / f"{split}.html").read_text()
    assert "data:image/jpeg" in page
    assert "class='missing'" not in page
    assert "the weights are random" in capsys.readouterr().out


def test_nocaps_writes_the_servers_format_and_scores_by_domain(quick, pretrained, in_demo_folder, tmp_path, capsys):
    training = {"checkpoint_last.pth": "its state", "config.yaml": "its config"}  # in whose folder one may evaluate
    for name, content in training.items():
        (tmp_path / name).write_text(content)
    eval_nocaps.main(
        ["--config", "configs/demo/nocaps.yaml", "--output_dir", str(tmp_path), *quick, f"pretrained={pretrained}"]
    )
    predictions = json.loads((tmp_path / "result" / "val.json").read_text())
    asked = json.loads((in_demo_folder / "output/demo/world/nocaps_val.json").read_text())
    assert [prediction["image_id"] for prediction in predictions] == [image["img_id"] for image in asked]
    assert all(prediction.keys() == {"image_id", "caption"} for prediction in predictions)
    scores = json.loads((tmp_path / "evaluate.txt").read_text())
    assert {"val_in_BLEU-4", "val_out_BLEU-4", "val_all_CIDEr"} <= set(scores)
    printed = capsys.readouterr().out
    assert all(f"val {domain}SPICE" in printed for domain in ("", "in-domain ", "out-domain "))  # and why there is none
    assert {name: (tmp_path / name).read_text() for name in training} == training


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, r"truth\.json is not there"),
        ("{", r"truth\.json is not JSON"),
        ("[1]", r"truth\.json is not in COCO format"),
        (
            '{"annotations": []}',
            r"truth\.json: \d+ of \d+ captioned images have no reference caption, image_id \d+ among",
        ),
        (json.dumps({"annotations": EVERY_CAPTION, "images": [{}]}), r"image \d+ has domain None in the ground truth"),
    ],
)
def test_a_nocaps_ground_truth_that_cannot_be_used_ends_the_evaluation_before_it_begins(
    quick, in_demo_folder, tmp_path, monkeypatch, content, message
):
    monkeypatch.setattr(eval_nocaps.BLIPDecoder, "generate", lambda *_, **__: pytest.fail("an image was captioned"))
    truth = tmp_path / "truth.json"
    if content is not None:
        truth.write_text(content)
    options = [*quick, "pretrained=''", "max_length=12", f"val_gt_file={truth}"]
    with pytest.raises(SystemExit, match=message):
        eval_nocaps.main(["--config", "configs/demo/nocaps.yaml", "--output_dir", str(tmp_path), *options])


def test_a_nocaps_ground_truth_of_a_split_that_is_not_captioned_is_refused():
    only_test = ["val_file=", "test_file=own.json"]
    with pytest.raises(
        ConfigError, match=r"nocaps\.yaml line 3: val_gt_file = .*: must be empty where test_file stands in"
    ):
        load_config(eval_nocaps.Config, "configs/demo/nocaps.yaml", only_test)
    for captioned in ([*only_test, "val_gt_file="], ["test_file=own.json"], ["val_file="]):
        load_config(eval_nocaps.Config, "configs/demo/nocaps.yaml", captioned)


def test_clips_are_found_the_same_on_one_process_and_two(quick, pretrained, in_demo_folder, tmp_path, torchrun_script):
    arguments = [*quick, f"pretrained={pretrained}", "k_test=3", "batch_size=2"]
    video = ["--config", "configs/demo/video.yaml", *arguments]
    eval_retrieval_video.main([*video, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "eval_retrieval_video.py", *video, "--output_dir", tmp_path / "two")
    one, two = (json.loads((tmp_path / folder / "evaluate.txt").read_text()) for folder in ("one", "two"))
    assert one == two
    assert {"txt_r1", "vid_r1", "vid_mdR", "r_mean"} <= set(one)


def test_an_impossible_width_of_the_common_space_is_named(capsys):
    with pytest.raises(SystemExit, match="command line: embed_dim = 0: must be at least 1"):
        eval_retrieval_video.main(["--config", "configs/demo/video.yaml", "embed_dim=0"])


def test_zero_shot_video_retrieval_is_compared_with_the_papers(quick, in_demo_folder, tmp_path):
    annotations = tmp_path / "msrvtt_test.jsonl"
    annotations.write_bytes((in_demo_folder / "output/demo/world/video_test.jsonl").read_bytes())
    config = load_config(eval_retrieval_video.Config, "configs/demo/video.yaml", [*quick, "pretrained=''"])
    checkpoint = tmp_path / "model_base_retrieval_coco.pth"
    torch.save({"model": eval_retrieval_video.build_model(config).state_dict()}, checkpoint)
    flags = ["--config", "configs/demo/video.yaml", "--checkpoint", str(checkpoint), "--output_dir", str(tmp_path)]
    eval_retrieval_video.main([*flags, *quick, "k_test=3", f"test_file={annotations}"])
    found = json.loads((tmp_path / "evaluate.txt").read_text())
    published = {1: 43.3, 5: 65.6, 10: 74.7}
    assert {name: one["published"] for name, one in found.items() if isinstance(one, dict)} == {
        f"MSR-VTT text-to-video R@{k}": value for k, value in published.items()
    }
    assert found["MSR-VTT text-to-video R@1"]["difference"] == pytest.approx(found["vid_r1"] - 43.3)
