"""What the ranks of a group do in tests: each program checks a sharded Jacobian against that of one process."""

from __future__ import annotations

from contextlib import contextmanager
from importlib.util import find_spec
from math import inf
from unittest.mock import patch

import pytest
import torch
import torch.distributed as dist
from tests._distributed.ranks import MOST
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, Subset

import torchjac
from torchjac import accumulate, functional_call
from torchjac.distributed import (
    Halo,
    RankError,
    ShardedJacobian,
    jacobian,
    local_jacobian,
    local_rows,
    together,
    value_and_local_jacobian,
)

DOUBLE = torch.float64


def close(given, expected):
    """Equal to 1e-12; DTensors are gathered."""
    given = given.full_tensor() if isinstance(given, DTensor) else given
    torch.testing.assert_close(given, expected, rtol=1e-12, atol=1e-12)


def randn(*shape):
    """The same numbers on every rank."""
    return torch.randn(*shape, dtype=DOUBLE)


def spread_out(tensor, mesh):
    """The DTensor cut along its first dim; nothing is exchanged, as every rank has the whole."""
    return distribute_tensor(tensor, mesh, [Shard(0)], src_data_rank=None)


@contextmanager
def counted():
    """The numbers sent to other ranks; any other exchange than messages between two fails."""
    sent = []
    real = dist.P2POp

    def operation(op, tensor, *args, **kwargs):
        if op is dist.isend:
            sent.append(tensor.numel())
        return real(op, tensor, *args, **kwargs)

    def refuse(*_, **__):
        raise AssertionError("more than halos is exchanged")

    others = ("all_reduce", "all_gather", "all_gather_object", "all_to_all_single", "broadcast")
    with patch.object(dist, "P2POp", operation):
        with patch.multiple(dist, **dict.fromkeys(others, refuse)):
            yield sent


def reaction(state, up, down):
    """Two fields on a grid with its lines first, (lines, 2, width); neighbours up and down are given."""
    u, v = state.unbind(1)
    around = up + down + state.roll(1, 2) + state.roll(-1, 2) - 4 * state
    return torch.stack([1 + u**2 * v - 4.4 * u, 3.4 * u - u**2 * v], 1) + 0.1 * around


def whole_reaction(state):
    """On the whole grid, a torus."""
    return reaction(state, state.roll(1, 0), state.roll(-1, 0))


def local_reaction(state):
    """On some lines, the first and last of which are the halo's."""
    return reaction(state[1:-1], state[:-2], state[2:])


def halo_of(mesh, shape):
    """This rank's lines and one on each side; nothing on a rank without lines."""
    rows = local_rows(shape[0], mesh)
    around = range(rows.start - 1, rows.stop + 1) if rows else ()
    return Halo(mesh, shape, [line % shape[0] for line in around])


def check_all(J, expected, mesh):
    """Everything that can be asked of a sharded Jacobian, against the plain one, that is; gives ``J @ v``."""
    dense = expected.to_dense()
    matrix = dense.reshape(*(torch.Size(shape).numel() for shape in (expected.out_shape, expected.in_shape)))
    v, u = randn(*expected.in_shape), randn(*expected.out_shape)
    product = J @ spread_out(v, mesh)
    assert product.placements == (Shard(0),)
    assert (J.out_shape, J.in_shape) == (expected.out_shape, expected.in_shape)
    assert J.rows == local_rows(J.out_shape[0], mesh)
    close(product, expected @ v)
    close(spread_out(u, mesh) @ J, u @ expected)
    assert (spread_out(u, mesh) @ J).placements == (Shard(0),)
    assert J.to_dense().placements == (Shard(0),)
    close(J.to_dense(), dense)
    close(J.to_sparse().to_dense(), dense[J.rows.start : J.rows.stop].reshape(J.to_sparse().shape))
    assert J.nnz == expected.nnz
    close(torch.tensor(J.norm(), dtype=DOUBLE), matrix.norm())
    close(torch.tensor(J.norm(1), dtype=DOUBLE), torch.cat([matrix.abs().sum(0), randn(1) * 0]).max())
    close(torch.tensor(J.norm(inf), dtype=DOUBLE), torch.cat([matrix.abs().sum(1), randn(1) * 0]).max())
    weight = u.abs()
    for W in (None, weight):
        G = J.gram(None if W is None else spread_out(W, mesh))
        whole = matrix.T @ (torch.ones_like(weight) if W is None else W).reshape(-1, 1).mul(matrix)
        close(G @ spread_out(v, mesh), (whole @ v.flatten()).reshape(v.shape))
        close(G.diagonal(), whole.diagonal().reshape(v.shape))
        close(spread_out(v, mesh) @ G.add_diagonal(2.0), (whole @ v.flatten()).reshape(v.shape) + 2 * v)
    if J.out_shape == J.in_shape:
        close(J.diagonal(), expected.diagonal())
        close((-0.5 * J).add_diagonal(1).diagonal(), 1 - 0.5 * expected.diagonal())
        close((-0.5 * J).add_diagonal(1) @ spread_out(v, mesh), v - 0.5 * (expected @ v))
    return product.full_tensor()


