"""Captioning end to end: fine-tuning from pre-training at another image size, evaluation, one process and two."""

import json
from types import SimpleNamespace

import pytest
import torch

import train_caption
from settings import ConfigError, load_config
from transform.image import TrainTransform

CONFIG = "configs/demo/caption.yaml"


@pytest.fixture
def arguments(quick, pretrained, in_demo_folder):
    return ["--config", CONFIG, *quick, f"pretrained={pretrained}", "batch_size=8", "max_epoch=1", "max_length=12"]


def test_fine_tuning_from_pre_training_at_another_image_size(arguments, in_demo_folder, tmp_path):
    train_caption.main([*arguments, "--output_dir", str(tmp_path), "image_size=96"])
    line = json.loads((tmp_path / "log.txt").read_text())
    assert line["val_CIDEr+BLEU-4"] == pytest.approx(line["val_CIDEr"] + line["val_BLEU-4"])
    best = torch.load(tmp_path / "checkpoint_best.pth", weights_only=True)
    assert best["model"]["visual_encoder.pos_embed"].shape == (1, 1 + 6 * 6, 32)
    words = (in_demo_folder / "output/demo/world/vocab.txt").read_text().split("\n")[:-1]
    last = torch.load(tmp_path / "checkpoint_last.pth", weights_only=True)
    assert best["architecture"]["vocabulary"] == last["architecture"]["vocabulary"] == words
    assert best["architecture"]["med_config"]["num_attention_heads"] == 2
    for split in ("val", "test"):
        predictions = json.loads((tmp_path / "result" / f"{split}.json").read_text())
        assert [prediction["image_id"] for prediction in predictions] == list(range(6))
        assert all(isinstance(prediction["caption"], str) for prediction in predictions)


def test_evaluating_the_weights_gives_the_scores_of_the_training_on_one_process_and_two(
    arguments, tmp_path, torchrun_script
):
    train_caption.main([*arguments, "--output_dir", str(tmp_path)])
    trained = json.loads((tmp_path / "evaluate.txt").read_text())
    results = json.loads((tmp_path / "result" / "test.json").read_text())
    again = [*arguments, "--evaluate", "--checkpoint", str(tmp_path / "checkpoint_best.pth")]
    train_caption.main([*again, "--output_dir", str(tmp_path / "one")])
    torchrun_script(2, "train_caption.py", *again, "--output_dir", tmp_path / "two")
    for folder in ("one", "two"):
        assert json.loads((tmp_path / folder / "evaluate.txt").read_text()) == pytest.approx(trained)
        assert json.loads((tmp_path / folder / "result" / "test.json").read_text()) == results


def test_captions_and_scores_are_the_same_for_any_number_of_images_at_once(arguments, tmp_path, monkeypatch):
    found, batches = {}, []
    generate = train_caption.BLIPDecoder.generate_n_best
    monkeypatch.setattr(
        train_caption.BLIPDecoder,
        "generate_n_best",
        lambda model, image, *rest: batches.append(len(image)) or generate(model, image, *rest),
    )
    for at_once in ("null", 4, 1):
        folder = tmp_path / str(at_once)
        train_caption.main([*arguments, "--evaluate", "--output_dir", str(folder), f"batch_size_test={at_once}"])
        found[at_once] = [
            (folder / name).read_text() for name in ("result/val.json", "result/test.json", "evaluate.txt")
        ]
    assert found["null"] == found[4] == found[1]
    assert batches == [6, 6] + [4, 2] * 2 + [1] * 12


def test_another_vocabulary_than_the_checkpoints_is_refused_and_its_own_taken_from_it(arguments, pretrained, tmp_path):
    words = torch.load(pretrained, weights_only=True)["architecture"]["vocabulary"]
    other = tmp_path / "other.txt"
    other.write_text("\n".join([*words[:-2], words[-1], words[-2]]))
    with pytest.raises(SystemExit, match=rf"{pretrained} was trained with another vocabulary than .*{other}: token"):
        train_caption.main([*arguments, "--output_dir", str(tmp_path), f"vocab_file={other}"])
    config = load_config(train_caption.Config, CONFIG, [*arguments[2:], f"vocab_file={pretrained}"])
    assert list(train_caption.build_model(config).vocabulary.tokens) == words


def test_where_the_vocabulary_file_is_gone_the_checkpoints_own_is_taken(arguments, pretrained, tmp_path):
    words = torch.load(pretrained, weights_only=True)["architecture"]["vocabulary"]
    gone = f"vocab_file={tmp_path / 'gone.txt'}"
    config = load_config(train_caption.Config, CONFIG, [*arguments[2:], gone])
    assert list(train_caption.build_model(config).vocabulary.tokens) == words
    train_caption.main([*arguments, "--evaluate", "--output_dir", str(tmp_path / "out"), gone])
    assert "test_CIDEr" in json.loads((tmp_path / "out" / "evaluate.txt").read_text())
    with pytest.raises(SystemExit, match=r"vocabulary file .*gone.txt does not exist"):
        train_caption.main([*arguments, "--output_dir", str(tmp_path / "new"), gone, "pretrained=''"])


