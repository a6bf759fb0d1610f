"""What `capfilt.py select` keeps and writes, against a plain loop over the rows."""

import json
from pathlib import Path

import numpy as np
import pytest

from bootstrapping import blocks
from bootstrapping.choice import select
from bootstrapping.scores import TextScore, open_scores
from tests.bootstrapping.made_up import ABOUT, chosen_plainly, random_rows, row, uid, write_run

WRITTEN = ["both.json", "capfilt.html", "filtered_synthetic.json", "filtered_web.json", "summary.json", "uids.npy"]


def chosen(folder: Path, *keys: str) -> Path:
    """The folder that a choice wrote."""
    assert select([str(folder), "gallery=0", *keys]) == 0
    return folder / "selected"


def read(file: Path) -> list[dict]:
    return json.loads(file.read_text(encoding="utf-8"))


def records(rows: list[TextScore]) -> list[dict]:
    return [{"url" if one.image.startswith("http") else "image": one.image, "caption": one.text} for one in rows]


@pytest.fixture(scope="module")
def rows() -> dict[str, list[TextScore]]:
    return {f"list-{n:06d}": random_rows(range(60 * n, 60 * n + 60), n) for n in range(4)} | {"list-000004": []}


@pytest.fixture(scope="module")
def run(rows, tmp_path_factory) -> Path:
    return write_run(tmp_path_factory.mktemp("run"), rows)


@pytest.mark.parametrize(
    "keys",
    [
        {},
        {"threshold": 0.0},
        {"threshold": 0.7},  # no number of 32 bits, and neither are the scores
        {"threshold": 1.0},
        {"keep": 0.3},
        {"keep": 0.3, "by_source": True},
        {"keep": 1.0},
        {"keep": 0.0001},
        {"cosine": -0.2},
        {"cosine": 0.3, "captions_per_image": 1},
        {"captions_per_image": 1},
        {"captions_per_image": 2, "threshold": 0.2},
        {"captions_per_image": 3, "keep": 0.8, "by_source": True},
        {"captions_per_image": 1, "threshold": 0.0},
    ],
    ids=str,
)
def test_what_is_kept_is_what_a_plain_loop_keeps(keys, rows, run):
    out = chosen(run, *(f"{key}={json.dumps(value)}" for key, value in keys.items()))
    kept = chosen_plainly(sum(rows.values(), []), **keys)
    assert len(kept) > 0
    assert read(out / "both.json") == records(kept)
    assert read(out / "filtered_web.json") == records([one for one in kept if one.source == "web"])
    assert read(out / "filtered_synthetic.json") == records([one for one in kept if one.source == "synthetic"])
    uids = sorted({(int(one.uid[:16], 16), int(one.uid[16:], 16)) for one in kept})
    assert np.load(out / "uids.npy").tolist() == uids


@pytest.mark.parametrize("block_rows", [1, 7])
def test_images_are_whole_wherever_rows_are_cut(block_rows, tmp_path, monkeypatch):
    rows = {"a": random_rows(range(20), 0), "b": random_rows(range(20, 40), 1)}
    folder = write_run(tmp_path / "run", rows)
    monkeypatch.setattr(blocks, "_ROWS", block_rows)
    out = chosen(folder, "keep=0.6", "captions_per_image=2")
    assert read(out / "both.json") == records(chosen_plainly(sum(rows.values(), []), keep=0.6, captions_per_image=2))


def test_long_texts_are_read_a_few_at_a_time(tmp_path, monkeypatch):
    rows = [row(number, text=f"{number} {'long ' * 200}") for number in range(100)]
    folder = write_run(tmp_path / "run", {"a": rows})
    monkeypatch.setattr(blocks, "_BYTES", 10_000)
    read_at_once = [len(block) for block in blocks.blocks(open_scores(folder).files)]
    assert sum(read_at_once) == 100
    assert max(read_at_once) <= 20
    assert read(chosen(folder) / "both.json") == records(rows)


