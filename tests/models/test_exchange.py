"""Processes fetch from each other what they drew, and nothing else, with the gradients of a gather of everything."""

import pytest
import torch
import torch.multiprocessing as mp

from tests.models.exchanging import draws_of, fetch, states_of, weights_of


@pytest.mark.parametrize("processes", [2, 4])
def test_drawn_rows_are_those_of_a_gather(processes, tmp_path):
    mp.spawn(fetch, (tmp_path / "store", processes, tmp_path / "out"), nprocs=processes)
    ranks = range(processes)
    states = [states_of(rank).requires_grad_() for rank in ranks]
    gathered = torch.cat(states)
    expected = [gathered[draws_of(rank, processes)] for rank in ranks]
    sum((rows * weights_of(rank)).sum() for rank, rows in enumerate(expected)).backward()
    sent = 0
    for rank in ranks:
        found = torch.load(f"{tmp_path}/out.{rank}")
        assert torch.equal(found["rows"], expected[rank])
        torch.testing.assert_close(found["grad"], states[rank].grad if states[rank].grad is not None else None)
        sent += found["sent"]
    assert sent == 3 * processes  # a row for each draw, where a gather sends all rows to all
