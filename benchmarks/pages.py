"""Bring the tables of README.md and of pages in docs/ up to date with benchmarks/results.

    python -m benchmarks.pages

A table stands between two marks, `<!-- benchmarks: NAME -->` and `<!-- end of benchmarks: NAME -->`; what is between
them is replaced.
"""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

from benchmarks.measurement import RESULTS
from benchmarks.scaling_table import scaling
from benchmarks.tables import comparison_table, times
from files import REPOSITORY, atomic_write

PAGES = ("README.md", "docs/performance.md", "docs/scaling.md", "docs/deploy.md")

GOALS = {  # times as fast as the textbook way, on one thread of a CPU in fp32
    "pretrain_base": 1.5,
    "retrieval_step": 1.5,
    "caption_step": 1.15,
    "vqa_step": 1.15,
    "nlvr_step": 1.2,
}
SUMMARY = {  # what README.md shows, in this order
    "pretrain_base": "pre-training step, ViT-B at 224 pixels",
    "pretrain_large": "pre-training step, ViT-L at 224 pixels",
    "retrieval_step": "retrieval training step, ViT-B at 384 pixels",
    "caption_step": "captioning training step, ViT-B at 384 pixels",
    "vqa_step": "VQA training step, ViT-B at 480 pixels",
    "nlvr_step": "NLVR2 training step, ViT-B at 384 pixels",
    "rerank": "retrieval, re-ranking",
    "caption_beams": "captioning, 3 beams",
    "caption_nucleus": "captioning, nucleus sampling",
    "vqa_rank": "VQA, ranking answers",
    "capfilt": "CapFilt, captions and scores",
    "loader_384_640x480_q75": "training pictures, 640x480 JPEG to 384 pixels",
}
_AGAINST = {"textbook": "the textbook way", "hugging_face": "Hugging Face's models"}

Results = dict[str, dict[str, Any]]  # by the name of the file, without its suffix


def read_results(folder: Path = RESULTS) -> Results:
    """All results of a folder."""
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(folder.glob("*.json"))}


def page(text: str, results: Results) -> str:
    """The text of a page with its tables made anew.

    Raises:
        ValueError: a mark without its end, or a table that does not exist.
    """

    def made_anew(found: re.Match[str]) -> str:
        if found["name"] not in TABLES:
            raise ValueError(f"no table {found['name']!r}: there are {', '.join(TABLES)}")
        return f"{found['mark']}\n\n{TABLES[found['name']](results)}\n\n{found['end']}"

    marks = r"(?P<mark><!-- benchmarks: (?P<name>\w+) -->)\n.*?(?P<end><!-- end of benchmarks: (?P=name) -->)"
    replaced, count = re.subn(marks, made_anew, text, flags=re.DOTALL)
    if count != text.count("<!-- benchmarks: "):
        raise ValueError("a mark `<!-- benchmarks: NAME -->` has no end `<!-- end of benchmarks: NAME -->`")
    return replaced


def _comparisons(results: Results) -> list[dict[str, Any]]:
    """The results of `benchmarks.run`, in the order of README.md, the others after them."""
    order = list(SUMMARY)
    found = [result for result in results.values() if "ways" in result and "unit" in result]
    return sorted(found, key=lambda r: order.index(r["name"]) if r["name"] in order else len(order))


def summary(results: Results) -> str:
    """How many times as fast ours is, by job and baseline, on each kind of device."""
    columns = {"cpu": "one CPU core, fp32", "cuda": "GPU, bf16"}
    precision = {"cpu": ("fp32", None), "cuda": ("bf16", None)}
    cells: dict[tuple[str, str], dict[str, str]] = {}
    for result in _comparisons(results):
        device = result["device"]
        if result["name"] in SUMMARY and result["precision"] in precision.get(device, ()):
            for way, ratio in result["ours_is_faster_by"].items():
                cells.setdefault((result["name"], way), {})[device] = times(ratio)
    rows = [
        f"| {SUMMARY[name]} | {_AGAINST.get(way, way)} | "
        f"{' | '.join(found.get(device, 'not measured') for device in columns)} |"
        for (name, way), found in cells.items()
    ]
    return "\n".join([f"| | times as fast as | {' | '.join(columns.values())} |", "| --- | --- | ---: | ---: |", *rows])


def comparisons(results: Results) -> str:
    """A table for each device and precision, with what it was measured on."""
    groups: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for result in _comparisons(results):
        where = result["machine"].get("gpu", f"one core of {result['machine']['processor']}")
        groups.setdefault((where, result["precision"] or "without a model"), []).append(result)
    return "\n\n".join(
        f"**{where}, {precision}** ({_versions(group)}):\n\n{comparison_table(group)}"
        for (where, precision), group in groups.items()
    )


