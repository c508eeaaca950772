"""A rank that is late or gone is told to the others, within the timeout of the group."""

import datetime
import os
import subprocess
import sys
import time
from contextlib import suppress
from math import inf
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
from tests._distributed.ranks import begin, mesh_of, start
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

from torchjac.distributed import RankError, jacobian, local_jacobian, local_rows, together

#: Seconds after which the groups of this test give up
PATIENCE = 3


def leave(rank, folder):
    """Rank 1 is late for one group, silent in the next, and dies; rank 0 writes what it is told."""
    begin(rank, 2, folder, datetime.timedelta(seconds=PATIENCE))
    late, silent, dies = (mesh_of(2, datetime.timedelta(seconds=PATIENCE)) for _ in range(3))
    x = torch.randn(6)
    J, K = (jacobian(lambda x: x.roll(1), mesh)(x) for mesh in (dies, silent))
    v, w = (distribute_tensor(x, mesh, [Shard(0)]) for mesh in (dies, silent))
    _ = J @ v, K @ w  # the plans of the halos are made
    told = {}

    def f(x):
        if rank == 1:
            time.sleep(PATIENCE + 2)
        return x.sin()

    def attempt(name, call):
        with pytest.raises(RankError) as caught:
            call()
        told[name] = str(caught.value)

    if rank == 1:  # it never multiplies by K
        with suppress(RankError):  # what rank 0 sent before it gave up may have come
            jacobian(f, late)(x)
        os._exit(0)
    attempt("late", lambda: jacobian(f, late)(x))
    attempt("silent", lambda: K @ w)
    attempt("gone", lambda: J @ v)
    attempt("still gone", lambda: J.norm(inf))
    torch.save(told, folder / "told")
    os._exit(0)


def test_late_and_gone(tmp_path):
    """It is told each time, and the test ends: without its timeout a group waits for half an hour."""
    context = start(leave, 2, tmp_path)
    while not context.join(timeout=100):
        pass
    told = torch.load(tmp_path / "told", weights_only=True)
    for name in ("late", "silent", "gone", "still gone"):
        assert "is gone, or did not answer within the timeout" in told[name]
        assert "torch.distributed says" in told[name]


#: A process that uses a group and leaves it, then counts gloo's threads
LEFT = """
from pathlib import Path
import torch, torchjac.distributed as sharded, torch.distributed as dist
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor

def work(mesh):
    x = distribute_tensor(torch.ones(6), mesh, [Shard(0)])
    return sharded.jacobian(lambda x: x.roll(1) * x, mesh)(torch.ones(6)) @ x

dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
work(init_device_mesh("cpu", (1,)))
dist.destroy_process_group()
print(sum("gloo" in (task / "comm").read_text() for task in Path("/proc/self/task").iterdir()))
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="threads are listed on Linux")
def test_no_thread_outlives_the_group():
    """What products hold of a group goes with it: gloo's threads end before the interpreter does."""
    done = subprocess.run(
        [sys.executable, "-c", LEFT], capture_output=True, text=True, timeout=100, check=True
    )
    assert done.stdout.strip() == "0"


@pytest.fixture
def mesh():
    """A mesh of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    yield init_device_mesh("cpu", (1,))
    dist.destroy_process_group()


def test_refused_meshes(mesh):
    """What is no mesh, and one of two dims, are told."""
    with pytest.raises(TypeError, match="must be a DeviceMesh of one dim, got int"):
        jacobian(torch.sin, 4)
    with pytest.raises(ValueError, match=r"must have one dim, got \(1, 1\)"):
        local_rows(4, init_device_mesh("cpu", (1, 1)))
    with pytest.raises(TypeError, match="got str"):
        with together("cpu"):
            pass


def test_a_halo_is_asked_for():
    """By what makes one."""
    with pytest.raises(TypeError, match=r"halo must be a Halo, got Tensor; Halo\(mesh, shape, read\)"):
        local_jacobian(torch.sin, torch.ones(3))