def _flat(J):
    inner = (
        J.out_shape[1:].numel() if hasattr(J.out_shape[1:], "numel") else torch.Size(J.out_shape[1:]).numel()
    )
    return slice(J.rows.start * inner, J.rows.stop * inner)


def whole(mesh):
    """A function that every rank runs whole, on seven lines and on two, so that some ranks have none."""
    found = []
    for lines in (7, 2):
        x = randn(lines, 2, 5)
        J = jacobian(whole_reaction, mesh)(x)
        found.append(check_all(J, torchjac.jacobian(whole_reaction)(x), mesh))
        assert J.halo.received <= 2 * 2 * 5
    return found


def local(mesh):
    """The same from lines with halos."""
    found = []
    for lines in (7, 2):
        x = randn(lines, 2, 5)
        value, J = value_and_local_jacobian(local_reaction, halo_of(mesh, x.shape))(spread_out(x, mesh))
        close(value, whole_reaction(x))
        found.append(check_all(J, torchjac.jacobian(whole_reaction)(x), mesh))
    return found


def halos_only(mesh):
    """Products send two lines to each neighbour, and nothing else; finding the whole one sends one number."""
    x = randn(8, 2, 5)
    v = spread_out(x, mesh)
    for J in (jacobian(whole_reaction, mesh)(x), local_jacobian(local_reaction, halo_of(mesh, x.shape))(v)):
        _ = J.halo, J.gram().diagonal()
        lines = {1: 0, 2: 2, 3: 2, 4: 2}[mesh.size()]
        assert J.halo.sent == J.halo.received == lines * 10
        for product, times in ((lambda J=J: J @ v, 1), (lambda J=J: v @ J, 1), (lambda J=J: J.gram() @ v, 2)):
            with counted() as sent:
                product()
            assert sum(sent) == times * lines * 10
        with counted() as sent:
            J.to_dense(), J.diagonal(), J.to_sparse()
        assert sent == []


def tables(mesh):
    """Gathers at random, from nine entries to five rows: the entries read are exchanged, not the lines they are in."""
    at = torch.randint(9, (5, 3))
    for f, shape in (
        (lambda x: x[at].sin() * x[at.flip(0)], (9,)),
        (lambda x: x[at[:, :2].flatten() % 4, at.flatten()[:10] % 3][None] ** 2, (4, 3)),
    ):
        x = randn(*shape)
        J, expected = jacobian(f, mesh)(x), torchjac.jacobian(f)(x)
        check_all(J, expected, mesh)
        rows = expected.to_dense()[J.rows.start : J.rows.stop].reshape(-1, x.numel())
        own = local_rows(shape[0], mesh)
        inner = x[0].numel()
        read = set(rows.abs().sum(0).nonzero().flatten().tolist())
        assert J.halo.received == len(read - set(range(own.start * inner, own.stop * inner)))