def _versions(group: list[dict[str, Any]]) -> str:
    """What the results of a table were measured with."""
    found: dict[str, set[str]] = {}
    for result in group:
        for name in ("torch", "torchvision", "timm", "transformers"):
            if name in result["machine"]:
                found.setdefault(name, set()).add(str(result["machine"][name]).partition("+")[0])
        found.setdefault("commit", set()).add(result["commit"] or "not recorded")
        if result["matrix_product_peak"]:
            found.setdefault("peak, TFLOP/s", set()).add(f"{result['matrix_product_peak'] / 1e12:.3g}")
    return "; ".join(f"{name} {', '.join(sorted(values))}" for name, values in found.items())


def goals(results: Results) -> str:
    """The training steps on a CPU in fp32 beside what they are to reach."""
    rows: list[str] = []
    for name, goal in GOALS.items():
        result = results.get(f"{name}-cpu-fp32")
        cells = ["not measured", ""]
        if result:
            ours, textbook = (result["ways"][way]["flops"] for way in ("ours", "textbook"))
            cells = [times(result["ours_is_faster_by"]["textbook"]), f"{textbook / ours:.2f}"]
        rows.append(f"| {SUMMARY[name]} | {goal:.2f} | {' | '.join(cells)} |")
    head = "| | goal | times as fast as the textbook way | its FLOPs over ours |\n| --- | ---: | ---: | ---: |"
    return "\n".join([head, *rows])


def checks(results: Results) -> str:
    """What the checks found, on each device that they ran on."""
    rows: list[str] = []
    for name, result in results.items():
        if name.startswith("checks-"):
            where = result["machine"].get("gpu", result["machine"]["processor"])
            for check, found in result["checks"].items():
                rows.append(
                    f"| {check.replace('_', ' ')} | {where} | {'pass' if found['passed'] else '**fail**'} | "
                    f"{found['found']} |"
                )
    if not rows:
        return "No results are recorded yet."
    return "\n".join(["| check | on | | found |", "| --- | --- | --- | --- |", *rows])


def annotations(results: Results) -> str:
    """Annotations of millions of captions, by `python -m benchmarks.annotations`."""
    measured = results["annotations"]
    rows = [
        f"| {way} | {r['start_seconds']:.2f} s | {r['worker_private_bytes'] / 1e6:,.0f} MB "
        f"| {r['records_per_second']:,.0f} |"
        for way, r in measured["ways"].items()
    ]
    on = measured["machine"]
    about = (
        f"{measured['captions']:,} captions ({measured['file_bytes'] / 1e6:,.0f} MB of JSON), two loader workers, "
        f"{on['processor']}, {on['cores']} cores, Python {on['python']}:"
    )
    head = "| way | start | private memory a worker | records/s |\n| --- | ---: | ---: | ---: |"
    return "\n".join([f"{about}\n", head, *rows])


def checkpoints(results: Results) -> str:
    """Checkpoints in the background, by `python -m benchmarks.checkpoints`."""
    measured = results.get("checkpoints")
    if measured is None:
        return "No results are recorded yet."
    seconds, on = measured["seconds"], measured["machine"]
    waited, step, meanwhile = seconds["foreground"], 1e3 * seconds["step"], 1e3 * seconds["step_meanwhile"]
    rows = [
        f"| training waits | {waited:.2f} s | {waited:.2f} s | {step:.1f} ms |",
        f"| in the background | {seconds['copy']:.2f} s | {seconds['whole']:.2f} s | {meanwhile:.1f} ms meanwhile |",
    ]
    about = (
        f"{measured['bytes'] / 1e9:.1f} GB on {on.get('gpu', on['processor'])}, {on['cores']} cores, "
        f"torch {on['torch']}; the first copy, which allocates the memory, took {seconds['first_copy']:.2f} s:"
    )
    head = "| way | training stands still | the file is whole after | a step |\n| --- | ---: | ---: | ---: |"
    return "\n".join([f"{about}\n", head, *rows])


def choice(results: Results) -> str:
    """The choice among generated scores, by `python -m benchmarks.select`."""
    measured = results["select"]
    return (
        f"{measured['rows']:,} texts: {measured['seconds']:.1f} s on {measured['machine']['cores']} cores "
        f"({measured['processor_seconds']:.1f} s of processor time), {measured['peak_bytes'] / 1e9:.2f} GB of memory; "
        f"{measured['written_bytes'] / 1e9:.2f} GB are written."
    )


def startup(results: Results) -> str:
    """The start of a pre-training on many shards, by `python -m benchmarks.startup`: all processes of a machine."""
    if "startup" not in results:
        return "No results are recorded yet."
    measured, rows = results["startup"], list[str]()
    for start, processes in measured["starts"].items():
        for part in processes[0]:
            found = [process[part] for process in processes]
            seconds, peak = (max(one[figure] for one in found) for figure in ("seconds", "peak_bytes"))
            asked, opened = (sum(one[figure] for one in found) for figure in ("questions", "opened"))
            rows.append(f"| {start} | {part} | {seconds:.2f} s | {asked:,} | {opened:,} | {peak / 1e6:,.0f} MB |")
    on = measured["machine"]
    about = (
        f"{measured['samples']:,} samples in {measured['shards']:,} shards, {on['processor']}, {on['cores']} cores, "
        "local disk; the slowest process, questions and files of all processes, and the largest memory of one:"
    )
    head = "| | part | time | `stat`s | opened files | memory |\n| --- | --- | ---: | ---: | ---: | ---: |"
    return "\n".join([f"{about}\n", head, *rows])


