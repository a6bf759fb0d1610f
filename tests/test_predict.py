"""predict.py does what the models do, on files as people have them, and says what it could not read."""

import contextlib
import copy
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import predict
from data.media.image_file import open_image
from files import REPOSITORY
from models.blip import blip_decoder
from models.blip_itm import blip_itm
from models.blip_vqa import blip_vqa
from models.generation import SearchOptions
from tests.small_model import TEXT, VIT
from transform.image import EvalTransform, normalize

SIZES = {"image_size": 32, "vit": VIT, "med_config": TEXT}
TEXTS = ["a red square", "something else entirely"]


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """For each task a random model and the checkpoint that holds it."""
    folder = tmp_path_factory.mktemp("checkpoints")
    built = {}
    for name, build in (("caption", blip_decoder), ("match", blip_itm), ("vqa", blip_vqa)):
        torch.manual_seed(0)
        model = build(**SIZES).eval()
        for parameter in model.parameters():
            torch.nn.init.normal_(parameter, std=0.2)
        torch.save({"model": model.state_dict(), "config": SIZES}, folder / f"{name}.pth")
        built[name] = (model, str(folder / f"{name}.pth"))
    return built


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "deeper").mkdir(parents=True)
    rng = np.random.default_rng(0)
    for name in ("a.png", "b.jpg", "deeper/c.png"):
        Image.fromarray(rng.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(folder / name)
    (folder / "notes.txt").write_text("no picture")
    return folder


def pixels_of(*paths):
    return normalize(torch.stack([EvalTransform(32)(open_image(path)) for path in paths]))


def in_order(folder):
    return [folder / "a.png", folder / "b.jpg", folder / "deeper" / "c.png"]


def test_captions_of_a_folder_as_json_lines(models, pictures, tmp_path, capsys):
    model, checkpoint = models["caption"]
    out = tmp_path / "captions.jsonl"
    status = predict.main(
        ["caption", str(pictures), "--checkpoint", checkpoint, "--batch_size", "2", "--out", str(out)]
    )
    assert status == 0
    records = [json.loads(line) for line in out.read_text().splitlines()]
    assert [record["image"] for record in records] == [str(path) for path in in_order(pictures)]
    expected = model.generate(pixels_of(*in_order(pictures)), num_beams=3, max_length=20, min_length=5)
    assert [record["caption"] for record in records] == expected
    assert all(record["log_prob"] < 0 for record in records)
    assert capsys.readouterr().out == ""


def test_several_captions_and_their_probabilities(models, pictures, capsys):
    model, checkpoint = models["caption"]
    assert predict.main(["caption", str(pictures / "a.png"), "--checkpoint", checkpoint, "--n_best", "4"]) == 0
    options = SearchOptions(num_return_sequences=4, num_beams=4, max_length=20, min_length=5)
    captions, generated = model.generate_n_best(pixels_of(pictures / "a.png"), options)
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [line[2] for line in lines] == [text.strip("\n") for text in captions[0]]
    assert [line[1] for line in lines] == [f"{value:.2f}" for value in generated.log_probs[0].tolist()]


def test_a_prompt_of_ones_own(models, pictures, capsys):
    model, checkpoint = models["caption"]
    arguments = ["caption", str(pictures / "a.png"), "--checkpoint", checkpoint]
    assert predict.main([*arguments, "--prompt", "a red"]) == 0
    prompted = copy.deepcopy(model)
    prompted.prompt = "a red"
    (expected,) = prompted.generate(pixels_of(pictures / "a.png"), max_length=20, min_length=5)
    assert capsys.readouterr().out == f"{pictures / 'a.png'}\t{expected}\n"
    assert predict.main([*arguments, "--prompt", "a " * 30]) == 2
    assert "max_length=20 leaves no room after a prompt of 31 tokens" in capsys.readouterr().err


def test_a_seed_decides_sampled_captions(models, pictures, capsys):
    _, checkpoint = models["caption"]
    outputs = []
    for seed in ("1", "1", "2"):
        arguments = ["caption", str(pictures), "--checkpoint", checkpoint, "--sample", "--seed", seed, "--top_p", "1.0"]
        assert predict.main(arguments) == 0
        outputs.append(capsys.readouterr().out)
    assert outputs[0] == outputs[1] != outputs[2]


def test_captions_beside_their_pictures(models, pictures):
    model, checkpoint = models["caption"]
    assert predict.main(["caption", str(pictures / "*.png"), "--checkpoint", checkpoint, "--sidecar", ".txt"]) == 0
    expected = model.generate(pixels_of(pictures / "a.png"), max_length=20, min_length=5)[0]
    assert (pictures / "a.txt").read_text() == expected + "\n"
    assert not (pictures / "b.txt").exists(), "the glob named .png files only"


def test_an_answer_that_is_too_long_to_be_read_is_named_with_its_file(models, pictures, capsys, tmp_path):
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(["a cat", "x " * 100]))
    flags = ["--question", "what is it?", "--answers", str(answers), "--checkpoint", models["vqa"][1]]
    assert predict.main(["vqa", str(pictures / "a.png"), *flags]) == 2
    assert f"{answers}, answer 2: has 102 tokens, and the text model reads 64 at most" in capsys.readouterr().err


