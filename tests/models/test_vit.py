"""The image encoder: sizes, checkpointing, interpolation, errors."""

import pytest
import torch
from torch._dynamo.testing import CompileCounter

from models.config import DEFAULT_DROP_PATH, VIT_SIZES
from models.vit import StochasticDepth, create_vit, interpolate_pos_embed

SMALL = {"embed_dim": 24, "depth": 4, "num_heads": 2, "patch_size": 8}


@pytest.mark.parametrize("sizes", ["4x4_to_6x6", "8x8_to_6x6", "3x3_to_6x6", "14x14_to_24x24", "4x4_to_4x4"])
def test_position_embeddings_are_resized_as_the_released_checkpoints_were(sizes, arrays, close):
    old, new = sizes.split("_to_")
    tables = arrays("pos_embed/interpolate.npz")
    patches = int(new.split("x")[0]) ** 2
    resized = interpolate_pos_embed(tables[f"in_{old}"], patches)
    close(resized, tables[f"out_{sizes}"])
    assert torch.equal(resized[:, 0], tables[f"in_{old}"][:, 0])


@pytest.mark.parametrize(("name", "parameters"), [("tiny", 5_524_416), ("small", 21_665_664), ("base", 85_798_656)])
def test_named_sizes_have_the_published_number_of_parameters(name, parameters):
    with torch.device("meta"):
        vit = create_vit(name, 224)
    assert sum(p.numel() for p in vit.parameters()) == parameters


def test_large_has_stochastic_depth_and_the_rest_none():
    assert DEFAULT_DROP_PATH == {"large": 0.1}
    assert VIT_SIZES["large"]["depth"] == 24
    size = {"embed_dim": 8, "depth": 5, "num_heads": 2, "patch_size": 8}
    assert isinstance(create_vit(size, 16).blocks[-1].drop_path1, torch.nn.Identity)
    blocks = create_vit(size, 16, drop_path_rate=0.2).blocks
    for path in ("drop_path1", "drop_path2"):
        rates = [float(getattr(block, path).rate) for block in blocks]
        assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_stochastic_depth_leaves_out_its_share_of_the_samples_and_keeps_the_mean():
    torch.manual_seed(0)
    depth = StochasticDepth(0.2)
    x = torch.ones(10_000, 2, 3)
    kept = depth(x)
    assert set(kept.unique().tolist()) == {0.0, 1.25}
    assert torch.equal(kept[:, 0, 0], kept[:, 1, 2])  # a sample as a whole
    assert kept.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(depth.eval()(x), x)
    assert not depth.state_dict()  # checkpoints have no rate


def test_blocks_of_different_rates_share_a_compilation():
    counter = CompileCounter()
    torch._dynamo.reset()
    size = {"embed_dim": 8, "depth": 5, "num_heads": 2, "patch_size": 8}
    vit = create_vit(size, 16, drop_path_rate=0.2)
    for block in vit.blocks:
        block.compile(backend=counter)
    vit(torch.zeros(2, 3, 16, 16)).sum().backward()
    assert counter.frame_count == 1
    torch._dynamo.reset()


def test_a_narrow_vit_starts_from_weights_that_pass_on_as_much_as_those_of_vit_b():
    for width, deviation in ((768, 0.02), (1024, 0.02), (192, 0.04), (48, 0.08)):
        sizes = {"embed_dim": width, "depth": 1, "num_heads": 1, "patch_size": 8}
        block = create_vit(sizes, 16).blocks[0]
        for linear in (block.attn.qkv, block.attn.proj, block.mlp.fc1, block.mlp.fc2):
            assert linear.weight.std().item() == pytest.approx(deviation, rel=0.05)


def test_only_the_last_blocks_are_recomputed_and_gradients_stay_the_same():
    torch.manual_seed(0)
    plain, saving = create_vit(SMALL, 32), create_vit(SMALL, 32, vit_grad_ckpt=True, vit_ckpt_layer=3)
    saving.load_state_dict(plain.state_dict())
    calls = []
    for i, block in enumerate(saving.blocks):
        block.register_forward_pre_hook(lambda *_, i=i: calls.append(i))
    image = torch.randn(2, 3, 32, 32)
    for vit in (plain, saving):
        vit(image).square().sum().backward()
    assert sorted(calls) == [0, 1, 1, 2, 2, 3, 3]
    for a, b in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(a.grad, b.grad)
    assert create_vit(SMALL, 32, vit_grad_ckpt=False, vit_ckpt_layer=3).config.checkpointed_blocks == 0


def test_a_setting_for_a_deeper_encoder_recomputes_all_blocks():
    assert create_vit(SMALL, 32, vit_grad_ckpt=True, vit_ckpt_layer=12).config.checkpointed_blocks == 4


def test_nothing_is_recomputed_without_gradients():
    vit = create_vit(SMALL, 32, vit_grad_ckpt=True, vit_ckpt_layer=4)
    calls = []
    for block in vit.blocks:
        block.register_forward_hook(lambda *_: calls.append(1))
    with torch.no_grad():
        vit(torch.randn(1, 3, 32, 32))
    assert len(calls) == 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"vit": "huge"}, "vit = huge: must be tiny, small, base, large"),
        ({"vit": {"embed_dim": 24, "depth": 2}}, "must be a name, or a mapping of embed_dim, depth, num_heads"),
        ({"vit": {**SMALL, "num_heads": 5}}, "vit = .*: must be of an embed_dim that num_heads divides"),
        ({"vit": {**SMALL, "depth": 0}}, "vit: depth = 0: must be at least 1"),
        ({"vit": SMALL, "image_size": 30}, "image_size = 30: must be a multiple of the patch size, 8"),
        ({"vit": SMALL, "vit_ckpt_layer": -1}, "vit_ckpt_layer = -1: must be 0 or more"),
    ],
)
def test_impossible_sizes_are_errors(arguments, message):
    with pytest.raises(ValueError, match=message):
        create_vit(**{"image_size": 32, **arguments})


def test_an_image_of_another_size_is_an_error_that_tells_the_cure():
    with pytest.raises(ValueError, match=r"built for 32x32 pixels and got .* build the model with image_size=48"):
        create_vit(SMALL, 32)(torch.zeros(1, 3, 48, 48))


@pytest.mark.parametrize("recomputed", [False, True])
def test_the_class_token_alone_is_that_of_all_tokens(recomputed):
    vit = create_vit(SMALL, 32, vit_grad_ckpt=recomputed, vit_ckpt_layer=2)
    image = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    gradients = []
    for states in (vit(image)[:, :1], vit(image, first_only=True)):
        vit.zero_grad()
        states.pow(3).mean().backward()
        gradients.append((states.detach(), {name: p.grad.clone() for name, p in vit.named_parameters()}))
    (expected, of_all), (states, of_first) = gradients
    torch.testing.assert_close(states, expected, rtol=0, atol=1e-6)
    for name, gradient in of_all.items():
        torch.testing.assert_close(of_first[name], gradient, rtol=1e-4, atol=1e-6)
