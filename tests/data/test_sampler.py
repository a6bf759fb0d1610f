"""Batches are a pure function of seed, epoch, rank and position."""

import pytest

from data.order import in_one_lane, listed, shuffled
from data.sampler import EvalSampler, TrainSampler


def order(epoch):
    return in_one_lane(103, lambda: listed(103, (7, epoch)))


def test_global_batches_of_two_processes_are_those_of_one_with_twice_the_batch():
    one = list(TrainSampler(order, 8))
    two = zip(TrainSampler(order, 4, rank=0, world_size=2), TrainSampler(order, 4, rank=1, world_size=2), strict=True)
    assert [first + second for first, second in two] == one
    assert len(one) == len(TrainSampler(order, 8)) == 12
    indices = [index for batch in one for _, index in batch]
    assert len(set(indices)) == 96


def test_epochs_have_their_own_order_and_seeds_too():
    sampler = TrainSampler(order, 8)
    first = list(sampler)
    sampler.set_epoch(1)
    second = list(sampler)
    assert {epoch for batch in second for epoch, _ in batch} == {1}
    assert [i for batch in first for _, i in batch] != [i for batch in second for _, i in batch]
    assert shuffled(103, (8, 0)).tolist() != shuffled(103, (7, 0)).tolist()


def test_an_epoch_resumes_at_any_batch():
    sampler = TrainSampler(order, 8)
    sampler.set_epoch(3)
    whole = list(sampler)
    sampler.set_epoch(3, start_batch=5)
    assert list(sampler) == whole[5:]
    assert len(sampler) == len(whole)


@pytest.mark.parametrize("batches_per_step", [1, 2, 3, 5, 7, 12])
def test_an_epoch_ends_with_its_last_whole_step(batches_per_step):
    whole = list(TrainSampler(order, 8))
    one, *two = [TrainSampler(order, 8 // of, rank, of) for rank, of in ((0, 1), (0, 2), (1, 2))]
    for sampler in (one, *two):
        sampler.set_epoch(0, batches_per_step=batches_per_step)
    used = 12 // batches_per_step * batches_per_step
    assert list(one) == whole[:used] == [first + second for first, second in zip(*two, strict=True)]
    assert [len(sampler) for sampler in (one, *two)] == [used] * 3
    one.set_epoch(0, used - batches_per_step, batches_per_step)
    assert list(one) == whole[used - batches_per_step : used]
    one.set_epoch(0, used, batches_per_step)
    assert (list(one), len(one)) == ([], used)


def test_a_set_smaller_than_a_step_says_so():
    with pytest.raises(ValueError, match=r"103 samples, fewer than one step takes .batch size 60 on 2 process"):
        TrainSampler(order, 60, world_size=2)
    sampler = TrainSampler(order, 8)
    with pytest.raises(ValueError, match=r"accumulation_steps 13\): lower the batch size or accumulation_steps"):
        sampler.set_epoch(1, batches_per_step=13)


@pytest.mark.parametrize("world_size", [1, 2, 3, 8])
@pytest.mark.parametrize("size", [0, 1, 5, 64, 101])
def test_evaluation_shares_hold_each_index_once_and_in_order(size, world_size):
    samplers = [EvalSampler(size, 4, rank, world_size) for rank in range(world_size)]
    batches = [list(sampler) for sampler in samplers]
    assert [len(sampler) for sampler in samplers] == [len(batch) for batch in batches]
    assert [index for share in batches for batch in share for index in batch] == list(range(size))
    sizes = [sum(map(len, share)) for share in batches]
    assert max(sizes) - min(sizes) <= 1
