"""Sharded Jacobians on 1, 2, 3 and 4 ranks of a real process group are those of one process."""

import torch
from tests._distributed.programs import PROGRAMS
from tests._distributed.ranks import MOST, run_all


def test_programs(tmp_path):
    """Each program's own checks hold on every rank, and products have the same bits on any number of them.

    It is one test, as starting the processes takes most of its time.
    """
    found = run_all(PROGRAMS, tmp_path)
    failures = [
        f"{name} on {ranks} ranks, rank {rank}:\n{error}"
        for rank, each in enumerate(found)
        for (name, ranks), (_, error) in each.items()
        if error
    ]
    assert not failures, "\n".join(failures)
    assert {key for each in found for key in each} == {
        (name, ranks) for name in PROGRAMS for ranks in range(1, MOST + 1)
    }
    for name in ("whole", "local"):
        of = [found[0][name, ranks][0] for ranks in range(1, MOST + 1)]
        for products in zip(*of, strict=True):
            assert all(torch.equal(product, products[0]) for product in products)