def test_questions(models, pictures, capsys, tmp_path):
    model, checkpoint = models["vqa"]
    answers = tmp_path / "answers.json"
    answers.write_text(json.dumps(["yes", "no", "a dog"]))
    image = pixels_of(pictures / "a.png")
    arguments = ["vqa", str(pictures / "a.png"), "--checkpoint", checkpoint, "--question", "is it red?"]
    assert predict.main(arguments) == 0
    written = model.generate_answers(image, ["is it red?"])[0]
    assert capsys.readouterr().out.rstrip("\n").split("\t")[1:] == ["is it red?", written]
    assert predict.main([*arguments, "--answers", str(answers)]) == 0
    best, scores = model.rank_answers(image, ["is it red?"], ["yes", "no", "a dog"])
    chosen = ["yes", "no", "a dog"][best[0, 0]]
    certainty = f"{scores.softmax(dim=1)[0, 0].item():.1%}"
    assert capsys.readouterr().out.rstrip("\n").split("\t")[1:] == ["is it red?", chosen, certainty]


def test_matching(models, pictures, tmp_path):
    model, checkpoint = models["match"]
    out = tmp_path / "scores.jsonl"
    texts = [flag for text in TEXTS for flag in ("--text", text)]
    assert predict.main(["match", str(pictures), "--checkpoint", checkpoint, *texts, "--out", str(out)]) == 0
    scores = model.score(pixels_of(*in_order(pictures)), TEXTS)
    for i, line in enumerate(out.read_text().splitlines()):
        rows = json.loads(line)["texts"]
        assert [row["text"] for row in rows] == TEXTS
        assert [row["match"] for row in rows] == pytest.approx(scores.match[i].tolist(), abs=1e-5)
        assert [row["cosine"] for row in rows] == pytest.approx(scores.cosine[i].tolist(), abs=1e-5)


@pytest.mark.parametrize("suffix", [".npz", ".safetensors"])
def test_features(models, pictures, tmp_path, close, suffix):
    model, checkpoint = models["match"]
    out = tmp_path / f"features{suffix}"
    arguments = ["features", str(pictures), "--checkpoint", checkpoint, "--text", TEXTS[0], "--tokens"]
    assert predict.main([*arguments, "--out", str(out)]) == 0
    if suffix == ".npz":
        file = np.load(out, allow_pickle=False)
        arrays = {name: torch.from_numpy(file[name]) for name in ("image", "image_tokens", "text")}
        names = file["images"].tolist()
    else:
        with safe_open(out, "pt") as file:
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            names = json.loads(file.metadata()["images"])
    image = pixels_of(*in_order(pictures))
    assert names == [str(path) for path in in_order(pictures)]
    with torch.no_grad():
        close(arrays["image"], model.encode_image(image))
        close(arrays["image_tokens"], model.visual_encoder(image))
        close(arrays["text"], model.encode_text(TEXTS[:1]))


