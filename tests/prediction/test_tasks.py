"""Every flag reaches its place, and a task can be made and asked without a command line."""

import dataclasses
import json
import re
from pathlib import Path

import pytest
import torch

import predict
from models.blip import blip_decoder
from models.generation import SearchOptions
from prediction.explain import Explain
from prediction.tasks import Answer, Caption, Features, Match
from prediction.writers import feature_writer

CPU = torch.device("cpu")
FLAGS_OF_EVERY_JOB = ["--checkpoint", "model.pth", "--batch_size", "7", "--device", "cpu", "--precision", "bf16"]
FLAGS = {
    "caption": (
        [
            *("--num_beams", "5", "--sample", "--top_p", "0.5", "--top_k", "7", "--seed", "9", "--max_length", "30"),
            *("--min_length", "2", "--repetition_penalty", "1.2", "--n_best", "4", "--out", "captions.jsonl"),
            "--resume",
        ],
        Caption(
            num_beams=5,
            sample=True,
            top_p=0.5,
            top_k=7,
            seed=9,
            max_length=30,
            min_length=2,
            repetition_penalty=1.2,
            n_best=4,
            out=Path("captions.jsonl"),
            resume=True,
        ),
    ),
    "vqa": (
        [
            "--question",
            "a?",
            "--question",
            "b?",
            "--answers",
            "list.json",
            "--k_test",
            "3",
            "--out",
            "answers.jsonl",
            "--resume",
        ],
        Answer(question=["a?", "b?"], answers=Path("list.json"), k_test=3, out=Path("answers.jsonl"), resume=True),
    ),
    "match": (
        ["--text", "a dog", "--text", "a cat", "--out", "scores.jsonl", "--resume"],
        Match(text=["a dog", "a cat"], out=Path("scores.jsonl"), resume=True),
    ),
    "features": (
        ["--text", "a dog", "--tokens", "--out", "vectors.npz"],
        Features(text=["a dog"], tokens=True, out=Path("vectors.npz")),
    ),
    "explain": (
        ["--question", "a?", "--answer", "b", "--layer", "3", "--attention", "--out", "map.png"],
        Explain(question="a?", answer="b", layer=3, attention=True, out=Path("map.png")),
    ),
}
LEAST = {
    "caption": ([], Caption()),
    "vqa": (["--question", "a?"], Answer(question=["a?"])),
    "match": (["--text", "a"], Match(text=["a"])),
    "features": (["--out", "a.npz"], Features(out=Path("a.npz"))),
    "explain": (["--out", "a.png"], Explain(out=Path("a.png"))),
}


@pytest.mark.parametrize("name", predict.TASKS)
def test_every_flag_reaches_its_field(name):
    flags, expected = FLAGS[name]
    job, task = predict.parse([name, "a.jpg", "folder", *FLAGS_OF_EVERY_JOB, *flags])
    assert task == expected
    assert job == predict.SharedFlags(
        images=["a.jpg", "folder"], checkpoint="model.pth", batch_size=7, device="cpu", precision="bf16"
    )


@pytest.mark.parametrize("name", predict.TASKS)
def test_defaults_of_the_command_line_are_those_of_the_dataclasses(name):
    flags, expected = LEAST[name]
    assert predict.parse([name, "a.jpg", *flags]) == (predict.SharedFlags(images=["a.jpg"]), expected)


@pytest.mark.parametrize("name", predict.TASKS)
def test_help_shows_every_flag_and_its_default(name, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    with pytest.raises(SystemExit) as ended:
        predict.main([name, "--help"])
    assert ended.value.code == 0
    _, *entries = capsys.readouterr().out.split("\n  --")
    shown = {re.match(r"\w+", entry)[0]: entry for entry in entries}
    task, _ = predict.TASKS[name]
    fields = [*dataclasses.fields(predict.SharedFlags), *dataclasses.fields(task)]
    assert shown.keys() == {field.name for field in fields} - {"images", "generator", "candidates"}
    for field in fields:
        if type(field.default) in (int, float, str):
            assert f"default: {field.default}" in shown[field.name]


def test_the_search_is_what_the_flags_say():
    caption = Caption(num_beams=2, max_length=30, min_length=2, top_p=0.5, top_k=7, repetition_penalty=1.2, n_best=4)
    search = SearchOptions(
        num_beams=4,  # as many as captions are wanted
        max_length=30,
        min_length=2,
        top_p=0.5,
        top_k=7,
        repetition_penalty=1.2,
        num_return_sequences=4,
    )
    assert caption.search == search
    sampled = dataclasses.replace(caption, sample=True)
    assert sampled.search == dataclasses.replace(search, sample=True, num_beams=2)


def test_a_seed_makes_a_source_of_samples_for_all_batches():
    first = Caption(sample=True, seed=3).prepare([], CPU)
    assert first.search.generator is first.generator
    assert first.generator.initial_seed() == 3
    assert Caption(sample=False, seed=3).prepare([], CPU).generator is None


def test_answers_are_read_before_there_is_a_model(tmp_path):
    file = tmp_path / "answers.json"
    file.write_text(json.dumps(["yes", "no"]))
    assert Answer(question=["a?"], answers=file).prepare([], CPU).candidates == ["yes", "no"]
    assert Answer(question=["a?"]).prepare([], CPU).candidates is None


def test_a_task_is_asked_without_a_command_line(tiny):
    model = blip_decoder(**tiny).eval()
    image = torch.randn(2, 3, tiny["image_size"], tiny["image_size"])
    records = Caption(n_best=2).prepare([], CPU).predict(model, image)
    captions, generated = model.generate_n_best(
        image, SearchOptions(max_length=20, min_length=5, num_return_sequences=2)
    )
    assert [[row["caption"] for row in record["captions"]] for record in records] == captions
    assert [[row["log_prob"] for row in record["captions"]] for record in records] == generated.log_probs.tolist()
    assert [record["caption"] for record in records] == [texts[0] for texts in captions]


def test_nothing_is_written_where_no_picture_can_be_read(tmp_path):
    with feature_writer(tmp_path / "a.npz", [], None):
        pass
    assert not (tmp_path / "a.npz").exists()


@pytest.mark.parametrize("out", ["vectors.txt", "vectors"])
def test_a_file_of_features_has_a_known_suffix(out, capsys):
    with pytest.raises(SystemExit):
        predict.main(["features", "a.jpg", "--out", out])
    assert f"--out {out} must end in .safetensors or .npz" in capsys.readouterr().err


def test_a_file_and_sidecars_exclude_each_other(capsys):
    with pytest.raises(SystemExit):
        predict.main(["caption", "a.jpg", "--out", "a.jsonl", "--sidecar", ".txt"])
    assert "--out and --sidecar exclude each other" in capsys.readouterr().err


@pytest.mark.parametrize("flag", ["--out=~/a.jsonl", "--answers=~/a.jsonl"])
def test_a_tilde_in_the_path_of_a_flag_is_the_home(flag, monkeypatch, tmp_path, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    command = ["vqa", "a.jpg", "--question", "q?"]
    _, task = predict.parse([*command, flag])
    assert tmp_path / "a.jsonl" in (task.out, task.answers)
    with pytest.raises(SystemExit) as stopped:
        predict.parse([*command, flag.replace("~", "~nosuchuser")])
    assert stopped.value.code == 2
    assert (
        "'~nosuchuser/a.jsonl': there is no such user; a folder of this name is ./~nosuchuser"
        in capsys.readouterr().err
    )
