"""Tables of what millions of samples take, made from benchmarks/results: starts, readers, checkpoints, CapFilt."""

from collections.abc import Callable
from typing import Any

from benchmarks.tables import Results


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