def test_two_processes_train_as_one_on_the_same_batches(arguments, tmp_path, torchrun_script):
    # Accumulated, not one large batch: the loss is a mean over the words of a batch, and captions differ in length.
    small = [*arguments, "batch_size=4"]
    train_caption.main([*small, "--output_dir", str(tmp_path / "one"), "accumulation_steps=2"])
    torchrun_script(2, "train_caption.py", *small, "--output_dir", tmp_path / "two")
    one, two = (json.loads((tmp_path / folder / "log.txt").read_text()) for folder in ("one", "two"))
    assert two == pytest.approx(one, abs=1e-5)
    one, two = (torch.load(tmp_path / folder / "checkpoint_last.pth", weights_only=True) for folder in ("one", "two"))
    assert one["step"] == two["step"] > 5
    torch.testing.assert_close(two["model"], one["model"])


def test_a_wrong_ground_truth_ends_the_run_before_it_begins(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(train_caption.BLIPDecoder, "forward", lambda *_, **__: pytest.fail("a caption was read"))
    truth = tmp_path / "truth.json"
    truth.write_text('{"annotations": [{"image_id": "another", "caption": "a dog"}]}')
    for wrong, message in (
        ("no-such.json", "no-such.json does not exist"),
        (str(truth), "6 of 6 captioned images have no reference"),
    ):
        with pytest.raises(SystemExit, match=message):
            train_caption.main([*arguments, "--output_dir", str(tmp_path / "run"), f"val_gt_file={wrong}"])


def test_a_missing_training_file_is_named_before_weights_are_fetched(arguments, tmp_path, monkeypatch):
    monkeypatch.setattr(train_caption, "blip_decoder", lambda *_, **__: pytest.fail("a model was built"))
    with pytest.raises(SystemExit, match="annotation file nope.json does not exist"):
        train_caption.main([*arguments, "--output_dir", str(tmp_path), "train_file=nope.json"])


def test_long_captions_are_trained_on_as_far_as_the_config_says(in_demo_folder, quick, tmp_path):
    world = in_demo_folder / "output/demo/world"
    image = json.loads((world / "caption_train.json").read_text())[0]["image"]
    (tmp_path / "train.json").write_text(json.dumps([{"image": image, "caption": "a cat and " * 20}]))
    config = load_config(
        train_caption.Config,
        CONFIG,
        [
            *quick,
            "pretrained=''",
            f"train_file={tmp_path / 'train.json'}",
            "max_words=45",
            "max_tokens=50",
            "batch_size=1",
        ],
    )
    run = SimpleNamespace(config=config, seed=0, share={}, is_first=True)
    dataset = train_caption.build_loader(run).dataset
    (caption,) = dataset.collate([dataset[(0, 0)]])["caption"]
    assert caption == "a picture of " + " ".join(["a", "cat", "and"] * 15)
    assert train_caption.build_model(config).max_caption_length == 50
    for wrong in ("max_words=0", "max_tokens=2"):
        with pytest.raises(ConfigError, match=wrong.replace("=", " = ")):
            load_config(train_caption.Config, CONFIG, [wrong])
    prompt = ["prompt=a-picture-of", "max_length=6", "min_length=1"]  # [DEC] a - picture - of
    with pytest.raises(ConfigError, match="max_length = 6: must be above the 6 tokens"):
        train_caption.build_model(load_config(train_caption.Config, CONFIG, [*quick, "pretrained=''", *prompt]))
    with pytest.raises(ConfigError, match="max_tokens = 5: must be at least 6"):  # [DEC] a picture of, a word, the end
        train_caption.build_model(load_config(train_caption.Config, CONFIG, [*quick, "pretrained=''", "max_tokens=5"]))


def test_gradient_checkpointing_changes_no_gradient(in_demo_folder, quick):
    config = load_config(train_caption.Config, CONFIG, [*quick, "pretrained=''"])
    batch = {
        "image": torch.randint(0, 255, (2, 3, 64, 64), dtype=torch.uint8),
        "caption": ["a picture of a cat", "a picture of a red dog"],
    }
    gradients = []
    for options in (["vit_grad_ckpt=false"], ["vit_grad_ckpt=true", "vit_ckpt_layer=2"]):
        torch.manual_seed(0)
        config = load_config(train_caption.Config, CONFIG, [*quick, "pretrained=''", *options])
        model = train_caption.build_model(config)
        train_caption.train_step(model, batch, None)["loss"].backward()
        gradients.append([parameter.grad for parameter in model.parameters()])
    for plain, recomputed in zip(*gradients, strict=True):
        torch.testing.assert_close(plain, recomputed)


def test_the_loss_of_one_batch_can_be_driven_down(in_demo_folder, quick, overfit):
    config = load_config(train_caption.Config, CONFIG, [*quick, "pretrained=''"])
    dataset = train_caption.CaptionTrain(
        config.annotations("train"), config.image_root, TrainTransform(64, 0.5), prompt=config.prompt
    )
    batch = dataset.collate([dataset[0, i] for i in range(0, 40, 5)])
    first, last = overfit(train_caption.build_model(config), batch, train_caption.train_step, steps=150)
    assert last["loss"] < 0.5 * first["loss"]
