"""Tables of speeds, made from benchmarks/results: comparisons, goals, checks, files to captions, deploying."""

from typing import Any

from benchmarks.tables import WAY_NAMES, Results, comparison_table, times

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
            machine = result["machine"]
            where = f"{machine.get('gpu', machine['processor'])}, torch {machine['torch'].partition('+')[0]}"
            for check, found in result["checks"].items():
                rows.append(
                    f"| {check.replace('_', ' ')} | {where} | {'pass' if found['passed'] else '**fail**'} | "
                    f"{found['found']} |"
                )
    if not rows:
        return "No results are recorded yet."
    return "\n".join(["| check | on | | found |", "| --- | --- | --- | --- |", *rows])


def predict(results: Results) -> str:
    """Files to captions, by `python -m benchmarks.predict`: each other way beside by how much ours is faster."""
    measured = results["predict"]
    others = [way for way in next(iter(measured["seconds"].values())) if way != "ours"]
    rows: list[str] = []
    for precision, seconds in measured["seconds"].items():
        cells = [f"{seconds['ours']['wall']:.0f} s"]
        for way in others:
            cells += [f"{seconds[way]['wall']:.0f} s", times(measured["ours_is_faster_by"][precision][way]["wall"])]
        rows.append(f"| {precision} | {' | '.join(cells)} |")
    on = measured["machine"]
    about = (
        f"{measured['what']}; {measured['threads']} threads, {on['processor']}; torch {on['torch'].partition('+')[0]}"
    )
    if "openvino" in on:
        about += f", OpenVINO {on['openvino'].partition('-')[0]}"
    columns = "".join(f" {WAY_NAMES[way]} | ours is faster by |" for way in others)
    return "\n".join([f"{about}:\n", f"| | ours |{columns}", f"| --- | ---: |{' ---: |' * 2 * len(others)}", *rows])


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