def test_an_unreadable_picture_is_named_and_the_others_go_on(models, pictures, tmp_path, capsys):
    _, checkpoint = models["caption"]
    (pictures / "b.jpg").write_bytes((pictures / "b.jpg").read_bytes()[:100])
    (pictures / "empty.png").write_bytes(b"")
    out = tmp_path / "captions.jsonl"
    assert predict.main(["caption", str(pictures), "--checkpoint", checkpoint, "--out", str(out)]) == 1
    images = [json.loads(line)["image"] for line in out.read_text().splitlines()]
    assert images == [str(pictures / "a.png"), str(pictures / "deeper" / "c.png")]
    errors = capsys.readouterr().err
    assert "b.jpg" in errors
    assert "empty.png" in errors
    assert "2 of 4 pictures could not be read" in errors


def test_a_file_that_only_can_be_written_is_no_picture(models, pictures):
    Image.new("RGB", (8, 8)).save(pictures / "scan.pdf")
    out = pictures.parent / "captions.jsonl"
    assert predict.main(["caption", str(pictures), "--checkpoint", models["caption"][1], "--out", str(out)]) == 0
    assert len(out.read_text().splitlines()) == 3


@pytest.mark.parametrize(
    ("task", "flags", "message"),
    [
        ("caption", ["--min_length", "25"], "--min_length 25 must not be above --max_length 20"),
        ("caption", ["--num_beams", "0"], "argument --num_beams: 0 must be at least 1"),
        ("caption", ["--n_best", "0"], "argument --n_best: 0 must be at least 1"),
        ("caption", ["--sample", "--top_p", "1.5"], "--top_p 1.5 must be above 0, at most 1"),
        ("caption", ["--sample", "--top_k", "-1"], "argument --top_k: -1 must be at least 0"),
        ("caption", ["--repetition_penalty", "0"], "--repetition_penalty 0.0 must be from 0.001 to 1000"),
        ("vqa", ["--question", "what?", "--k_test", "0"], "argument --k_test: 0 must be at least 1"),
        ("match", ["--text", "a", "--batch_size", "0"], "argument --batch_size: 0 must be at least 1"),
    ],
)
def test_impossible_values_are_refused_before_a_model_is_fetched(pictures, capsys, task, flags, message):
    with pytest.raises(SystemExit):
        predict.main([task, str(pictures), *flags])
    assert message in capsys.readouterr().err


def test_two_pictures_with_one_sidecar_are_refused_before_a_model_is_fetched(pictures, capsys):
    shutil.copy(pictures / "a.png", pictures / "a.jpeg")
    assert predict.main(["caption", str(pictures), "--sidecar", ".txt"]) == 2
    assert f"{pictures / 'a.jpeg'} and {pictures / 'a.png'} would both write" in capsys.readouterr().err


@pytest.mark.parametrize("suffix", ["txt", "", ".", ".a/b", ".JPG"])
def test_a_sidecar_that_is_no_suffix_or_a_pictures_is_refused(pictures, suffix, capsys):
    with pytest.raises(SystemExit):
        predict.main(["caption", str(pictures), "--sidecar", suffix])
    assert f"--sidecar {suffix} " in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("yes\nno\n", ", record 1: not valid JSON"),
        ('{"a": 1}', """, answer 1: is an object ({"a": 1}), expected a JSON list of answers, each a string"""),
        ("[]", ": expected a JSON list of answers, found none"),
    ],
)
def test_answers_that_are_no_list_of_texts_are_named(pictures, tmp_path, capsys, content, message):
    answers = tmp_path / "answers.txt"
    answers.write_text(content)
    assert predict.main(["vqa", str(pictures), "--question", "what?", "--answers", str(answers)]) == 2
    assert f"{answers}{message}" in capsys.readouterr().err


def test_matching_in_half_precision_stays_near_full_precision(models, pictures, tmp_path):
    model, checkpoint = models["match"]
    out = tmp_path / "scores.jsonl"
    arguments = ["match", str(pictures / "a.png"), "--text", TEXTS[0], "--checkpoint", checkpoint, "--out", str(out)]
    assert predict.main([*arguments, "--precision", "bf16"]) == 0
    row = json.loads(out.read_text())["texts"][0]
    scores = model.score(pixels_of(pictures / "a.png"), TEXTS[0])
    assert row["match"] == pytest.approx(scores.match.item(), abs=0.05)
    assert row["cosine"] == pytest.approx(scores.cosine.item(), abs=0.02)


