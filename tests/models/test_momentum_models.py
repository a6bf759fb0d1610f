"""Pre-training and retrieval training agree with the 2022 code, step by step: losses, gradients, copies, queues."""

import sys

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from models.blip_pretrain import blip_pretrain
from models.blip_retrieval import blip_retrieval
from models.momentum import sample_negatives
from models.tokenizer import tokenize

SIZES = {"embed_dim": 16, "queue_size": 12, "momentum": 0.995}


def most_probable(weights, number):
    return weights.argmax(dim=1, keepdim=True)


def pretrain_losses(model, images, inputs, step):
    return model(images, inputs[f"captions_step{step}"], inputs[f"alpha_step{step}"])


def retrieval_losses(model, images, inputs, step):
    idx = torch.tensor(inputs[f"idx_step{step}"])
    return model(images, inputs[f"captions_step{step}"], inputs[f"alpha_step{step}"], idx)


CASES = {
    "pretrain": ("pretrain", "expected.json", "expected", blip_pretrain, {}, pretrain_losses),
    "same_rank": ("retrieval", "same_rank_expected.json", "same_rank_expected", blip_retrieval, {}, retrieval_losses),
    "all_rank": (
        "retrieval", "all_rank_expected.json", "all_rank_expected", blip_retrieval, {"negative_all_rank": True},
        retrieval_losses,
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_two_training_steps(case, golden, tiny, arrays, facts, close, check_gradients, monkeypatch):
    folder, expected_file, prefix, build, options, losses_of = CASES[case]
    drawn = []

    def draw(weights, number):
        drawn.append(most_probable(weights, number))
        return drawn[-1]

    monkeypatch.setattr(torch, "multinomial", draw)
    model = build(str(golden(f"{folder}/checkpoint.pth")), **tiny, **SIZES, **options).eval()
    inputs, expected = facts(f"{folder}/inputs.json"), facts(f"{folder}/{expected_file}")
    for step in (1, 2):
        recorded = expected[f"step{step}"]
        drawn.clear()
        model.zero_grad()
        losses = losses_of(model, arrays(f"{folder}/images_step{step}.npy"), inputs, step)
        sum(losses).backward()
        assert [row.flatten().tolist() for row in drawn] == [
            recorded["neg_image_for_text"],
            recorded["neg_text_for_image"],
        ]
        close(torch.stack(losses), torch.tensor(list(recorded["losses"].values())))
        # In one process both kinds of negatives agree, so that full gradients are recorded once.
        full = {"pretrain": "expected_grads_step1", "same_rank": "same_rank_expected_grads_step1"}.get(case)
        full = golden(f"{folder}/{full}.safetensors") if full and step == 1 else None
        check_gradients(model, recorded["grad_l2"], full)

        state = model.state_dict()
        for name, values in recorded["momentum"].items():
            if name not in state:
                assert name.endswith("position_ids")
                continue
            assert state[name].double().sum().item() == pytest.approx(values["sum"], rel=1e-5, abs=1e-4), name
            assert state[name].double().norm().item() == pytest.approx(values["l2"], rel=1e-6), name
        for name, values in arrays(f"{folder}/{prefix}_buffers_step{step}.npz").items():
            close(state[name], values)


def test_the_decoder_shares_what_it_should(tiny, facts):
    state = blip_pretrain(**tiny, **SIZES).state_dict(keep_vars=True)
    groups = [
        [key for key in group if "position_ids" not in key]
        for group in facts("pretrain/tied_keys.json")["shared_storage_groups"]
    ]
    by_storage = {}
    for key, tensor in state.items():
        by_storage.setdefault(tensor.data_ptr(), []).append(key)
    ours = {frozenset(keys) for keys in by_storage.values() if len(keys) > 1}
    assert ours == {frozenset(group) for group in groups if group}


def test_the_state_has_the_keys_and_shapes_of_the_checkpoints(tiny, facts):
    for folder, build in (("pretrain", blip_pretrain), ("retrieval", blip_retrieval)):
        state = build(**tiny, **SIZES).state_dict()
        expected = {k: v for k, v in facts(f"{folder}/state_dict_keys.json").items() if "position_ids" not in k}
        assert {key: list(value.shape) for key, value in state.items()} == expected


def _two_processes(rank, store, case, checkpoint, tiny, images, inputs, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=2)
    torch.multinomial = most_probable
    build, options = {
        "pretrain": (blip_pretrain, {}),
        "retrieval_same_rank": (blip_retrieval, {}),
        "retrieval_all_rank": (blip_retrieval, {"negative_all_rank": True}),
    }[case]
    model = build(checkpoint, **tiny, **SIZES, **options).eval()
    mine = slice(2 * rank, 2 * rank + 2)
    arguments = [images[mine], inputs["captions_step1"][mine], inputs["alpha_step1"]]
    if case != "pretrain":
        arguments.append(torch.tensor(inputs["idx"][mine]))
    losses = model(*arguments)
    sum(losses).backward()
    grads = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
    norms = {name: grad.double().norm().item() for name, grad in grads.items()}
    means = {}
    for name, grad in grads.items():
        mean = grad.double()
        dist.all_reduce(mean)
        means[name] = (mean / 2).norm().item()
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers() if "queue" in name}
    torch.save(
        {"losses": [loss.item() for loss in losses], "norms": norms, "means": means, "buffers": buffers},
        f"{out}.{rank}",
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("case", ["pretrain", "retrieval_same_rank", "retrieval_all_rank"])
def test_two_processes(case, golden, tiny, arrays, facts, close, tmp_path):
    folder = case.split("_")[0]
    inputs = {**facts(f"{folder}/inputs.json"), **facts("two_processes/inputs.json")}
    arguments = (str(golden(f"{folder}/checkpoint.pth")), {**tiny, "med_config": str(tiny["med_config"])})
    images = arrays(f"{folder}/images_step1.npy")
    mp.spawn(_two_processes, (tmp_path / "store", case, *arguments, images, inputs, tmp_path / "out"), nprocs=2)
    expected = facts("two_processes/expected.json")[case]
    buffers = arrays("two_processes/expected_buffers.npz")
    for rank in (0, 1):
        got = torch.load(f"{tmp_path}/out.{rank}")
        recorded = expected[f"rank{rank}"]
        close(torch.tensor(got["losses"]), torch.tensor(list(recorded["losses"].values())))
        for norms, kind in ((recorded["grad_l2_local"], "norms"), (expected["grad_l2_mean_over_ranks"], "means")):
            wanted = {name: norm for name, norm in norms.items() if norm is not None}
            assert set(got[kind]) == set(wanted)
            for name, norm in wanted.items():
                assert got[kind][name] == pytest.approx(norm, rel=1e-4, abs=2e-6), name
        for name, values in got["buffers"].items():
            close(values, buffers[f"{case}__{name}"])


def test_a_queue_that_is_no_multiple_of_the_batch_wraps(tiny):
    model = blip_retrieval(**tiny, **{**SIZES, "queue_size": 5})
    rows = torch.arange(1.0, 4.0)[:, None].expand(3, 16)
    for step in range(3):
        model.enqueue(image_queue=rows + 3 * step, idx_queue=torch.arange(3)[:, None] + 3 * step)
    # 9 rows went into 5 places: row 6 wrapped to place 0.
    assert model.image_queue[0].tolist() == [6.0, 7.0, 8.0, 9.0, 5.0]
    assert model.idx_queue[0].tolist() == [5, 6, 7, 8, 4]
    assert model.ptr_queue.item() == 4


def test_a_batch_larger_than_the_queue_leaves_its_newest_rows(tiny):
    model = blip_retrieval(**tiny, **{**SIZES, "queue_size": 4})
    model.enqueue(image_queue=torch.arange(6.0)[:, None].expand(6, 16))
    assert sorted(model.image_queue[0].tolist()) == [2.0, 3.0, 4.0, 5.0]
    assert model.image_queue[0, model.ptr_queue.item() - 1] == 5.0


def test_negatives_follow_the_similarity_and_are_never_positives():
    torch.manual_seed(0)
    similarity = torch.tensor([[9.0, 1.0, 0.0], [0.0, 0.0, 0.0], [5.0, 5.0, 5.0]])
    positive = torch.tensor([[True, False, False], [False, True, False], [True, True, True]])
    draws = torch.stack([sample_negatives(similarity, positive)[0] for _ in range(4000)])
    assert sample_negatives(similarity, positive)[1].tolist() == [True, True, False]
    assert set(draws[:, 0].tolist()) == {1, 2}
    share = (draws[:, 0] == 1).float().mean().item()
    assert share == pytest.approx(torch.tensor([1.0, 0.0]).softmax(0)[0].item(), abs=0.03)
    assert (draws[:, 1] == 0).float().mean().item() == pytest.approx(0.5, abs=0.03)


def test_negatives_exist_even_where_their_probability_underflows():
    similarity = torch.tensor([[1000.0, 0.0, -1.0]])
    positive = torch.tensor([[True, False, False]])
    column, exists = sample_negatives(similarity, positive)
    assert exists.item()
    assert column.item() in (1, 2)


@pytest.mark.parametrize("floor", [0.0, 1e-4])
def test_a_similarity_that_is_no_number_is_left_to_the_loss(floor):
    similarity = torch.tensor([[float("nan"), 1.0, 0.0], [0.0, float("inf"), 0.0], [5.0, -50.0, 0.0]])
    column, _ = sample_negatives(similarity, torch.eye(3, dtype=torch.bool), floor)
    assert column[2].item() in (0, 1)


@pytest.mark.parametrize("build", [blip_pretrain, blip_retrieval])
def test_mixed_precision_draws_negatives_by_similarities_in_full_precision(build, tiny, arrays, monkeypatch):
    model = build(**tiny, **SIZES)
    dtypes = []

    def spy(similarity, *rest):
        dtypes.append(similarity.dtype)
        return sample_negatives(similarity, *rest)

    monkeypatch.setattr(sys.modules[type(model).__module__], "sample_negatives", spy)
    idx = () if build is blip_pretrain else (torch.arange(2),)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        model(arrays("pretrain/images_step1.npy")[:2], ["a dog", "a cat"], 0.4, *idx)
    assert dtypes == [torch.float32] * 2


@pytest.mark.parametrize("all_rank", [False, True])
def test_a_batch_of_one_image_leaves_the_negatives_out(golden, tiny, arrays, all_rank):
    model = blip_retrieval(str(golden("retrieval/checkpoint.pth")), **tiny, **SIZES, negative_all_rank=all_rank).eval()
    images = arrays("retrieval/images_step1.npy")[:2]
    captions = ["a dog runs", "two women with umbrellas"]
    loss_ita, loss_itm = model(images, captions, 0.4, torch.tensor([7, 7]))
    memory = model.text_encoder.project(model.visual_encoder(images))
    ids, mask = tokenize(model.tokenizer, captions, model.device, first_token=model.special.enc)
    logits = model.match_logits(memory, ids, mask)
    positives_only = torch.nn.functional.cross_entropy(logits, torch.ones(2, dtype=torch.long))
    torch.testing.assert_close(loss_itm, positives_only, rtol=0, atol=1e-6)
    (loss_ita + loss_itm).backward()
    assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)


def test_a_batch_of_one_sample_trains(golden, tiny, arrays):
    model = blip_pretrain(str(golden("pretrain/checkpoint.pth")), **tiny, **SIZES).eval()
    losses = model(arrays("pretrain/images_step1.npy")[:1], ["a dog runs"], 0.4)
    sum(losses).backward()
    assert all(loss.isfinite() for loss in losses)


def test_momentum_copies_start_equal_and_follow_slowly(tiny):
    model = blip_retrieval(**tiny, **SIZES)
    torch.nn.init.normal_(model.vision_proj.weight)
    model.reset_momentum()
    before = model.vision_proj.weight.clone()
    assert torch.equal(model.vision_proj_m.weight, before)
    with torch.no_grad():
        model.vision_proj.weight.add_(1.0)
    model.update_momentum()
    torch.testing.assert_close(model.vision_proj_m.weight, 0.995 * before + 0.005 * (before + 1.0))
    assert not any(p.requires_grad for p in model.visual_encoder_m.parameters())


def test_what_the_log_shows_of_matching(golden, tiny, arrays):
    model = blip_pretrain(str(golden("pretrain/checkpoint.pth")), **tiny, **SIZES).eval()
    with torch.no_grad():
        model.itm_head.weight.zero_()
        model.itm_head.bias.copy_(torch.tensor([1.0, 0.0]))  # always "no match"
    model(arrays("pretrain/images_step1.npy"), ["a dog", "a cat", "a car", "a tree"], 0.4)
    assert model.statistics["itm_accuracy_match"].item() == 0.0
    assert model.statistics["itm_accuracy_mismatch"].item() == 1.0