def scattered(mesh):
    """An unstructured mesh: each node reads six others at random, some of them twice, and so do vectors at nodes."""
    n, scale = 30, randn(6)
    reads = torch.randint(n, (n, 6))
    for shape in ((n,), (n, 2)):
        x, rows = randn(*shape), local_rows(n, mesh)
        law = lambda read: (read**2 * scale.view(6, *(1,) * len(shape[1:]))).sum(1)
        halo = Halo(mesh, shape, reads[rows.start : rows.stop].flatten())
        assert torch.equal(halo.gather(spread_out(x, mesh)), x[reads[rows.start : rows.stop].flatten()])
        value, J = value_and_local_jacobian(lambda read: law(read.unflatten(0, (-1, 6))), halo)(
            spread_out(x, mesh)
        )
        close(value, law(x[reads]))
        check_all(J, torchjac.jacobian(lambda x: law(x[reads]))(x), mesh)
        assert set(J.halo.columns().tolist()) <= set(range(x.numel()))
        others = set(reads[rows.start : rows.stop].flatten().tolist()) - set(rows)
        assert halo.received == len(others) * x[0].numel()


def empties(mesh):
    """Sizes 0 and 1: inputs and outputs without entries, one entry by one."""
    for f, shape in (
        (torch.sin, (0,)),
        (lambda x: x.sum(1), (4, 0)),
        (lambda x: x[:0], (3,)),
        (lambda x: x.exp()[:, None], (1,)),
    ):
        x = randn(*shape)
        check_all(jacobian(f, mesh)(x), torchjac.jacobian(f)(x), mesh)
        around = Halo(mesh, shape, local_rows(shape[0], mesh))
        if shape == (4, 0) or shape == (1,):
            rows = f(x).shape
            J = local_jacobian(f, around, rows)(spread_out(x, mesh))
            check_all(J, torchjac.jacobian(f)(x), mesh)


def trees(mesh):
    """Several outputs and inputs, dense, of low rank, one that an output does not depend on; a DTensor as argument."""
    narrow, wide = randn(2, 6), randn(5, 2)

    def f(parameters, scale):
        x = parameters["x"]
        return [(wide @ (narrow @ x).tanh()) * scale, x.softmax(0)[:, None] * parameters["y"]]

    parameters = {"x": randn(6), "y": randn(3)}
    expected = torchjac.jacobian(f)(parameters, 2.0)
    for given in (parameters, {"x": spread_out(parameters["x"], mesh), "y": parameters["y"]}):
        found = jacobian(f, mesh)(given, scale=2.0)
        assert isinstance(found, list)
        for each, plain in zip(found, expected, strict=True):
            assert set(each) == {"x", "y"}
            for name in each:
                assert isinstance(each[name], ShardedJacobian)
                check_all(each[name], plain[name], mesh)
    both = jacobian(lambda x, y: x * y, mesh, argnums=(0, 1))(randn(4), randn(4))
    assert isinstance(both, tuple)


def storage(mesh):
    """What a rank keeps is its part: the values do not keep those of the whole alive."""
    x = randn(64)
    J = jacobian(lambda x: x.sin().exp(), mesh)(x)
    storages = [block.value.untyped_storage() for block in J.local.blocks]
    held = {each.data_ptr(): each.nbytes() for each in storages}
    assert sum(held.values()) == 8 * len(J.rows)


