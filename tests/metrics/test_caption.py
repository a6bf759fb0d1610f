"""Caption scores: textbook values, pycocoevalcap's own numbers, and what is said where Java is missing."""

import json
import shutil

import pytest

from metrics import java
from metrics.caption import score_captions
from metrics.nocaps import score_nocaps

REFERENCES = {
    1: ["a brown dog runs across the wet grass", "A dog is running on grass."],
    2: ["two women hold red umbrellas (in the rain)"],
    3: ["an old steam train waits at the station", "a train covered in snow"],
}


def coco(references: dict[int, list[str]], **images: object) -> dict:
    annotations = [{"image_id": i, "id": n, "caption": c} for i, cs in references.items() for n, c in enumerate(cs)]
    return {"annotations": annotations, **images}


def predicted(captions: dict[int, str]) -> list[dict]:
    return [{"image_id": image, "caption": caption} for image, caption in captions.items()]


@pytest.fixture
def no_java(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda _: None)


@pytest.mark.usefixtures("no_java")
def test_a_reference_repeated_word_for_word_is_perfect() -> None:
    references = {image: several[:1] for image, several in REFERENCES.items()}
    captions = {image: f"{several[0].upper()}!" for image, several in references.items()}
    result = score_captions(predicted(captions), coco(references))
    assert result.scores["BLEU-1"] == pytest.approx(100)
    assert result.scores["BLEU-4"] == pytest.approx(100)
    assert result.scores["ROUGE-L"] == pytest.approx(100)
    assert result.scores["CIDEr"] == pytest.approx(1000)  # 10 times a cosine of 1
    assert result.per_image[2]["CIDEr"] == pytest.approx(1000)


@pytest.mark.usefixtures("no_java")
def test_bleu_and_rouge_of_the_papers_own_examples() -> None:
    references = {1: ["The cat is on the mat.", "There is a cat on the mat."], 2: ["police killed the gunman"]}
    result = score_captions(
        predicted({1: "the the the the the the the.", 2: "police kill the gunman"}), coco(references)
    )
    assert result.per_image[1]["BLEU-1"] == pytest.approx(100 * 2 / 7)  # Papineni et al. 2002, example 2
    assert result.per_image[2]["ROUGE-L"] == pytest.approx(75)  # Lin 2004: LCS of 3 in 4 words each way
    assert result.scores["BLEU-1"] == pytest.approx(100 * (2 + 3) / (7 + 4))  # BLEU sums counts over the corpus


def test_java_is_not_started_where_it_is_not_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(java, "_run", lambda *_: pytest.fail("Java was started"))
    result = score_captions(predicted({1: "a dog", 2: "a woman", 3: "a train"}), coco(REFERENCES), use_java=False)
    assert set(result.scores) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}
    assert set(result.not_computed) == {"METEOR", "SPICE"}
    assert result.tokenizer == "python"


@pytest.mark.usefixtures("no_java")
def test_without_java_the_rest_is_scored_and_two_metrics_are_named() -> None:
    result = score_captions(predicted({1: "a dog", 2: "a woman", 3: "a train"}), coco(REFERENCES))
    assert set(result.scores) == {"BLEU-1", "BLEU-2", "BLEU-3", "BLEU-4", "ROUGE-L", "CIDEr"}
    assert result.not_computed["METEOR"] == "needs Java"
    assert result.not_computed["SPICE"].startswith("needs Java, and stanford-corenlp-3.6.0.jar and stanford-corenlp")
    assert result.not_computed.keys() == {"METEOR", "SPICE"}
    assert result.tokenizer == "python"
    assert all(set(each) == set(result.scores) for each in result.per_image.values())


@pytest.mark.usefixtures("no_java")
def test_only_answered_images_count_and_the_others_are_counted() -> None:
    result = score_captions(predicted({3: "a train covered in snow", 1: "a dog"}), coco(REFERENCES))
    assert (result.images, result.unanswered, list(result.per_image)) == (2, 1, [3, 1])


@pytest.mark.usefixtures("no_java")
def test_one_image_has_no_cider() -> None:
    result = score_captions(predicted({1: "a dog"}), coco(REFERENCES))
    assert "CIDEr" not in result.scores
    assert "two images" in result.not_computed["CIDEr"]