def test_equal_texts_of_an_image_are_kept_once_and_the_webs_goes_first(tmp_path):
    rows = [
        row(1, "web", 0, "a cat", 0.6),
        row(1, "web", 1, "a cat", 0.9),
        row(1, "synthetic", 0, "a cat", 0.99),
        row(1, "synthetic", 1, "a dog", 0.5),
        row(1, "synthetic", 2, "a dog", 0.7),
        row(2, "web", 0, "a cat", 0.2),  # not kept, so the synthetic one is
        row(2, "synthetic", 0, "a cat", 0.8),
    ]
    out = chosen(write_run(tmp_path / "run", {"a": rows}))
    assert read(out / "both.json") == records([rows[0], rows[3], rows[6]])
    texts = json.loads((out / "summary.json").read_text())["texts"]
    assert texts["web"] == {
        "texts": 3,
        "high_enough": 2,
        "duplicates": 1,
        "beyond_captions_per_image": 0,
        "kept": 1,
        "share_kept": 0.333333,
    }
    assert texts["synthetic"]["duplicates"] == 2


def test_of_equal_scores_the_webs_goes_first_then_the_lower_n(tmp_path):
    rows = [
        row(1, "web", 0, "b"),
        row(1, "web", 1, "a"),
        row(1, "synthetic", 0, "d"),
        row(1, "synthetic", 1, "c", 0.75),
        row(2, "synthetic", 0, "f"),
        row(2, "synthetic", 1, "e"),
    ]
    folder = write_run(tmp_path / "run", {"a": rows})
    assert read(chosen(folder, "captions_per_image=1") / "both.json") == records([rows[3], rows[4]])
    assert read(chosen(folder, "captions_per_image=2") / "both.json") == records([rows[0], rows[3], rows[4], rows[5]])


def test_the_share_kept_holds_all_texts_of_the_lowest_score(tmp_path):
    rows = [row(n, match=match) for n, match in enumerate([0.9, 0.4, 0.4, 0.4, 0.1, 0.0, 0.0, 0.0, 0.0, 0.0])]
    out = chosen(write_run(tmp_path / "run", {"a": rows}), "keep=0.2")
    assert read(out / "both.json") == records(rows[:4])
    assert json.loads((out / "summary.json").read_text())["least_score"] == {"web": pytest.approx(0.4)}


def test_a_score_that_is_no_number_is_never_kept(tmp_path):
    rows = [row(1, match=float("nan"), cosine=float("nan")), row(2, match=0.0, cosine=-1.0)]
    folder = write_run(tmp_path / "run", {"a": rows})
    for key in ("threshold=0", "keep=1", "cosine=-1"):
        assert read(chosen(folder, key) / "both.json") == records(rows[1:])


def test_a_share_of_scores_that_are_no_numbers_is_nothing(tmp_path):
    rows = [row(1, match=float("nan")), row(2, "synthetic", match=0.5)]
    out = chosen(write_run(tmp_path / "run", {"a": rows}), "keep=0.5", "by_source=true")
    assert read(out / "both.json") == records(rows[1:])
    assert json.loads((out / "summary.json").read_text())["least_score"] == {"synthetic": 0.5}


def test_lists_are_utf_8_with_one_record_a_line(tmp_path):
    rows = [row(1, text='é "x"\\\n'), row(2, "synthetic", image="Http://a/b.jpg"), row(3, image="httpd/c.jpg")]
    out = chosen(write_run(tmp_path / "run", {"a": rows}))
    assert (out / "both.json").read_bytes() == (
        '[\n{"image": "001.jpg", "caption": "é \\"x\\"\\\\\\n"},\n{"url": "Http://a/b.jpg", "caption": "a cat"},\n'
        '{"image": "httpd/c.jpg", "caption": "a cat"}\n]\n'
    ).encode()


def test_every_control_character_is_escaped(tmp_path):
    text = "".join(map(chr, range(32))) + '\x7f"\\\u2028'
    out = chosen(write_run(tmp_path / "run", {"a": [row(1, text=text)]}))
    assert read(out / "both.json") == [{"image": "001.jpg", "caption": text}]


def test_uids_are_pairs_of_unsigned_numbers_as_datacomp_reads_them(tmp_path):
    numbers = [0, 1, 2**63, 2**64 - 1, 2**64, 2**127 + 256, 2**128 - 1, 0x0100 << 112]
    rows = [row(n, uid=f"{number:032x}", image=str(n)) for n, number in enumerate(numbers)]
    rows[6] = rows[6]._replace(uid=rows[6].uid.upper())
    found = np.load(chosen(write_run(tmp_path / "run", {"a": rows})) / "uids.npy", mmap_mode="r")
    assert found.dtype == np.dtype("u8,u8")
    assert found.tolist() == [(number >> 64, number % 2**64) for number in sorted(numbers)]