def solves(mesh):
    """Each method with each preconditioner solves to what a dense solver gives; a residual that is too long is told."""
    x = randn(7, 2, 5)
    expected = torchjac.jacobian(whole_reaction)(x)
    A = torch.eye(70, dtype=DOUBLE) - 0.1 * expected.to_dense().reshape(70, 70)
    b = randn(7, 2, 5)
    J = jacobian(whole_reaction, mesh)(x)
    step = (-0.1 * J).add_diagonal(1)
    right = spread_out(b, mesh)
    answer = torch.linalg.solve(A, b.flatten()).reshape(b.shape)
    for solver in ("gmres", "bicgstab"):
        for preconditioner in (None, "jacobi", "block-jacobi"):
            found = step.solve(right, solver, preconditioner, tolerance=1e-13)
            assert found.placements == (Shard(0),)
            close(found, answer)
    normal = J.gram().add_diagonal(1.0)
    M = expected.to_dense().reshape(70, 70)
    answer = torch.linalg.solve(M.T @ M + torch.eye(70, dtype=DOUBLE), b.flatten()).reshape(b.shape)
    for preconditioner in (None, "jacobi"):
        close(normal.solve(right, "cg", preconditioner, tolerance=1e-13), answer)
    symmetric = lambda x: 4 * x - x.roll(1) - x.roll(-1)
    J = jacobian(symmetric, mesh)(randn(9))
    b = randn(9)
    answer = torch.linalg.solve(torchjac.jacrev(symmetric)(b), b)
    for preconditioner in ("jacobi", "block-jacobi"):
        close(J.solve(spread_out(b, mesh), "cg", preconditioner, tolerance=1e-13), answer)
    close(J.solve(spread_out(b * 0, mesh)), b * 0)
    with pytest.raises(
        torch.linalg.LinAlgError, match="cg did not converge in 2 products, its relative residual is"
    ):
        J.solve(spread_out(b, mesh), "cg", max_products=2)
    with pytest.raises(torch.linalg.LinAlgError, match="did not converge any further"):
        J.solve(spread_out(b, mesh), "cg", tolerance=1e-18)
    with pytest.raises(torch.linalg.LinAlgError, match="not positive definite"):
        (-J).solve(spread_out(b, mesh), "cg")
    zero = jacobian(lambda x: 0 * x, mesh)(b)
    for solver in ("cg", "gmres", "bicgstab"):
        with pytest.raises(torch.linalg.LinAlgError, match="did not converge"):
            zero.solve(spread_out(b, mesh), solver)
    for name, said in (("jacobi", "the diagonal has a zero"), ("block-jacobi", "is singular")):
        with pytest.raises((torch.linalg.LinAlgError, RankError), match=said):
            zero.solve(spread_out(b, mesh), "gmres", name)


def precisions(mesh):
    """Products, norms and solutions in float32 and in half precision, to their rounding."""
    f = lambda x: 4 * x - x.roll(1) - x.roll(-1)
    for dtype, eps in ((torch.float32, 1e-5), (torch.float16, 5e-3), (torch.bfloat16, 5e-2)):
        x = torch.randn(9).to(dtype)
        J, v = jacobian(f, mesh)(x), spread_out(x, mesh)
        expected = torchjac.jacobian(f)(x)
        assert J.to_dense().dtype == dtype
        for found, plain in (
            ((J @ v), expected @ x),
            ((v @ J), x @ expected),
            (J.diagonal(), expected.diagonal()),
        ):
            torch.testing.assert_close(found.full_tensor(), plain, rtol=eps, atol=eps)
        assert abs(J.norm(inf) - 6) < 1e-6
        if dtype is torch.float32:
            solved = J.solve(v, "cg", "block-jacobi", tolerance=1e-6).full_tensor()
            torch.testing.assert_close(expected @ solved, x, rtol=1e-5, atol=1e-5)
        else:
            with pytest.raises(TypeError, match="float32 or float64"):
                J.solve(v)


def refused(mesh):
    """What does not fit is told, with what is needed."""
    J = jacobian(lambda x: x[:, None] * torch.ones(2, dtype=DOUBLE), mesh)(randn(6))
    v = spread_out(randn(6), mesh)
    for given, error, said in (
        (randn(6), TypeError, "must be a DTensor of shape .* got Tensor"),
        (spread_out(randn(5), mesh), ValueError, "must have shape"),
        (spread_out(randn(6).float(), mesh), ValueError, "torch.float64, got"),
        (v.redistribute(placements=[torch.distributed.tensor.Replicate()]), ValueError, "redistribute"),
    ):
        with pytest.raises(error, match=said):
            J @ given
    for call in (J.diagonal, lambda: J.solve(v), lambda: J.add_diagonal(1.0), J.to_dsparse):
        with pytest.raises(ValueError, match="must have the same shape"):
            call()
    square = jacobian(torch.sin, mesh)(randn(6))
    with pytest.raises(ValueError, match=r"solver must be one of .* got 'lu'"):
        square.solve(v, "lu")
    with pytest.raises(ValueError, match=r"preconditioner must be one of .* got 'ilu'"):
        square.solve(v, "cg", "ilu")
    with pytest.raises(ValueError, match="ord must be"):
        square.norm(2)
    with pytest.raises(NotImplementedError, match="block-jacobi"):
        square.gram().solve(v, "cg", "block-jacobi")
    with pytest.raises(ValueError, match=r"positions must be in \[0, 6\), got \[6, -1\]"):
        Halo(mesh, (6,), [0, 6, -1])
    with pytest.raises(ValueError, match="without dims"):
        Halo(mesh, (), [])
    with pytest.raises(ValueError, match="an output has no dims"):
        jacobian(torch.sum, mesh)(randn(6))
    with pytest.raises(ValueError, match="an input has no dims"):
        jacobian(lambda x: x * torch.ones(3, dtype=DOUBLE), mesh)(randn(1)[0])
    around = Halo(mesh, (6,), local_rows(6, mesh))
    with pytest.raises((ValueError, RankError), match="must give this rank's rows"):
        local_jacobian(lambda x: x[:0], around)(v)


