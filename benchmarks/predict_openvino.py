"""Caption pictures with Hugging Face's BLIP under OpenVINO: what `benchmarks.predict` compares with, where installed.

    python -m benchmarks.predict_openvino CONVERTED_FOLDER PICTURE_FOLDER [--precision bf16] [--num_beams 3]

As in OpenVINO's own example of BLIP, the image encoder is one graph and the text decoder another, their weights are
stored as 16-bit floats, and `generate` of `transformers` searches. Two things are better than there: the keys and
values stay inside OpenVINO from token to token, where they also follow their beams; and those of an image are computed
once, not for every beam and token. `convert` writes the folder. A caption a line, in the order of the pictures' names.
"""

from pathlib import Path
from typing import Any

import numpy as np
import openvino  # pyright: ignore[reportMissingImports]: no requirement of this repository
import openvino.opset13 as ops  # pyright: ignore[reportMissingImports]
import torch
from openvino.op import assign, read_value  # pyright: ignore[reportMissingImports]
from openvino.op.util import Variable, VariableInfo  # pyright: ignore[reportMissingImports]
from torch import Tensor, nn
from transformers import BlipConfig, BlipForConditionalGeneration, GenerationMixin, PreTrainedModel
from transformers.cache_utils import Cache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import CausalLMOutputWithCrossAttentions

from benchmarks.predict_hugging_face import caption, read_flags

PRECISIONS = {"fp32": "f32", "bf16": "bf16"}  # as OpenVINO calls them


class _DecoderStep(nn.Module):
    """The text decoder of `BlipForConditionalGeneration` with its caches as plain tensors, which a graph can have."""

    def __init__(self, decoder: Any) -> None:
        super().__init__()
        self.decoder = decoder

    def forward(self, input_ids: Tensor, image_states: Tensor, picture: Tensor, past: list[Tensor]) -> tuple[Any, ...]:
        """Scores of the token after the last one.

        Args:
            input_ids: the new tokens [R, L].
            image_states: [B, N, D] of the pictures.
            picture: the picture that each row is about [R].
            past: keys and values [R, heads, P, d] of the earlier tokens, layer by layer.

        Returns:
            scores [R, 1, vocabulary], `past` with the new tokens [R, heads, P + L, d], and the keys and values of the
            rows' pictures [R, heads, N, d].
        """
        own = [_filled(*past[i : i + 2]) for i in range(0, len(past), 2)]
        cross: list[Any] = []
        for layer in self.decoder.bert.encoder.layer:
            attention = layer.crossattention.self
            heads = (attention.num_attention_heads, attention.attention_head_size)
            both = (project(image_states).unflatten(-1, heads) for project in (attention.key, attention.value))
            cross.append(_filled(*(states.transpose(1, 2).index_select(0, picture) for states in both)))
        new, before = input_ids.shape[1], past[0].shape[2]
        visible = torch.ones(new, before + new, dtype=torch.bool).tril(before)
        mask = torch.zeros(new, before + new).masked_fill(~visible, torch.finfo(torch.float32).min)
        found = self.decoder(
            input_ids,
            attention_mask=mask[None, None],
            encoder_hidden_states=image_states,  # not read: the cache has its keys and values
            cache=EncoderDecoderCache(Cache(layers=own), Cache(layers=cross)),
            use_cache=True,
            logits_to_keep=1,
        )
        return found.logits, *(states for layer in [*own, *cross] for states in (layer.keys, layer.values))


def _filled(keys: Tensor, values: Tensor) -> Any:
    layer = DynamicLayer()
    layer.lazy_initialization(keys, values)
    layer.keys, layer.values = keys, values
    return layer