def test_nothing_kept_leaves_empty_lists_and_says_so(tmp_path, caplog):
    out = chosen(write_run(tmp_path / "run", {"a": [row(1)]}), "threshold=0.9")
    assert read(out / "both.json") == []
    assert np.load(out / "uids.npy").shape == (0,)
    assert "no text is kept: choose a lower threshold" in caplog.messages


def test_a_run_that_has_not_finished_is_named(tmp_path, caplog):
    chosen(write_run(tmp_path / "run", {"a": [row(1)], "b": [row(2)]}, {"units": 3}))
    assert "2 of 3 units of work have scores: capfilt.py has not finished" in caplog.messages


def test_a_second_choice_writes_the_same_bytes(run, tmp_path):
    folders = [tmp_path / "first", tmp_path / "second"]
    for out in folders:
        chosen(run, f"out={out}", "keep=0.4", "captions_per_image=2")
    assert sorted(file.name for file in folders[0].iterdir()) == WRITTEN
    for name in WRITTEN:
        assert (folders[0] / name).read_bytes() == (folders[1] / name).read_bytes()


def test_the_summary_names_models_rule_and_what_could_not_be_used(tmp_path):
    bad = {**ABOUT, "bad": [["7.jpg", "not a picture"], ["8.jpg", "an empty file"]]}
    folder = write_run(tmp_path / "run", {"a": [row(1), row(2, match=0.1)]}, about=bad)
    summary = json.loads((chosen(folder, "captions_per_image=1") / "summary.json").read_text())
    assert summary["selection"] == {
        "threshold": None,
        "keep": None,
        "by_source": False,
        "cosine": None,
        "captions_per_image": 1,
        "shards": False,
    }
    assert (summary["score"], summary["least_score"]) == ("match", {"web": 0.5})
    assert summary["captioner"] == ABOUT["captioner"]
    assert summary["filter"] == ABOUT["filter"]
    assert (summary["images"], summary["images_kept"], summary["images_not_used"]) == (2, 1, 2)
    assert summary["texts"]["synthetic"]["share_kept"] is None


def test_truth_gives_precision_recall_and_calibration(tmp_path):
    matches = [0.95, 0.05, 0.05, 0.65, 0.35, 0.5]
    rows = [row(n, match=match) for n, match in enumerate(matches)]
    rows += [row(6, "web", n, str(n), 0.95) for n in (0, 1)]
    rows += [row(6, "synthetic", 0, "synthetic", 0.0), row(7, match=0.0)]  # the truth says nothing of these two
    right = [True, False, False, False, True, True]
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({uid(n): value for n, value in enumerate(right)} | {uid(6): [True, False]}))
    out = chosen(write_run(tmp_path / "run", {"a": rows[:5], "b": rows[5:]}), f"truth={truth}")
    found = json.loads((out / "summary.json").read_text())["truth"]
    calibration = found.pop("calibration")
    assert found == {
        "texts": 8,
        "wrong": 4,
        "wrong_found": 2,
        "right_dropped": 1,
        "precision": 0.666667,
        "recall": 0.5,
        "f1": 0.571429,
    }
    assert [one["texts"] for one in calibration] == [2, 0, 0, 1, 0, 1, 1, 0, 0, 3]
    assert [one["share_right"] for one in calibration] == [0, None, None, 1, None, 1, 0, None, None, 0.666667]
    assert calibration[9]["mean_match"] == pytest.approx(0.95)


def test_a_single_truth_is_said_of_all_web_texts_of_an_image(tmp_path):
    truth = tmp_path / "truth.json"
    truth.write_text(json.dumps({uid(1): False}))
    rows = [row(1, "web", 0, "a"), row(1, "web", 1, "b")]
    out = chosen(write_run(tmp_path / "run", {"a": rows}), f"truth={truth}")
    assert json.loads((out / "summary.json").read_text())["truth"]["wrong"] == 2