def one_fails(mesh):
    """Where a rank raises, it raises its own error and the others one with its message; then the group goes on."""
    failing = mesh.size() - 1
    me = mesh.get_local_rank()

    def f(x):
        if me == failing:
            raise ValueError("the boiler is cold")
        return x.sin()

    x = randn(5)
    rows = local_rows(5, mesh)
    data = [(randn(3),)] * 2
    work = [
        lambda: jacobian(f, mesh)(x),
        lambda: accumulate.sums(lambda p, x: f(p * x), x[:3], data, mesh=mesh),
    ]
    if mesh.size() < 4:  # of 2 + 2 + 1 + 0 rows the last rank has none, and does not call it
        work.append(lambda: local_jacobian(f, Halo(mesh, (5,), rows))(spread_out(x, mesh)))
    for call in work:
        error, said = (
            (ValueError, "^the boiler is cold") if me == failing else (RankError, f"rank {failing} of")
        )
        with pytest.raises(error, match=said) as caught:
            call()
        assert "the boiler is cold" in str(caught.value)
    with together(mesh):
        pass
    close(jacobian(torch.sin, mesh)(x).diagonal(), x.cos())


def sums(mesh):
    """The sums over ranks are those of one process, and each rank goes on from its own checkpoint."""
    from tests._distributed.test_sums import N, blocks_of, network

    func, parameters, data = network()
    of = ("gram", "gradient", "diagonal")
    expected = accumulate.sums(func, parameters, DataLoader(data, batch_size=3), of, weight=blocks_of)
    mine = Subset(data, range(mesh.get_local_rank(), N, mesh.size()))
    with patch.object(dist, "all_reduce", wraps=dist.all_reduce) as reduced, counted() as sent:
        dist.all_reduce = reduced  # the one exchange that is allowed
        found = accumulate.sums(
            func, parameters, DataLoader(mine, batch_size=2), of, weight=blocks_of, mesh=mesh
        )
    assert (reduced.call_count, sent) == (1, [])
    for given, whole in zip(found[:3], expected[:3], strict=True):
        close(given, whole)
    assert found.batches == sum(-(-len(range(rank, N, mesh.size())) // 2) for rank in range(mesh.size()))
    from tests._distributed.test_sums import cameras

    residuals, cameras_and_points, pairs = cameras()
    expected = accumulate.sums(residuals, cameras_and_points, pairs)
    mine = pairs[mesh.get_local_rank() : 3 : mesh.size()] + pairs[3:] * (not mesh.get_local_rank())
    found = accumulate.sums(residuals, cameras_and_points, mine, layout=torch.sparse_coo, mesh=mesh)
    close(found.gram.to_dense(), expected.gram)
    close(found.gradient, expected.gradient)
    tiles = list(accumulate.kernel_tiles(func, parameters, DataLoader(data, batch_size=3), mesh=mesh))
    assert [tile.number for tile in tiles] == list(range(10))[mesh.get_local_rank() :: mesh.size()]


def network(seed=3):
    """A small network of two layers."""
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 6), nn.Tanh(), nn.Linear(6, 2)).to(DOUBLE)


