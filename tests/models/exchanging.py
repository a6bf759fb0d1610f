"""What each of several processes runs in test_exchange.py. A module of its own, which a process imports quickly."""

import torch
import torch.distributed as dist

from models.exchange import DrawnRows

ROWS = 3


def states_of(rank):
    return torch.randn(ROWS, 4, 2, generator=torch.Generator().manual_seed(rank))


def draws_of(rank, processes):
    """With rows drawn twice, own ones, and in no order; nobody draws of the last rank."""
    numbers = torch.tensor([[4, 0, 4], [2, 2, 5], [1, 3, 0], [5, 4, 0]])[rank]
    return numbers.clamp(max=(processes - 1) * ROWS - 1)


def weights_of(rank):
    return torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(100 + rank))


def fetch(rank, store, processes, out):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=processes)
    states = states_of(rank).requires_grad_()
    sent = []
    send = dist.all_to_all_single

    def count(result, rows, *sizes):
        sent.append(len(rows))
        send(result, rows, *sizes)

    dist.all_to_all_single = count
    rows = DrawnRows(draws_of(rank, processes), ROWS).fetch(states)
    (rows * weights_of(rank)).sum().backward()
    torch.save({"rows": rows.detach(), "grad": states.grad, "sent": sent[0]}, f"{out}.{rank}")
    dist.destroy_process_group()
