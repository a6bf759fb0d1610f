"""A sharded optimizer trains as one that every process has whole, in less memory, and leaves the same checkpoint."""

import random
import socket

import pytest
import torch
import torch.multiprocessing as mp

from engine.sharding import OptimizerShares, deal
from models.blip_pretrain import BLIPPretrain
from tests.engine.sharded import CASES, TOY, optimization, run


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Where both processes leave what they found, and the toy its files."""
    folder = tmp_path_factory.mktemp("sharded")
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    mp.spawn(run, (folder, port), nprocs=2)
    return folder


@pytest.fixture(scope="module")
def found(folder):
    """What both processes found of each case."""
    return [torch.load(folder / f"out.{rank}", weights_only=True) for rank in (0, 1)]


def assert_equal(one, two):
    assert one.keys() == two.keys()
    for key, value in one.items():
        if isinstance(value, dict):
            assert_equal(value, two[key])
        else:
            assert torch.equal(value, two[key]), key


@pytest.mark.parametrize("case", CASES)
def test_losses_norms_and_weights_are_those_of_a_whole_optimizer(found, case):
    for of_rank in found:
        whole, sharded = of_rank[case, False], of_rank[case, True]
        assert sharded["values"] == whole["values"]  # to the last bit, on every process
        assert_equal(sharded["weights"], whole["weights"])
        trained = [name for name in sharded["weights"] if "_m." not in name]
        for name in trained:
            assert torch.equal(sharded["weights"][name], found[0][case, True]["weights"][name])


def test_a_loss_that_is_broken_on_one_process_touches_no_weight_on_any(found):
    for of_rank in found:
        assert [value["broken"] for value in of_rank["broken", True]["values"]] == [0, 0, 1, 1]
    moments = found[0]["broken", True]["state"]["optimizer"]["state"]
    assert {moments[index]["step"].item() for index in moments} == {2}


@pytest.mark.parametrize("case", ["pretrain", "retrieval"])
def test_a_process_holds_the_moments_of_its_own_parameters_alone(found, case):
    whole = found[0][case, False]["held"]
    parameters = optimization(case, 0, 1, sharded=False).parameters
    assert whole == sum(4 * (2 * parameter.numel() + 1) for parameter in parameters)
    owners = deal([parameter.numel() for parameter in parameters], 2)
    for rank, of_rank in enumerate(found):
        own = [parameter for parameter, owner in zip(parameters, owners, strict=True) if owner == rank]
        assert of_rank[case, True]["held"] == sum(4 * (2 * parameter.numel() + 1) for parameter in own)
    assert sum(of_rank[case, True]["held"] for of_rank in found) == whole


@pytest.mark.parametrize(("processes", "most"), [(2, 0.5), (8, 0.125)])
def test_of_a_vit_l_in_pre_training_each_has_an_even_share(processes, most):
    with torch.device("meta"):
        model = BLIPPretrain(vit="large")
    sizes = [parameter.numel() for parameter in model.parameters() if parameter.requires_grad]
    shares = [
        sum(size for size, owner in zip(sizes, deal(sizes, processes), strict=True) if owner == rank)
        for rank in range(processes)
    ]
    assert max(shares) < 1.01 * most * sum(sizes)


@pytest.mark.parametrize("case", CASES)
def test_the_first_process_saves_the_state_of_a_whole_optimizer(found, case):
    whole, sharded = (found[0][case, sharded]["state"] for sharded in (False, True))
    assert list(sharded["optimizer"]["state"]) == list(whole["optimizer"]["state"])
    assert_equal(sharded["optimizer"]["state"], whole["optimizer"]["state"])
    assert sharded["optimizer"]["param_groups"] == whole["optimizer"]["param_groups"]
    assert sharded["scaler"] == whole["scaler"]


@pytest.mark.parametrize("case", ["pretrain", "retrieval", "fp16"])
@pytest.mark.parametrize("sharded", [True, False])
def test_what_one_saved_the_other_goes_on_from(found, case, sharded):
    for of_rank in found:
        assert_equal(of_rank[case, sharded]["resumed"], of_rank[case, sharded]["weights"])


def test_one_process_goes_on_from_what_two_saved(found):
    state = found[0]["pretrain", True]["state"]
    training = optimization("pretrain", 0, 1, sharded=True)
    training.load_state_dict(state)
    assert training.shares is None
    assert_equal(training.optimizer.state_dict()["state"], state["optimizer"]["state"])


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_every_parameter_has_one_owner_and_the_owners_have_about_as_much(processes):
    sizes = [random.Random(index).choice([768, 768 * 768, 4 * 768 * 768]) for index in range(200)] + [30524 * 768]
    owners = deal(sizes, processes)
    loads = [sum(size for size, owner in zip(sizes, owners, strict=True) if owner == rank) for rank in range(processes)]
    assert max(loads) <= sum(sizes) / processes + 768 * 768
    parameters = [torch.nn.Parameter(torch.empty(size, device="meta")) for size in sizes]
    shares = [OptimizerShares(parameters, rank, processes) for rank in range(processes)]
    owned = [index for share in shares for index in share.own(dict.fromkeys(range(len(sizes)), {}))]
    assert sorted(owned) == list(range(len(sizes)))


def test_two_processes_train_and_save_as_one_which_goes_on_with_their_file(folder, toy, tmp_path):
    """The weights of the toy are one process's, its bias the other's."""
    toy.main(["--output_dir", str(tmp_path), *TOY, "batch_size=8", "max_epoch=1"])
    for epochs in (1, 2):
        files = [torch.load(path / "checkpoint_last.pth", weights_only=True) for path in (tmp_path, folder / "toy")]
        one, two = ({"model": file["model"], "moments": file["optimizer"]["state"]} for file in files)
        torch.testing.assert_close(two, one)
        assert [file["step"] for file in files] == [6 * epochs] * 2
        for path in (tmp_path, folder / "toy"):
            toy.main(["--output_dir", str(path), *TOY, "batch_size=8", "max_epoch=2", "--resume"])


def test_one_process_says_that_there_is_nothing_to_share(toy, tmp_path, capsys):
    toy.main(["--output_dir", str(tmp_path), "max_epoch=1", "shard_optimizer=true", "tensorboard=false"])
    assert "shard_optimizer changes nothing: there is one process only" in capsys.readouterr().out