def test_half_precision_stays_near_full_precision(models, pictures, tmp_path):
    model, checkpoint = models["match"]
    out = tmp_path / "features.npz"
    arguments = ["features", str(pictures), "--checkpoint", checkpoint, "--precision", "bf16", "--out", str(out)]
    assert predict.main(arguments) == 0
    with torch.no_grad():
        full = model.encode_image(pixels_of(*in_order(pictures)))
    cosine = (torch.from_numpy(np.load(out)["image"]) * full).sum(dim=1)
    assert cosine.min() > 0.99


def test_without_checkpoint_and_network_the_error_tells_what_to_do(pictures, capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("BLIP_OFFLINE", "1")
    monkeypatch.setenv("BLIP_CACHE", str(tmp_path))
    assert predict.main(["caption", str(pictures)]) == 2
    errors = capsys.readouterr().err
    assert "model_base_caption_capfilt_large.pth" in errors
    assert str(tmp_path) in errors
    assert "--checkpoint demo_caption" in errors


def test_a_checkpoint_of_another_task_is_an_error_that_names_what_it_lacks(models, pictures, capsys):
    assert predict.main(["caption", str(pictures), "--checkpoint", models["match"][1]]) == 2
    assert "text_decoder" in capsys.readouterr().err


def test_heads_that_nothing_tells_are_an_error(pictures, golden, capsys):
    assert predict.main(["caption", str(pictures), "--checkpoint", str(golden("caption/checkpoint.pth"))]) == 2
    assert "does not hold its number of attention heads" in capsys.readouterr().err


def test_the_vocabulary_of_an_older_checkpoint_is_named_where_its_file_is_gone(pictures, tmp_path, capsys):
    words = tmp_path / "words.txt"
    words.write_text("[PAD]\n[UNK]\n[CLS]\n[SEP]\n[MASK]\nhund\nein\n")
    torch.manual_seed(0)
    model = blip_decoder(**SIZES, vocab_file=words)
    config, older, newer = {**SIZES, "vocab_file": str(words)}, tmp_path / "older.pth", tmp_path / "newer.pth"
    torch.save({"model": model.state_dict(), "config": config}, older)
    torch.save({"model": model.state_dict(), "config": config, "architecture": model.describe()}, newer)
    arguments = ["caption", str(pictures / "a.png"), "--checkpoint"]
    assert predict.main([*arguments, str(older)]) == 0
    expected = capsys.readouterr().out
    words.rename(tmp_path / "moved.txt")
    assert predict.main([*arguments, str(older)]) == 2
    assert "words.txt, which is not here: name the file where it is now, to predict.py by --vocab_file" in (
        capsys.readouterr().err
    )
    for named in ("moved.txt", "newer.pth"):
        assert predict.main([*arguments, str(older), "--vocab_file", str(tmp_path / named)]) == 0
        assert capsys.readouterr().out == expected
    assert predict.main([*arguments, str(newer)]) == 0
    assert capsys.readouterr().out == expected
    assert predict.main([*arguments, str(newer), "--vocab_file", "models/vocab.txt"]) == 2
    assert "was trained with another vocabulary than vocabulary file" in capsys.readouterr().err
    before = (tmp_path / "moved.txt").read_text()
    arguments += [str(older), "--vocab_file", str(tmp_path / "moved.txt"), "--out", str(tmp_path / "moved.txt")]
    assert predict.main(arguments) == 2
    assert (tmp_path / "moved.txt").read_text() == before


@pytest.mark.parametrize("device", ["meta", "cuda:9999999999999999999999", "cuda:-1", "xpu", "cpu:x", "", "vulkan"])
def test_a_device_that_is_none_is_named(models, pictures, device, capsys):
    arguments = ["caption", str(pictures), "--checkpoint", models["caption"][1], f"--device={device}"]
    assert predict.main(arguments) == 2
    errors = capsys.readouterr().err
    assert errors.startswith(f"predict.py: --device {device}: ")
    assert errors.count("\n") == 1


def test_a_name_that_means_nothing_is_an_error(models, capsys, tmp_path):
    assert predict.main(["caption", str(tmp_path / "absent*.jpg"), "--checkpoint", models["caption"][1]]) == 2
    assert "absent*.jpg: there is no such file" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [["--out", "a.jpg"], ["--out", "link.jsonl"], ["--sidecar", ".cap"]])
