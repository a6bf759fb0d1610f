"""The tables of README.md and docs/performance.md are those of benchmarks/results."""

import pytest

from benchmarks.pages import PAGES, page, read_results
from files import REPOSITORY

RESULT = {
    "name": "pretrain_base",
    "what": "pre-training step of 8 pairs",
    "unit": "images",
    "device": "cpu",
    "precision": "fp32",
    "samples": {"ours": 8, "textbook": 8},
    "ways": {
        "ours": {
            "seconds": 4.0,
            "samples_per_second": 2.0,
            "peak_bytes": 3 * 10**9,
            "flops": 16 * 10**9,
            "recomputed_flops": 0,
            "share_of_peak": 0.5,
        },
        "textbook": {
            "seconds": 8.0,
            "samples_per_second": 1.0,
            "peak_bytes": None,
            "flops": 24 * 10**9,
            "recomputed_flops": 8 * 10**9,
            "share_of_peak": 0.375,
        },
    },
    "ours_is_faster_by": {"textbook": 2.0},
    "parts": {"image encoder": 1.0},
    "largest_differences": {"textbook": {"loss": 1e-6}},
    "rounds": 3,
    "matrix_product_peak": 8e9,
    "machine": {"processor": "a processor", "torch": "2.14.1+cpu"},
    "commit": "0123456789",
}


@pytest.mark.parametrize("name", PAGES)
def test_a_page_has_the_tables_of_the_committed_results(name):
    text = (REPOSITORY / name).read_text(encoding="utf-8")
    assert page(text, read_results()) == text, "python -m benchmarks.pages brings it up to date"


def table(name: str, results: dict) -> str:
    marks = f"<!-- benchmarks: {name} -->", f"<!-- end of benchmarks: {name} -->"
    made = page(f"before\n{marks[0]}\nan old table\n{marks[1]}\nafter\n", results)
    assert made.startswith(f"before\n{marks[0]}\n\n")
    assert made.endswith(f"\n\n{marks[1]}\nafter\n")
    return made.removeprefix(f"before\n{marks[0]}\n\n").removesuffix(f"\n\n{marks[1]}\nafter\n")


def test_a_comparison_is_a_row_for_each_way_with_recomputed_operations_apart():
    text = table("comparisons", {"pretrain_base-cpu-fp32": RESULT})
    title, _, _, _, ours, textbook, part = text.splitlines()
    assert title == "**one core of a processor, fp32** (torch 2.14.1; commit 0123456789; peak, TFLOP/s 0.008):"
    cells = [cell.strip() for cell in ours.split("|")]
    assert cells[1:8] == ["pre-training step of 8 pairs", "ours", "4 s", "2 images", "3.00 GB", "2", "50%"]
    cells = [cell.strip() for cell in textbook.split("|")]
    assert cells[2:10] == ["textbook", "8 s", "1", "", "3 + 1 again", "38%", "2.00", "loss 1e-06"]
    assert "of it image encoder | 1 s" in part
    assert "25% of ours" in part


def test_goals_stand_beside_ratios_and_flops_and_what_is_missing_is_not_measured():
    first, second, *_ = table("goals", {"pretrain_base-cpu-fp32": RESULT}).splitlines()[2:]
    assert first == "| pre-training step, ViT-B at 224 pixels | 1.50 | 2.00 | 1.50 |"
    assert second == "| retrieval training step, ViT-B at 384 pixels | 1.50 | not measured |  |"


def test_the_summary_has_a_column_for_each_kind_of_device_in_its_own_precision():
    gpu = {**RESULT, "device": "cuda", "precision": "bf16", "ours_is_faster_by": {"textbook": 1.25}}
    other = {**gpu, "precision": "fp16", "ours_is_faster_by": {"textbook": 9.0}}
    rows = table("summary", {"a": RESULT, "b": gpu, "c": other}).splitlines()[2:]
    assert rows == ["| pre-training step, ViT-B at 224 pixels | the textbook way | 2.00 | 1.25 |"]


def test_checks_of_every_device_are_listed():
    found = {"training_in_bf16": {"passed": False, "found": "losses differ by 3", "seconds": 1.0}}
    machine = {"processor": "x", "gpu": "a GPU", "torch": "2.11.0+cu130"}
    rows = table("checks", {"checks-cuda": {"checks": found, "machine": machine}})
    assert rows.splitlines()[2:] == ["| training in bf16 | a GPU, torch 2.11.0 | **fail** | losses differ by 3 |"]
    assert table("checks", {}) == "No results are recorded yet."


PREDICTED = {
    "what": "predict.py caption, 64 files",
    "threads": 2,
    "seconds": {"fp32": {"ours": {"wall": 50.0}, "hugging_face": {"wall": 100.0}, "openvino": {"wall": 60.0}}},
    "ours_is_faster_by": {"fp32": {"hugging_face": {"wall": 2.0}, "openvino": {"wall": 1.2}}},
    "machine": {"processor": "a processor", "torch": "2.14.1+cpu", "openvino": "2026.4.1-22982-abc"},
}


def test_files_to_captions_have_two_columns_for_each_other_way():
    about, _, *lines = table("predict", {"predict": PREDICTED}).splitlines()
    assert about.endswith("64 files; 2 threads, a processor; torch 2.14.1, OpenVINO 2026.4.1:")
    assert lines == [
        "| | ours | Hugging Face | ours is faster by | OpenVINO | ours is faster by |",
        "| --- | ---: | ---: | ---: | ---: | ---: |",
        "| fp32 | 50 s | 100 s | 2.00 | 60 s | 1.20 |",
    ]


def test_files_to_captions_without_openvino_have_no_column_of_it():
    seconds = {"fp32": {"ours": {"wall": 50.0}, "hugging_face": {"wall": 100.0}}}
    machine = {"processor": "a processor", "torch": "2.14.1"}
    about, _, *lines = table("predict", {"predict": PREDICTED | {"seconds": seconds, "machine": machine}}).splitlines()
    assert about.endswith("torch 2.14.1:")
    assert lines == [
        "| | ours | Hugging Face | ours is faster by |",
        "| --- | ---: | ---: | ---: |",
        "| fp32 | 50 s | 100 s | 2.00 |",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("<!-- benchmarks: goals -->\n", "has no end"),
        ("<!-- benchmarks: goals -->\n<!-- end of benchmarks: summary -->", "has no end"),
        ("<!-- benchmarks: speed -->\n<!-- end of benchmarks: speed -->", "no table 'speed'"),
    ],
)
def test_a_wrong_mark_is_an_error(text, message):
    with pytest.raises(ValueError, match=message):
        page(text, {})