@torch.no_grad()
def convert(model: Path, folder: Path) -> None:
    """Write Hugging Face's captioner as graphs of OpenVINO, `image_encoder` and `text_decoder`, and its config.json."""
    theirs: Any = BlipForConditionalGeneration.from_pretrained(model).eval()
    theirs.config.save_pretrained(folder)
    side, text = theirs.config.vision_config.image_size, theirs.config.text_config
    pixels = torch.zeros(2, 3, side, side)
    encoder = openvino.convert_model(theirs.vision_model, example_input=pixels, input=[-1, 3, side, side])
    openvino.save_model(encoder, folder / "image_encoder.xml", compress_to_fp16=True)
    states = theirs.vision_model(pixels).last_hidden_state
    rows, heads = torch.tensor([0, 0, 1, 1]), text.num_attention_heads
    past = [torch.zeros(4, heads, 3, text.hidden_size // heads) for _ in range(2 * text.num_hidden_layers)]
    inputs = (torch.zeros(4, 2, dtype=torch.long), states, rows, past)
    decoder = openvino.convert_model(_DecoderStep(theirs.text_decoder).eval(), example_input=inputs)
    _keep_states(decoder, len(past))
    openvino.save_model(decoder, folder / "text_decoder.xml", compress_to_fp16=True)


def _keep_states(decoder: Any, number: int) -> None:
    """Let keys and values stay in the graph: `number` of earlier tokens, and as many of pictures, computed once.

    A new input `parents` [R] says which row of the last call each row goes on from.
    """
    first, axis = ops.constant([0], dtype=np.int64), ops.constant(0, dtype=np.int64)
    rows = ops.gather(ops.shape_of(decoder.input("input_ids"), "i64"), first, axis)
    parents = ops.parameter([-1], np.int64, "parents")
    parents.output(0).set_names({"parents"})
    results = [output.get_node() for output in decoder.outputs[1:]]
    sources = [result.input_value(0).get_node() for result in results]
    for result in results:
        decoder.remove_result(result)
    for i, (past, grown) in enumerate(zip(decoder.inputs[-number:], sources[:number], strict=True)):
        variable, (_, heads, _, width) = _variable(f"past_{i}", grown), grown.output(0).get_partial_shape()
        none_yet = ops.concat([rows, ops.constant([heads.get_length(), 0, width.get_length()], dtype=np.int64)], 0)
        kept = read_value(ops.broadcast(ops.constant(0.0, dtype=np.float32), none_yet), variable)
        chosen = ops.gather(kept, parents, axis)
        for reader in past.get_target_inputs():
            reader.replace_source_output(chosen.output(0))
        decoder.remove_parameter(past.get_node())
        decoder.add_sinks([assign(grown, variable)])
    for i, states in enumerate(sources[number:]):
        variable, readers = _variable(f"image_{i}", states), states.output(0).get_target_inputs()
        kept = read_value(states, variable)  # `states` are computed in the first call after `reset_state` only
        for reader in readers:
            reader.replace_source_output(kept.output(0))
        decoder.add_sinks([assign(kept, variable)])
    decoder.add_parameters([parents])
    decoder.validate_nodes_and_infer_types()


def _variable(name: str, source: Any) -> Any:
    info = VariableInfo()
    info.variable_id, info.data_type = name, openvino.Type.f32
    info.data_shape = source.output(0).get_partial_shape()
    return Variable(info)


class Captioner(PreTrainedModel, GenerationMixin):
    """A converted captioner: the image encoder, and the text decoder as `generate` calls it.

    Args:
        folder: what `convert` wrote.
        precision: what it computes in, `fp32` or `bf16`; the weights are stored as 16-bit floats either way.
    """

    main_input_name = "input_ids"

    def __init__(self, folder: Path, precision: str) -> None:
        config: Any = BlipConfig.from_pretrained(folder).text_config
        super().__init__(config)
        options = {
            "INFERENCE_PRECISION_HINT": PRECISIONS[precision],
            "KV_CACHE_PRECISION": PRECISIONS[precision],  # otherwise 8 bits
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),  # OpenVINO does not heed OMP_NUM_THREADS, torch does
        }
        compiled = (
            openvino.Core().compile_model(folder / f"{name}.xml", "CPU", options)
            for name in ("image_encoder", "text_decoder")
        )
        self.encoder, self.decoder = (each.create_infer_request() for each in compiled)
        self.image_states = np.empty((0, 0, 0), np.float32)

    def caption(self, pixels: Tensor, prompt: Tensor, **search: int) -> Tensor:
        """Normalized pictures [B, 3, S, S] and the tokens that their texts begin with [B, P] -> tokens [B, L]."""
        self.image_states = self.encoder.infer({0: pixels.numpy()})[0]
        this: Any = self  # the types of `transformers` let its own models alone call `generate`
        return this.generate(prompt, eos_token_id=this.config.sep_token_id, **search)

    @property
    def device(self) -> torch.device:
        """Where `generate` computes: `PreTrainedModel` would ask its weights, of which there are none."""
        return torch.device("cpu")

    def forward(self, input_ids: Tensor, cache: Tensor | None = None, **_: Any) -> CausalLMOutputWithCrossAttentions:
        """Tokens [R, L] that follow the rows `cache` [R] of the last call, or begin -> scores [R, 1, vocabulary]."""
        rows = torch.arange(len(input_ids))
        if cache is None:
            self.decoder.reset_state()
        inputs = {
            "input_ids": input_ids,
            "image_states": self.image_states,
            "picture": rows // (len(rows) // len(self.image_states)),
            "parents": rows if cache is None else cache,
        }
        scores = self.decoder.infer({name: np.asarray(each) for name, each in inputs.items()}, share_inputs=True)[0]
        next_cache: Any = rows  # for `generate`, which hands it back: of beams after `_reorder_cache`
        return CausalLMOutputWithCrossAttentions(logits=torch.from_numpy(scores), cache=next_cache)

    def _reorder_cache(self, cache: Tensor, beam_idx: Tensor) -> Tensor:
        """The rows from which beams go on; the next call moves the keys and values."""
        del cache
        return beam_idx

    @classmethod
    def _supports_default_dynamic_cache(cls) -> bool:
        return False  # `generate` makes no cache: the first call has none


def main() -> None:
    flags = read_flags(__doc__, "what `convert` wrote")
    captioner = Captioner(flags.model, flags.precision)
    caption(flags, lambda pixels, prompt, search: captioner.caption(pixels, prompt[:, :-1], **search))


if __name__ == "__main__":
    main()
