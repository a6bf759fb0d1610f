"""Makes one graph of a beam search: its start, its step inside of a loop, and its end.

The exporter writes each of the three as a graph of its own, and knows no loop whose tensors grow. An ONNX `Loop` is a
node that holds a graph: here the step's. What does not change from token to token, weights among it, the step reads
from the graph around it.
"""

import hashlib
from collections.abc import Iterable, Mapping

import numpy as np
import onnx
from onnx import GraphProto, ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

SEARCH = 6  # tensors of a `SearchState`
_RANKED = 5  # of them that `SearchEnd` reads


def caption_loop(start: ModelProto, step: ModelProto, end: ModelProto, prompt_length: int) -> ModelProto:
    """The graph of a whole beam search.

    Args:
        start, step, end: the graphs of `SearchStart`, `SearchStep` and `SearchEnd`.
        prompt_length: the number of the prompt's tokens.

    Returns:
        image_states `[N, T, D]` and the scalars num_beams, min_length and max_length -> ids `[N, K, L]`, the best texts
        first, padded, and their scores `[N, K]`. max_length must be greater than `prompt_length`.
    """
    initializers: dict[bytes, TensorProto] = {}
    started, stepped, ended = (
        _renamed(model.graph, f"{name}/", initializers)
        for name, model in (("start", start), ("step", step), ("end", end))
    )
    states, beams, min_length = started.input
    outputs = [value.name for value in started.output]
    changing = len(stepped.output)  # the search and its cache
    memory = outputs[SEARCH : SEARCH + len(stepped.input) - changing - 1]
    carried = [*outputs[:SEARCH], *outputs[SEARCH + len(memory) :]]
    _rename(stepped, dict(zip(_names(stepped.input[changing:]), [*memory, min_length.name], strict=True)))
    _rename(ended, dict(zip(_names(ended.input), (f"found_{i}" for i in range(_RANKED)), strict=True)))
    _rename(ended, dict(zip(_names(ended.output), ("ids", "scores"), strict=True)))
    names = {states.name: "image_states", min_length.name: "min_length"}
    for graph in (started, stepped):
        _rename(graph, names)
    memory = [names.get(name, name) for name in memory]

    done = SEARCH - 2  # its place in a SearchState
    body = helper.make_graph(
        [*stepped.node, *_is_going(stepped.output[done].name, "step/going")],
        "step",
        [
            _scalar("step/number", TensorProto.INT64),
            _scalar("step/is_going", TensorProto.BOOL),
            *_bare(stepped.input[:changing]),
        ],
        [_scalar("step/going", TensorProto.BOOL), *_bare(stepped.output)],
    )
    found = [f"found_{i}" for i in range(changing)]
    numbers = {"zero": 0, "one": 1, "first": prompt_length + 1}
    constants = [numpy_helper.from_array(np.array(value, np.int64), name) for name, value in numbers.items()]
    graph = helper.make_graph(
        [
            helper.make_node("Range", ["zero", "num_beams", "one"], [beams.name]),
            *started.node,
            *_is_going(carried[done], "going"),
            helper.make_node("Sub", ["max_length", "first"], ["tokens_left"]),
            helper.make_node("Loop", ["tokens_left", "going", *carried], found, body=body),
            *ended.node,
        ],
        "captions",
        [
            started.input[0],
            *(_scalar(name, TensorProto.INT64) for name in ("num_beams", "min_length", "max_length")),
        ],
        [
            helper.make_tensor_value_info("ids", TensorProto.INT64, ["images", "beams", "tokens"]),
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, ["images", "beams"]),
        ],
        [*initializers.values(), *constants],
    )
    model = helper.make_model(graph, opset_imports=list(step.opset_import), ir_version=step.ir_version)
    onnx.checker.check_model(model)
    return model


def _renamed(graph: GraphProto, prefix: str, initializers: dict[bytes, TensorProto]) -> GraphProto:
    """A graph without its initializers, which join `initializers`, equal ones once; all its names get a prefix."""
    names = {"": ""}  # an input that is left out
    for tensor in graph.initializer:
        kept = TensorProto()
        kept.CopyFrom(tensor)
        kept.name = ""
        digest = hashlib.sha256(kept.SerializeToString()).digest()
        if digest not in initializers:
            kept.name = f"{prefix}{tensor.name}"
            initializers[digest] = kept
        names[tensor.name] = initializers[digest].name
    values = {value for node in graph.node for value in (*node.input, *node.output)}
    values |= {value.name for value in (*graph.input, *graph.output)}
    found = GraphProto()
    found.node.extend(graph.node)
    found.input.extend(graph.input)
    found.output.extend(graph.output)
    for node in found.node:
        node.name = f"{prefix}{node.name}"
    _rename(found, {name: f"{prefix}{name}" for name in values} | names)
    return found


def _rename(graph: GraphProto, names: Mapping[str, str]) -> None:
    """Give values of a graph other names."""
    for node in graph.node:
        for values in (node.input, node.output):
            values[:] = [names.get(name, name) for name in values]
    for value in (*graph.input, *graph.output):
        value.name = names.get(value.name, value.name)


def _is_going(done: str, result: str) -> list[NodeProto]:
    """Nodes that compute whether any image of a search is not done."""
    return [
        helper.make_node("Not", [done], [f"{result}/each"]),
        helper.make_node("Cast", [f"{result}/each"], [f"{result}/numbers"], to=TensorProto.INT64),
        helper.make_node("ReduceMax", [f"{result}/numbers"], [f"{result}/any"], keepdims=0),
        helper.make_node("Cast", [f"{result}/any"], [result], to=TensorProto.BOOL),
    ]


def _names(values: Iterable[ValueInfoProto]) -> list[str]:
    return [value.name for value in values]


def _bare(values: Iterable[ValueInfoProto]) -> list[ValueInfoProto]:
    """Values without their shapes, which change from token to token."""
    return [
        helper.make_tensor_value_info(
            value.name, value.type.tensor_type.elem_type, [None] * len(value.type.tensor_type.shape.dim)
        )
        for value in values
    ]


def _scalar(name: str, kind: int) -> ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, [])