def readers(results: Results) -> str:
    """Who opens which shards, by `python -m benchmarks.readers`."""
    measured = results["readers"]
    ways = measured["ways"]
    about = (
        f"{measured['samples']:,} samples in {measured['shards']:,} shards; {measured['processes']} processes with "
        f"{measured['workers']} workers and batches of {measured['batch_size']}:"
    )
    one = f"one of {measured['processes']} processes"
    rows: dict[str, Callable[[dict[str, Any]], str]] = {
        "shards that a worker opens": lambda way: f"{way['opened_by_worker']:,}",
        "shards that the workers of a process open, and their bytes": lambda way: (
            f"{way['opened_by_process']:,}, {way['opened_bytes_of_process'] / 1e9:,.0f} GB"
        ),
        "shards that all workers open, each for itself": lambda way: f"{way['opened_in_all']:,}",
        "bytes of the pictures that a process uses": lambda way: f"{way['read_bytes_of_process'] / 1e9:,.0f} GB",
        "shards in a batch of a process": lambda way: f"{way['shards_in_batch']:.1f}",
        "shards in a global batch": lambda way: f"{way['shards_in_global_batch']:,.0f}",
        "neighbors in a shard come apart by (median)": lambda way: f"{way['median_steps_apart']:.1f} steps",
        "samples that an epoch leaves out": lambda way: f"{100 * way['left_out']:.1f}%",
        f"memory that making the order takes, {one}": lambda way: _memory(way["order_of_one_in_all"]),
        "memory that making the order takes, a single process": lambda way: _memory(way["order_of_one_alone"]),
        f"processor time of making the order, {one}": lambda way: _seconds(way["order_of_one_in_all"]),
    }
    lines = [f"| {what} | {' | '.join(cell(way) for way in ways.values())} |" for what, cell in rows.items()]
    return "\n".join([f"{about}\n", f"| | {' | '.join(ways)} |", f"| --- |{' ---: |' * len(ways)}", *lines])


def _memory(order: dict[str, float]) -> str:
    return f"{order['peak_bytes'] / 1e6:.0f} MB"


def _seconds(order: dict[str, float]) -> str:
    return f"{order['processor_seconds']:.1f} s"


def deploy(results: Results) -> str:
    """Latency and throughput of the ways to run a captioner, by `python -m benchmarks.deploy`."""
    if "deploy" not in results:
        return "No results are recorded yet."
    measured = results["deploy"]
    on, pictures = measured["machine"], measured["pictures"]
    encode, caption = (measured["seconds"][job] for job in ("encode", "caption"))
    rows: list[str] = []
    for way in encode:
        cells = [
            cell
            for job in (caption, encode)
            for cell in ((f"{job[way]['one']:.2f} s", f"{pictures / job[way]['all']:.2f}") if way in job else ("", ""))
        ]
        rows.append(f"| {way} | {' | '.join(cells)} |")
    packages = "; ".join(f"{name} {on[name]}" for name in ("torch", "onnxruntime", "transformers") if name in on)
    about = (
        f"{measured['what']}; {pictures} pictures, {measured['batch_size']} at once, {measured['threads']} threads; "
        f"{on['processor']}, {on['cores']} cores; {packages}:"
    )
    head = (
        "| way | caption of one picture | captions/s | encoding one picture | encoded pictures/s |\n"
        "| --- | ---: | ---: | ---: | ---: |"
    )
    return "\n".join([f"{about}\n", head, *rows])


def predict(results: Results) -> str:
    """Files to captions, by `python -m benchmarks.predict`."""
    measured = results["predict"]
    rows = [
        f"| {precision} | {each['ours']['wall']:.0f} s | {each['hugging_face']['wall']:.0f} s | "
        f"{times(measured['hugging_face_over_ours'][precision]['wall'])} |"
        for precision, each in measured["seconds"].items()
    ]
    on = measured["machine"]
    about = (
        f"{measured['what']}; {measured['threads']} threads, {on['processor']}; torch {on['torch'].partition('+')[0]}:"
    )
    head = "| | ours | Hugging Face | ours is faster by |\n| --- | ---: | ---: | ---: |"
    return "\n".join([f"{about}\n", head, *rows])


_PARTS = (
    summary,
    comparisons,
    goals,
    checks,
    annotations,
    checkpoints,
    choice,
    scaling,
    startup,
    readers,
    deploy,
    predict,
)
TABLES = {part.__name__: part for part in _PARTS}


def main() -> None:
    results = read_results()
    for name in PAGES:
        path = REPOSITORY / name
        before = path.read_text(encoding="utf-8")
        after = page(before, results)
        if after != before:
            with atomic_write(path) as temporary:
                temporary.write_text(after, encoding="utf-8")
        print(f"{name}: {'as it was' if after == before else 'brought up to date'}")


if __name__ == "__main__":
    main()