def test_no_output_is_written_over_a_picture(pictures, flags, capsys, monkeypatch):
    monkeypatch.chdir(pictures)
    os.replace("a.png", "a.jpg")
    os.link("b.jpg", "link.jsonl")
    os.link("b.jpg", "a.cap")
    before = {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}
    assert predict.main(["caption", ".", *flags]) == 2
    assert "would be written over" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in pictures.rglob("*") if path.is_file()}


def test_no_output_is_written_over_the_checkpoint_or_the_answers(models, pictures, tmp_path, capsys):
    answers = tmp_path / "answers.json"
    answers.write_text('["yes"]')
    arguments = ["vqa", str(pictures), "--question", "what?", "--checkpoint", models["vqa"][1]]
    for out in (answers, models["vqa"][1]):
        assert predict.main([*arguments, "--answers", str(answers), "--out", str(out)]) == 2
        assert f"{out} would be written over" in capsys.readouterr().err
    assert answers.read_text() == '["yes"]'


def test_a_run_that_an_error_ends_leaves_its_lines_and_resume_adds_the_others(models, pictures, tmp_path, monkeypatch):
    _, checkpoint = models["caption"]
    out = tmp_path / "captions.jsonl"
    arguments = ["caption", str(pictures), "--checkpoint", checkpoint, "--batch_size", "1", "--out", str(out)]
    assert predict.main(arguments) == 0
    whole = out.read_text()
    calls, predict_one = [], predict.Caption.predict

    def fails_at_the_third(self, model, image):
        calls.append(image)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return predict_one(self, model, image)

    monkeypatch.setattr(predict.Caption, "predict", fails_at_the_third)
    assert predict.main(arguments) == 130
    assert out.read_text() == "".join(whole.splitlines(keepends=True)[:2])
    with out.open("a") as file:
        file.write('{"image": "half a li')
    assert predict.main([*arguments, "--resume"]) == 0
    assert out.read_text() == whole
    assert len(calls) == 4
    assert predict.main([*arguments, "--resume", "--n_best", "2"]) == 2
    assert predict.main([*arguments, "--resume"]) == 0
    assert len(calls) == 4
    assert out.read_text() == whole


def test_sidecars_that_are_there_are_not_written_over(pictures, capsys):
    picture = next(path for path in sorted(pictures.iterdir()) if path.suffix == ".png")
    own = picture.with_suffix(".txt")
    own.write_text("my own words")
    assert predict.main(["caption", str(picture), "--checkpoint", "none", "--sidecar", ".txt"]) == 2
    assert f"{own} is there already" in capsys.readouterr().err
    assert own.read_text() == "my own words"


def test_resume_leaves_the_sidecars_that_are_there(models, pictures):
    arguments = ["caption", str(pictures / "*.*"), "--checkpoint", models["caption"][1], "--sidecar", ".cap"]
    (pictures / "notes.txt").unlink()
    (pictures / "a.cap").write_text("by hand")
    assert predict.main([*arguments[:1], str(pictures / "*.[pj]*"), *arguments[2:], "--resume"]) == 0
    assert (pictures / "a.cap").read_text() == "by hand"
    assert (pictures / "b.cap").exists()