def modules(mesh):
    """Under DDP by inputs and parameters; sharded parameters of FSDP2 give sharded Jacobians, its module is refused."""
    plain, x = network(), randn(5, 3)
    by_parameters = lambda parameters: functional_call(plain, parameters, (x,))
    by_input = torchjac.jacobian(plain)(x)
    expected = torchjac.jacobian(by_parameters)(dict(plain.named_parameters()))
    parallel = DistributedDataParallel(network(), process_group=mesh.get_group())
    for _ in range(2):  # a forward pass without a backward pass must not spoil the next
        close(torchjac.jacrev(parallel)(x), by_input.to_dense())
        close(torchjac.jacobian(parallel)(x).to_dense(), by_input.to_dense())
        check_all(jacobian(parallel, mesh)(x), by_input, mesh)
    found = jacobian(lambda p: functional_call(parallel, p, (x,)), mesh)(dict(parallel.named_parameters()))
    for name, J in found.items():
        check_all(J, expected[name.removeprefix("module.")].detach(), mesh)
    parallel(x).sum().backward()
    close(parallel.module[2].bias.grad, torch.full((2,), 5.0, dtype=DOUBLE))
    sharded = network()
    fully_shard(sharded, mesh=mesh)
    close(torchjac.jacrev(sharded)(x), by_input.to_dense())
    parameters = dict(sharded.named_parameters())
    assert all(isinstance(parameter, DTensor) for parameter in parameters.values())
    for name, J in jacobian(by_parameters, mesh)(parameters).items():
        check_all(J, expected[name].detach(), mesh)
        # a vector like the parameter goes in, and one like it comes out
        assert (J @ parameters[name]).placements == (Shard(0),)
        cotangent = spread_out(randn(5, 2), mesh)
        assert (cotangent @ J).to_local().shape == parameters[name].to_local().shape
    for call in (
        lambda: jacobian(sharded, mesh)(x),
        lambda: jacobian(lambda p: functional_call(sharded, p, (x,)), mesh)(parameters),
    ):
        with pytest.raises(NotImplementedError, match="a module sharded by FSDP"):
            call()
    with torch.no_grad():
        close(sharded(x), plain(x))
    for transform in (torchjac.jacrev, torchjac.jacobian, torchjac.hessian, torchjac.jacfwd):
        with pytest.raises(
            NotImplementedError, match=r"DTensor of shape \(6,\).*torchjac.distributed.jacobian"
        ):
            transform(torch.sin)(spread_out(randn(6), mesh))
    with pytest.raises(NotImplementedError, match="a differentiated output is a DTensor"):
        torchjac.jacrev(lambda x: DTensor.from_local(x, mesh, [Shard(0)]))(randn(2))


def receivers(mesh):
    """PETSc's and torch-sla's matrices multiply as ours do; where a package is missing, the error names it."""
    x, v = randn(7, 2, 5), randn(7, 2, 5)
    J = jacobian(whole_reaction, mesh)(x)
    mine = spread_out(v, mesh).to_local().flatten()
    product = (J @ spread_out(v, mesh)).to_local().flatten()
    if find_spec("torch_sla") is None:
        with pytest.raises(ImportError, match="pip install torch-sla"):
            J.to_dsparse()
    elif mesh.size() == MOST:  # it talks to ranks of the whole group
        found = J.to_dsparse() @ DTensor.from_local(mine, mesh, [Shard(0)])
        close(found.to_local(), product)
    if find_spec("petsc4py") is None:
        with pytest.raises(ImportError, match="apt install python3-petsc4py"):
            J.to_petsc()
    elif mesh.size() > 1:  # these processes were not started by mpirun
        with pytest.raises(ValueError, match=f"has 1 processes, the mesh {mesh.size()} ranks"):
            J.to_petsc()
    else:
        A = J.to_petsc()
        right, left = A.createVecs()
        right.setArray(mine.numpy())
        A.mult(right, left)
        close(torch.from_numpy(left.getArray()), product)


PROGRAMS = {
    program.__name__: program
    for program in (
        whole,
        local,
        halos_only,
        tables,
        scattered,
        empties,
        trees,
        storage,
        solves,
        precisions,
        refused,
        one_fails,
        sums,
        modules,
        receivers,
    )
}
