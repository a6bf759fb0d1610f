"""The table against published figures, `evaluate.txt`, samples by error, and the gallery."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluation.findings import Case, Findings
from evaluation.gallery import write_gallery
from evaluation.provenance import TrainedCheckpoint, provenance
from evaluation.report import EvaluatedSplit, checkpoint_warnings, compare, format_table, report, write_samples
from models.weights.released import find_released

GOT = {"COCO BLEU-4": 39.5, "COCO CIDEr": 133.61}
PUBLISHED = {"COCO BLEU-4": 39.7, "COCO CIDEr": 133.3, "NoCaps CIDEr": 109.6}


def test_the_table_shows_got_published_and_difference() -> None:
    assert format_table(compare(GOT, PUBLISHED, {"COCO SPICE": "needs Java"})) == "\n".join(
        [
            "metric          got  published  difference",
            "COCO BLEU-4   39.50      39.70       -0.20",
            "COCO CIDEr   133.61     133.30       +0.31",
            "COCO SPICE   not computed: needs Java",
        ]
    )


def test_without_a_released_checkpoint_the_table_has_two_columns() -> None:
    assert format_table(compare({"accuracy": 82.0})) == "metric      got\naccuracy  82.00"


def test_a_released_checkpoint_on_the_published_split_is_compared_and_its_samples_are_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    files, released = [Path("annotation/nlvr_dev.json")], find_released("weights/model_base_nlvr.pth")
    cases = [Case([], {"sentence": "a", "probability": 0.25}, 0.75, "25%"), Case([], {"sentence": "b"}, 0.9)]
    evaluated = EvaluatedSplit("val", files, "nlvr", "weights/model_base_nlvr.pth", released)
    with caplog.at_level("INFO", "blip"):
        compared = report(tmp_path, evaluated, Findings({}, {"accuracy": 82.0, "consistency": 40.0}, cases))
    assert compared == {"NLVR2 dev accuracy": {"got": 82.0, "published": 82.48, "difference": -0.48}}
    assert "NLVR2 dev accuracy     82.00      82.48       -0.48" in caplog.text
    assert not [one for one in caplog.records if one.levelname == "WARNING"]
    assert json.loads((tmp_path / "result" / "val_samples.json").read_text()) == [
        {"sentence": "b", "images": [], "error": 0.9},
        {"sentence": "a", "probability": 0.25, "images": [], "error": 0.75},
    ]
    assert "-0.48" in (tmp_path / "result" / "val.html").read_text()


@pytest.mark.parametrize(
    ("file", "task", "source", "warning"),
    [
        ("vqa_val.json", "vqa", "model_vqa", "trained on VQA v2 val"),
        ("coco_karpathy_test.json", "retrieval", "model_base", "pre-trained only, not fine-tuned for retrieval"),
        ("coco_karpathy_test.json", "caption", "model_vqa", "fine-tuned for vqa, not for caption"),
        ("own.json", "caption", "", "the weights are random"),
    ],
)
def test_what_makes_figures_mean_less_is_said(file: str, task: str, source: str, warning: str) -> None:
    (said,) = EvaluatedSplit("test", [Path(file)], task, source, provenance(source)).warnings()
    assert warning in said


def test_a_file_that_ones_own_checkpoint_was_trained_on_is_warned_of(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    train = str(tmp_path / "own" / "train.json")
    own = TrainedCheckpoint("vqa", (train, "vqa_val", "vqa_train"))
    for file, seen in (
        ("own/train.json", f"trained on {train}:"),
        ("annotation/vqa_val.json", "trained on VQA v2 val:"),
        ("vqa_train.json", "trained on VQA v2 train:"),
    ):
        (said,) = EvaluatedSplit("test", [Path(file)], "vqa", "own.pth", own).warnings()
        assert seen in said
    assert EvaluatedSplit("test", [Path("other/train.json")], "vqa", "own.pth", own).warnings() == []


def test_what_could_not_be_computed_stands_beside_what_was_published(tmp_path: Path) -> None:
    evaluated = EvaluatedSplit("test", [Path("vqa_test.json")], "vqa", "model_vqa", find_released("model_vqa"))
    compared = report(tmp_path, evaluated, Findings({}, {}, [], {"test-dev": "the server scores it", "x": "unknown"}))
    assert compared == {"VQA test-dev": {"published": 78.24, "not computed": "the server scores it"}}


def test_remarks_are_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    report(
        tmp_path, EvaluatedSplit("val", [], "vqa"), Findings({}, {"accuracy": 1.0}, [], remarks=["three are missing"])
    )
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == ["three are missing"]


@pytest.mark.parametrize(
    ("checkpoint", "file", "metric", "published"),
    [
        ("model_base_retrieval_coco", "msrvtt_test.jsonl", "text-to-video R@1", 43.3),
        ("model_base_retrieval_coco", "msrvtt_test.jsonl", "text-to-video R@10", 74.7),
        ("model_large_retrieval_coco", "coco_karpathy_test.json", "IR R@1", 65.1),
        ("Salesforce/blip-itm-base-coco", "coco_karpathy_test.json", "IR R@1", 64.3),
        ("blip_coco_retrieval", "coco_karpathy_test.json", "IR R@1", 64.5),
        ("blip_flickr_retrieval", "flickr30k_test.json", "TR R@1", 96.9),
        ("blip_coco_caption_base", "coco_karpathy_test.json", "CIDEr", 133.5),
        ("model_base_retrieval_flickr", "flickr30k_test.json", "TR R@1", 97.3),
        ("model_base_caption_capfilt_large", "coco_karpathy_test.json", "BLEU-4", 39.7),
        ("model_base_caption_capfilt_large", "nocaps_val.json", "out-domain CIDEr", 111.5),
        ("model_large_caption", "nocaps_val.json", "SPICE", 14.8),
        ("model_base_vqa_capfilt_large", "vqa_test.json", "test-std", 78.32),
        ("model_base_nlvr", "nlvr_test.json", "accuracy", 83.08),
    ],
)
def test_published_figures_are_found_for_the_scripts_own_metrics(checkpoint, file, metric, published) -> None:
    released = find_released(checkpoint)
    named = EvaluatedSplit("test", [Path(file)], released.task, checkpoint, released).named({metric: published + 1})
    (line,) = compare(named, released.scores)
    assert (line.published, line.difference) == (published, pytest.approx(1))


def test_training_is_not_warned_of() -> None:
    assert EvaluatedSplit("val", [Path("vqa_val.json")], "vqa").warnings() == []


def test_published_figures_are_those_of_one_split_only() -> None:
    released = find_released("model_base_retrieval_coco")
    for file, published in (("coco_karpathy_test", 81.9), ("coco_karpathy_val", None), ("my_test", None)):
        named = EvaluatedSplit("test", [Path(f"{file}.json")], "retrieval", "", released).named({"TR R@1": 80.0})
        assert [line.published for line in compare(named, released.scores)] == [published]


def test_warnings_for_a_seen_split_and_a_checkpoint_of_another_task() -> None:
    seen = checkpoint_warnings(["vqa_train", "vqa_val", "vqa_test"], "vqa", "vqa", ("vqa_train", "vqa_val"))
    assert len(seen) == 2
    assert "trained on VQA v2 val" in seen[1]
    assert "not fine-tuned" in checkpoint_warnings(["coco_karpathy_test"], "caption", "pretrain", ())[0]
    assert "fine-tuned for vqa, not for caption" in checkpoint_warnings(["coco_karpathy_test"], "caption", "vqa", ())[0]
    assert checkpoint_warnings(["coco_karpathy_test"], "caption", "caption", ("coco_karpathy_train",)) == []


def test_samples_stand_worst_first(tmp_path: Path) -> None:
    path = tmp_path / "samples.json"
    write_samples(path, [{"image_id": 1, "error": 0.1}, {"image_id": 2, "error": 0.9}, {"image_id": 3, "error": 0.9}])
    assert [sample["image_id"] for sample in json.loads(path.read_text())] == [2, 3, 1]


def test_a_sample_whose_error_is_no_number_is_the_worst(tmp_path: Path) -> None:
    nan = float("nan")
    samples = [{"id": 1, "error": 0.5}, {"id": 2, "error": nan, "probability": nan}, {"id": 3, "error": 0.9}]
    write_samples(tmp_path / "samples.json", samples)
    written = json.loads((tmp_path / "samples.json").read_text(), parse_constant=pytest.fail)
    assert [sample["id"] for sample in written] == [2, 3, 1]
    assert written[0] == {"id": 2, "error": None, "probability": None}


def test_the_gallery_is_one_file_with_the_worst_and_the_best(tmp_path: Path) -> None:
    photo = tmp_path / "photo.png"
    Image.fromarray(np.full((600, 300, 4), 128, np.uint8)).save(photo)
    (tmp_path / "broken.jpg").write_bytes(b"no image")
    cases = [
        Case([photo], {"prediction": f"caption {i}", "references": ["<b>", "two & three"]}, error=i, score=f"CIDEr {i}")
        for i in range(5)
    ]
    cases.append(Case([tmp_path / "broken.jpg", Image.new("L", (4, 4))], {"prediction": "broken"}, error=9))
    page = tmp_path / "gallery.html"
    write_gallery(page, "Captions <test>", cases, number=2)
    text = page.read_text(encoding="utf-8")
    assert text.index("broken") < text.index("caption 4") < text.index("<h2>Best") < text.index("caption 0")
    assert "caption 2" not in text
    assert text.count("data:image/jpeg;base64,") == 4  # photos of 4, 0, 1 and the gray picture beside the broken file
    assert "&lt;b&gt;" in text
    assert "cannot identify image file" in text
    assert "src='http" not in text
    assert len(text) < 30_000


def test_a_small_gallery_shows_each_case_once(tmp_path: Path) -> None:
    cases = [Case([], {"prediction": f"caption {i}"}, error=i) for i in range(3)]
    write_gallery(tmp_path / "g.html", "t", cases)
    text = (tmp_path / "g.html").read_text()
    assert [text.count(f"caption {i}") for i in range(3)] == [1, 1, 1]


def test_figures_of_a_case_stand_in_a_row_and_texts_stay_texts(tmp_path: Path) -> None:
    hostile = "<script>alert(1)</script>"
    lines = {"image_id": 7, "prediction": hostile, "references": ["a", hostile], "CIDEr": 1.25, "BLEU-4": 0.1234567}
    case = Case([tmp_path / "gone.jpg"], lines | {"label": True}, error=0.5, score="CIDEr 1.2")
    write_gallery(tmp_path / "g.html", hostile, [case], about=hostile)
    text = (tmp_path / "g.html").read_text(encoding="utf-8")
    assert "<script" not in text
    assert text.count("&lt;script&gt;alert(1)&lt;/script&gt;") == 5  # twice as the title
    row = text.partition('<div class="figures">')[2].partition("</div>")[0]
    said = re.sub(r"\s+", " ", re.sub("<[^>]*>", "", row)).strip()
    assert said == "CIDEr 1.2 image_id 7 BLEU-4 0.1235 label True"
    assert re.search(r"gone.jpg: .*No such file", text)
    assert not re.search(r"https?://|url\(", text)