def test_resume_without_a_file_is_refused(pictures, capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main(["caption", str(pictures), "--resume"])
    assert ended.value.code == 2
    assert "--resume needs the --out FILE" in capsys.readouterr().err


def test_where_no_picture_can_be_read_nothing_was_done(models, pictures, tmp_path, capsys):
    arguments = ["caption", "--checkpoint", models["caption"][1], "--out", str(tmp_path / "out.jsonl")]
    (tmp_path / "bad.png").write_bytes(b"nonsense")
    os.mkfifo(tmp_path / "pipe.png")
    assert predict.main([*arguments, str(tmp_path / "bad.png"), str(tmp_path / "pipe.png")]) == 2
    errors = capsys.readouterr().err
    assert "pipe.png: a named pipe, not a file" in errors
    assert "2 of 2 pictures could not be read" in errors
    assert predict.main([*arguments, str(tmp_path / "bad.png"), str(pictures)]) == 1


def test_names_of_any_kind_reach_a_file_and_an_ascii_terminal(models, tmp_path):
    folder, out = tmp_path / "odd", tmp_path / "out.jsonl"
    folder.mkdir()
    names = sorted(["new\nline.jpg", "日本 😀.jpg", os.fsdecode(b"latin1_\xe9.jpg"), "\x1b[31m.jpg"])
    for name in names:
        Image.new("RGB", (8, 8)).save(folder / name)
    (folder / "bad\x1b\n.jpg").write_bytes(b"")
    command = [sys.executable, "predict.py", "caption", str(folder), "--checkpoint", models["caption"][1]]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    shown = subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True)
    assert shown.returncode == 1, shown.stderr
    assert [line.split("\t")[0].rsplit("/", 1)[1] for line in shown.stdout.splitlines()] == [
        "\\x1b[31m.jpg",
        "latin1_\\udce9.jpg",
        "new\\nline.jpg",
        "\\u65e5\\u672c \\U0001f600.jpg",
    ]
    assert "skipped" in shown.stderr
    assert "bad\\x1b\\n.jpg: an empty file" in shown.stderr
    assert predict.main([*command[2:], "--out", str(out)]) == 1
    assert [os.path.basename(json.loads(line)["image"]) for line in out.read_text("utf-8").splitlines()] == names


def _heed_interrupts():
    """Of a process started in the background SIGINT is ignored, and its children inherit that."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def test_an_interrupt_while_torch_is_imported_ends_with_one_line():
    command = [sys.executable, "-X", "importtime", "predict.py", "caption", "absent.jpg"]  # shows each import
    process = subprocess.Popen(command, cwd=REPOSITORY, stderr=subprocess.PIPE, text=True, preexec_fn=_heed_interrupts)
    while "torch." not in process.stderr.readline():
        assert process.poll() is None
    process.send_signal(signal.SIGINT)
    lines = process.communicate(timeout=60)[1].splitlines()
    assert [line for line in lines if not line.startswith("import time:")] == ["predict.py: interrupted"]
    assert process.returncode == 130


def test_an_interrupt_ends_with_one_line_and_its_status(models, pictures, tmp_path):
    for i in range(500):
        shutil.copy(pictures / "a.png", pictures / f"{i}.png")
    out = tmp_path / "out.jsonl"
    command = [sys.executable, "predict.py", "caption", str(pictures), "--checkpoint", models["caption"][1]]
    process = subprocess.Popen(
        [*command, "--batch_size", "1", "--out", str(out)],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=_heed_interrupts,
    )
    started = False
    while not started:
        assert process.poll() is None
        time.sleep(0.01)
        with contextlib.suppress(FileNotFoundError):
            started = out.stat().st_size > 0
    process.send_signal(signal.SIGINT)
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130
    assert errors.splitlines() == ["predict.py: interrupted; go on with --resume"]
    lines = out.read_text().splitlines()
    assert 0 < len(lines) < 503
    assert all("caption" in json.loads(line) for line in lines)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["caption", "--num_beams", "100000"], "--num_beams 100000 must be at most 1000"),
        (["caption", "--n_best", "1001"], "--n_best 1001 must be at most 1000"),
        (["caption", "--seed", str(2**70)], "must be a whole number, 0 or more, and less than 2**63"),
        (["caption", "--repetition_penalty", "nan"], "--repetition_penalty nan must be from 0.001 to 1000"),
        (["caption", "--repetition_penalty", "inf"], "--repetition_penalty inf must be from 0.001 to 1000"),
        (["match", "--text", "caf\udce9"], "--text 'caf\\udce9': not valid text"),
        (["vqa", "--question", "caf\udce9?"], "--question 'caf\\udce9?': not valid text"),
    ],
)
def test_flags_that_cannot_work_are_refused_with_status_2(arguments, message, capsys):
    with pytest.raises(SystemExit) as ended:
        predict.main([arguments[0], "a.jpg", *arguments[1:]])
    assert ended.value.code == 2
    assert message in capsys.readouterr().err