@pytest.mark.usefixtures("no_java")
@pytest.mark.parametrize(
    ("predictions", "truth", "message"),
    [
        (predicted({9: "a dog"}), coco(REFERENCES), "image_id 9"),
        (predicted({1: "a"}) * 2, coco(REFERENCES), "two predictions"),
        ([], coco(REFERENCES), "no predictions"),
        (predicted({1: "a"}), {"images": []}, "not in COCO format"),
        (predicted({1: "a"}), {"annotations": [{"image_id": 1}]}, "annotation 0 lacks"),
    ],
)
def test_mistaken_input_is_named(predictions: list, truth: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        score_captions(predictions, truth)


@pytest.mark.skipif(shutil.which("java") is None, reason="METEOR is a Java program")
def test_with_java_meteor_is_pycocoevalcaps_and_nothing_is_printed(capfd: pytest.CaptureFixture[str], tmp_path) -> None:
    truth = tmp_path / "gt.json"
    truth.write_text(json.dumps(coco(REFERENCES)))
    captions = {1: "a dog runs", 2: "women with umbrellas (red)", 3: ""}
    result = score_captions(predicted(captions), truth)
    assert capfd.readouterr() == ("", "")
    assert result.tokenizer == "java"
    # pycocoevalcap's Meteor on the tokens of these captions
    assert result.scores["METEOR"] == pytest.approx(15.681770970292103)
    assert [each["METEOR"] for each in result.per_image.values()] == pytest.approx([21.6123036, 24.9365612, 0.0])


def test_spice_says_which_files_it_lacks_and_where_they_go(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    monkeypatch.setattr(java.shutil, "which", lambda _: "/usr/bin/java")
    monkeypatch.setattr(java, "_spice_folder", lambda: tmp_path)
    with pytest.raises(java.JavaMissing, match=r"stanford-corenlp-3\.6\.0-models\.jar of http.*zip in .*lib"):
        java.spice({1: ["a dog"]}, {1: ["a dog"]})


def test_a_java_that_fails_gives_its_reason_not_a_number(monkeypatch: pytest.MonkeyPatch, tmp_path) -> None:
    program = tmp_path / "java"
    program.write_text("#!/bin/sh\necho 'NOTE: Picked up' >&2\necho 'Error: heap too large' >&2\nexit 1\n")
    program.chmod(0o755)
    (tmp_path / "lib").mkdir()
    for name in java._CORENLP_JARS:
        (tmp_path / "lib" / name).touch()
    monkeypatch.setattr(java, "_spice_folder", lambda: tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    result = score_captions(predicted({1: "a dog", 2: "women", 3: "train"}), coco(REFERENCES))
    assert result.not_computed["SPICE"] == "Java failed: Error: heap too large"
    assert "METEOR" in result.not_computed
    assert result.tokenizer == "python"


@pytest.mark.usefixtures("no_java")
def test_nocaps_scores_each_domain_as_a_set_of_its_own() -> None:
    domains = {1: "in-domain", 2: "near-domain", 3: "near-domain"}
    truth = coco(REFERENCES, images=[{"id": image, "domain": domain} for image, domain in domains.items()])
    captions = {1: "a dog on grass", 2: "two women hold umbrellas", 3: "a train at the station"}
    scores = score_nocaps(predicted(captions), truth)
    assert list(scores) == ["in", "near", "all"]
    near = score_captions(predicted({2: captions[2], 3: captions[3]}), coco({2: REFERENCES[2], 3: REFERENCES[3]}))
    assert scores["near"] == near
    assert scores["all"].scores == score_captions(predicted(captions), truth).scores
    with pytest.raises(ValueError, match="image 7 has domain None"):
        score_nocaps(predicted({7: "a"}), truth)


def test_an_image_whose_references_hold_no_word_is_named_and_not_scored():
    captions = {0: ["a cat sleeps"], 1: ["", "!!!"], 2: ["a dog runs"]}
    truth = {"annotations": [{"image_id": i, "caption": c} for i, several in captions.items() for c in several]}
    predictions = [{"image_id": i, "caption": "a cat sleeps"} for i in captions]
    found = score_captions(predictions, truth, use_java=False)
    others = score_captions([predictions[0], predictions[2]], truth, use_java=False)
    assert found.scores == others.scores
    assert list(found.per_image) == [0, 2]
    assert found.without_references == (1,)
    assert found.remarks == ["images whose references hold no word, which no score counts: 1 (1)"]
