"""Systems and determinants, by each kind of matrix."""

import copy
import gc
import math
import pickle
import weakref

import pytest
import torch
from tests._answers.cases import random_jacobians

import torchjac
from torchjac import jacobian
from torchjac._answers.solvers import system as system_module
from torchjac._blocks.pattern_cache import pattern_of

_FULL = (
    torch.eye(6, dtype=torch.float64) * 3 + torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6).sin()
)
_TABLE = torch.randperm(90, generator=torch.Generator().manual_seed(0))

#: Functions with as many outputs as inputs: the kind of their Jacobian and the input's shape.
SYSTEMS = {
    "pointwise": (lambda x: x.exp() * 2, "diagonal", (5,)),
    "pointwise, reshaped": (lambda x: (-x.exp()).reshape(6), "diagonal", (2, 3)),
    "one": (lambda x: x * 3, "diagonal", (1,)),
    "nothing": (lambda x: x * 3, "diagonal", (0,)),
    "batched layer": (lambda x: torch.tanh(x @ _FULL) + 5 * x, "block-diagonal", (4, 6)),
    "layer on the other side": (lambda x: torch.tanh(_FULL @ x), "block-diagonal", (6, 4)),
    "batch in the middle": (lambda x: (_FULL @ x.movedim(1, 2).reshape(6, 4)).reshape(2, 3, 4).movedim(2, 1) + x.sin(),
                            "block-diagonal", (2, 4, 3)),
    "batched and reshaped": (lambda x: (torch.tanh(x @ _FULL) + x).reshape(4, 2, 3), "block-diagonal", (4, 6)),
    "small and full": (lambda x: torch.tanh(x.reshape(6) @ _FULL) + x.reshape(6), "dense", (3, 2)),
    "permuted": (lambda x: x[torch.tensor([1, 2, 0])].exp(), "dense", (3,)),
    "large stencil": (lambda x: 4 * x + x.roll(1).sin() + x.roll(-1) ** 2, "sparse", (90,)),
    "large permutation": (lambda x: 4 * x[_TABLE].exp() + 0.1 * x.roll(2), "sparse", (90,)),
    "large triangle": (lambda x: x.exp() + torch.cat([x[:1], x[1:] * x[:-1]]), "sparse", (90,)),
    "saddle point": (lambda x: saddle(x), "sparse", (90,)),
    "grid": (lambda x: 5 * x + x.roll(1, 1) * x.roll(1, 0), "sparse", (9, 10)),
}  # fmt: skip


def saddle(x):
    """The optimality conditions of thirty constrained problems: a symmetric pattern without half its diagonal."""
    y, multiplier = x[:60], x[60:]
    return torch.cat([y**2 + 3 * y.roll(1) * y.roll(-1) + multiplier.repeat(2), y[:30] - y[30:]])


def system(name):
    """The Jacobian of a system, its matrix and a point."""
    f, kind, shape = SYSTEMS[name]
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    jac = jacobian(f)(x)
    return f, kind, x, jac, jac.to_dense().reshape(x.numel(), x.numel())


@pytest.mark.parametrize("name", SYSTEMS)
def test_another_default_device(name):
    """Matrices and systems lie where the Jacobian does, whatever device tensors are made on by default."""
    f, _, shape = SYSTEMS[name]
    x = torch.linspace(0.2, 1.2, math.prod(shape), dtype=torch.float64).reshape(shape)
    J, known = jacobian(f)(x), jacobian(f)(x)
    dense, right = known.to_dense().reshape(x.numel(), x.numel()), torch.ones(known.out_shape, dtype=x.dtype)
    with torch.device("meta"):
        found = [J.to_sparse(layout) for layout in (torch.sparse_coo, torch.sparse_csr, torch.sparse_csc)]
        solved, logarithm, square = J.solve(right), J.slogdet()[1], J.gram()
    for matrix in found:
        torch.testing.assert_close(matrix.to_dense(), dense)
    torch.testing.assert_close(solved, known.solve(right))
    torch.testing.assert_close(logarithm, known.slogdet()[1])
    torch.testing.assert_close(square.to_dense().reshape(dense.shape), dense.mT @ dense)


@pytest.mark.parametrize("name", SYSTEMS)
def test_solve(name) -> None:
    """The solution has the input's shape and is that of the dense matrix, for one right side and for several."""
    _, kind, _, jac, dense = system(name)
    assert jac.solved_as == kind
    for solver in (None, "superlu"):
        none = torch.zeros(*jac.out_shape, 0).double()
        assert jac.solve(none, solver).shape == (*jac.in_shape, 0)
    one, three = torch.randn(jac.out_shape).double(), torch.randn(*jac.out_shape, 3).double()
    torch.testing.assert_close(jac.solve(one), torch.linalg.solve(dense, one.flatten()).reshape(jac.in_shape))
    size = dense.shape[0]
    expected = torch.linalg.solve(dense, three.reshape(size, 3)).reshape(*jac.in_shape, 3)
    torch.testing.assert_close(jac.solve(three), expected)
    back = one.reshape(jac.in_shape)
    torch.testing.assert_close(
        jac.mT.solve(back), torch.linalg.solve(dense.T, back.flatten()).reshape(jac.out_shape)
    )


@pytest.mark.parametrize("name", SYSTEMS)
def test_slogdet(name) -> None:
    """Sign and logarithm are those of the dense matrix."""
    _, _, _, jac, dense = system(name)
    sign, logabs = jac.slogdet()
    expected = torch.linalg.slogdet(dense)
    assert sign == expected.sign
    torch.testing.assert_close(logabs, expected.logabsdet)


@pytest.mark.parametrize(
    "name", ["pointwise", "batched layer", "small and full", "large stencil", "large permutation"]
)
def test_solve_is_differentiable(name) -> None:
    """Gradients reach the point and the right side, and the second ones too."""
    f, _, x, jac, _ = system(name)
    right = torch.randn(jac.out_shape).double()
    some = torch.arange(x.numel()) < 6  # the point moves in a few places only: the matrix may be large

    def solved(part, right):
        return jacobian(f)(x.masked_scatter(some.view_as(x), part)).solve(right)

    part = x.flatten()[:6].clone().requires_grad_()
    assert torch.autograd.gradcheck(solved, (part, right.requires_grad_()))
    assert torch.autograd.gradgradcheck(lambda part: solved(part, right.detach())[..., :3], (part,))


@pytest.mark.parametrize(
    "name", ["pointwise", "batched layer", "small and full", "large stencil", "large triangle"]
)
def test_slogdet_is_differentiable(name) -> None:
    """The gradient of the logarithm is the trace of the inverse times the derivative."""
    f, _, x, _, _ = system(name)
    assert torch.autograd.gradcheck(lambda x: jacobian(f)(x).slogdet().logabsdet, (x.requires_grad_(),))


@pytest.mark.parametrize(
    "name", ["pointwise", "batched layer", "small and full", "large stencil", "large triangle"]
)
def test_inside_transforms(name) -> None:
    """torch.func's gradients go through solutions and determinants of every kind."""
    f, _, x, _, _ = system(name)

    def solved(x):
        return jacobian(f)(x).solve(f(x)).square().sum()

    def volume(x):
        return jacobian(f)(x).slogdet().logabsdet

    for loss in (solved, volume):
        leaf = x.clone().requires_grad_()
        (expected,) = torch.autograd.grad(loss(leaf), leaf)
        torch.testing.assert_close(torch.func.grad(loss)(x), expected)


def test_under_vmap() -> None:
    """Solutions for each sample of a batch; a sparse matrix is refused, with what to do instead."""
    f = lambda x: torch.tanh(x.reshape(6) @ _FULL) + x.reshape(6)
    x, right = torch.randn(3, 6).double(), torch.randn(3, 6).double()
    found = torchjac.vmap(lambda x, b: jacobian(f)(x).solve(b))(x, right)
    expected = torch.linalg.solve(torchjac.vmap(torchjac.jacrev(f))(x), right)
    torch.testing.assert_close(found, expected)
    diagonal = torchjac.vmap(lambda x: jacobian(torch.exp)(x).slogdet().logabsdet)(x)
    torch.testing.assert_close(diagonal, x.sum(-1))
    with pytest.raises(NotImplementedError, match="one sample after another"):
        torchjac.vmap(lambda x: jacobian(SYSTEMS["large stencil"][0])(x).solve(x))(
            torch.randn(2, 90).double()
        )


def test_kinds_are_never_wrong() -> None:
    """Whatever kind random blocks are said to be, solving by it agrees with the dense matrix."""
    said = {}
    for jac, dense in random_jacobians(300, square=True):
        size = torch.Size(jac.out_shape).numel()
        whole = dense.reshape(size, size)
        expected = torch.linalg.slogdet(whole)
        said[jac.solved_as] = said.get(jac.solved_as, 0) + 1
        found = jac.slogdet()
        if expected.logabsdet > -20:
            assert found.sign == expected.sign
            torch.testing.assert_close(found.logabsdet, expected.logabsdet)
            right = torch.randn(jac.out_shape).double()
            torch.testing.assert_close(jac @ jac.solve(right), right, rtol=1e-6, atol=1e-6)
    assert {"diagonal", "block-diagonal", "dense"} <= set(said)


def test_an_elementwise_flow() -> None:
    """The change of variables of a million-dimensional elementwise flow holds a vector, not a matrix."""
    n = 1_000_000
    x = torch.linspace(-2, 2, n, dtype=torch.float64)
    jac = jacobian(lambda x: x + 0.5 * torch.tanh(x))(x)
    assert (jac.solved_as, jac.stored) == ("diagonal", n)
    torch.testing.assert_close(jac.slogdet().logabsdet, (1 + 0.5 / torch.cosh(x) ** 2).log().sum())


def test_a_coupling_flow() -> None:
    """A coupling layer on long vectors is triangular: its determinant is that of its diagonal."""
    n = 2000
    x = torch.randn(n, dtype=torch.float64)

    def coupling(x):
        left, right = x[: n // 2], x[n // 2 :]
        scale = torch.tanh(left)
        return torch.cat([left, right * scale.exp() + left.sin()])

    jac = jacobian(coupling)(x)
    assert jac.solved_as == "sparse"
    sign, logabs = jac.slogdet()
    assert sign == 1
    torch.testing.assert_close(logabs, torch.tanh(x[: n // 2]).sum())
    assert "system" not in vars(jac.form).get("_kept", {})


def test_the_factors_are_kept() -> None:
    """A second right side costs no second factorisation."""
    jac = system("large stencil")[3]
    jac.solve(torch.ones(90).double())
    kept = vars(jac.form)["_kept"]["system"]
    jac.solve(torch.zeros(90).double())
    assert vars(jac.form)["_kept"]["system"] is kept


def test_one_factorisation_serves_all(monkeypatch) -> None:
    """The transpose, several right sides, the determinant and the backward pass use the factors of the first system."""
    f, _, x, jac, dense = system("large permutation")
    made = []
    factorise = system_module.factorise
    monkeypatch.setattr(system_module, "factorise", lambda *given: made.append(1) or factorise(*given))
    jac = jacobian(f)(x.clone().requires_grad_())
    right = torch.randn(90, 2).double().requires_grad_()
    (
        jac.solve(right).sum() + jac.mT.solve(right).sum() + jac.mT.mT.solve(right).sum() + jac.slogdet()[1]
    ).backward()
    assert len(made) == 1
    torch.testing.assert_close(jac.mT.solve(right), torch.linalg.solve(dense.T, right))
    assert "COLAMD" in str(jac.explain())
    assert jac.mT.explain().answers == jac.explain().answers


@pytest.mark.parametrize("name", SYSTEMS)
def test_goes_with_its_factors(name) -> None:
    """A Jacobian that was solved with goes when nobody holds it: it is in no circle that waits to be collected."""
    f, _, x, _, _ = system(name)
    jac = jacobian(f)(x)
    jac.solve(torch.ones(jac.out_shape, dtype=torch.float64))
    form = weakref.ref(jac.form)
    gc.collect()
    gc.disable()
    try:
        del jac
        assert form() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("repeated", [False, True])
def test_damped_gauss_newton(repeated) -> None:
    """Points seen by the same cameras, or by some of many: the Schur way gives what the dense matrix does, twice."""
    make = torch.Generator().manual_seed(0)
    cameras, points = (4, 300) if repeated else (9, 400)
    point = torch.arange(points).repeat(3)
    camera = torch.randint(cameras, (3 * points,), generator=make)
    if repeated:
        camera = (point % 2) + 2 * (torch.arange(3 * points) // points).clamp(max=1)

    def residual(x):
        c, p = x[: 6 * cameras].view(cameras, 6)[camera], x[6 * cameras :].view(points, 3)[point]
        seen = torch.linalg.cross(c[:, :3].exp(), p) + c[:, 3:] * p.sin()
        return seen[:, :2] / (2 + seen[:, 2:] ** 2)

    for seed in range(2):
        x = torch.randn(6 * cameras + 3 * points, dtype=torch.float64, generator=make.manual_seed(seed))
        jac = jacobian(residual)(x)
        damped = jac.gram().add_diagonal(0.1)
        right = torch.rand(len(x), 2, dtype=torch.float64, generator=make)
        dense = jac.to_dense().reshape(-1, len(x))
        expected = torch.linalg.solve(dense.T @ dense + 0.1 * torch.eye(len(x)), right)
        torch.testing.assert_close(damped.solve(right), expected)
        assert f"arrow: {points} blocks" in str(damped.explain())
        assert "values" not in vars(vars(damped.form)["_kept"]["system"])  # read as the blocks hold them


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
@pytest.mark.parametrize("name", ["large permutation", "large stencil", "saddle point"])
def test_first_solved_without_grad(name, dtype) -> None:
    """A system whose factors were first needed under no_grad is differentiable all the same later."""
    f, _, x, _, _ = system(name)
    grads = []
    for before in (False, True):
        point = x.to(dtype).requires_grad_()
        jac = jacobian(f)(point)
        right = torch.ones(jac.out_shape, dtype=dtype)
        if before:
            with torch.no_grad():
                jac.solve(right)
        grads.append(torch.autograd.grad(jac.solve(right).sum(), point)[0])
    assert grads[0].abs().max() > 0
    torch.testing.assert_close(grads[1], grads[0])


def test_the_ordering_is_kept_for_the_next() -> None:
    """A second Jacobian with the same pattern finds the order of its columns where the first one left it."""
    f, _, x, jac, _ = system("large permutation")
    right = torch.randn(90).double()
    jac.solve(right)
    pattern = pattern_of(jac.blocks, jac.out_shape, jac.in_shape, jac.device)
    assert "COLAMD" in pattern.notes
    other = jacobian(f)(x + 1)
    assert pattern_of(other.blocks, other.out_shape, other.in_shape, other.device) is pattern
    torch.testing.assert_close(other @ other.solve(right), right)


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda J: pickle.loads(pickle.dumps(J))])
@pytest.mark.parametrize("name", SYSTEMS)
def test_copies(name, duplicate) -> None:
    """A Jacobian that has been solved with can be copied, pickled and solved with again."""
    f, kind, shape = SYSTEMS[name]
    x = torch.linspace(0.5, 1, torch.Size(shape).numel(), dtype=torch.float64).reshape(shape)
    J = jacobian(f)(x)
    right = torch.ones(J.out_shape, dtype=torch.float64)
    jacobian(f)(x).solve(right)  # later systems of the pattern are in the order that this one finds
    solved = J.solve(right)
    twin = duplicate(J)
    assert twin.solved_as == kind
    assert torch.equal(twin.to_dense(), J.to_dense())
    assert torch.equal(twin.solve(right), solved)


@pytest.mark.parametrize("f, shape", [
    (lambda x: x * torch.tensor([1.0, 0.0, 2.0]), (3,)),
    (lambda x: x.sum(-1, keepdim=True).expand(4, 3) + 0 * x, (4, 3)),
    (lambda x: x[[0, 0, 1]], (3,)),
    (lambda x: torch.cat([x[:50] + x[50:], x[:50] + x[50:]]), (100,)),
])  # fmt: skip
def test_singular(f, shape) -> None:
    """A singular matrix is refused; its determinant is zero."""
    jac = jacobian(f)(torch.ones(shape))
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        jac.solve(torch.ones(shape))
    assert jac.slogdet().logabsdet == -torch.inf


def test_a_singular_block_is_named() -> None:
    """Of many small matrices the one without an inverse is told."""
    weight = torch.ones(5, 3, dtype=torch.float64)
    weight[3] = 0
    jac = jacobian(lambda x: weight * (x.cumsum(-1) + x))(weight)
    with pytest.raises(torch.linalg.LinAlgError, match=r"singular \(block 3 on its diagonal\)"):
        jac.solve(weight)


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_singular_but_for_rounding(dtype) -> None:
    """Pivots that are zeros but for rounding give no solution of a right side that has none; others are found."""
    grid = lambda u: 4 * u - u.roll(1, 0) - u.roll(-1, 0) - u.roll(1, 1) - u.roll(-1, 1)
    jac = jacobian(grid)(torch.rand(15, 20, dtype=dtype))
    assert jac.solved_as == "sparse"
    with pytest.raises(torch.linalg.LinAlgError, match=r"singular to working precision: .* in row"):
        jac.solve(torch.ones(15, 20, dtype=dtype))
    with pytest.raises(torch.linalg.LinAlgError, match=r"singular to working precision: .* in column"):
        jac.mT.solve(torch.ones(15, 20, dtype=dtype))
    small = jacobian(lambda x: 1e-30 * (3 * x + x.roll(1)))(torch.zeros(300, dtype=dtype))
    torch.testing.assert_close(
        small @ small.solve(torch.ones(300, dtype=dtype)), torch.ones(300, dtype=dtype)
    )


@pytest.mark.parametrize("grad", [False, True])
def test_dense_but_singular_but_for_rounding(grad) -> None:
    """The same of matrices that are written out, alone or as blocks on the diagonal."""
    x = torch.linspace(0, 1, 12, dtype=torch.float64, requires_grad=grad)
    right = torch.arange(12.0, dtype=torch.float64)
    jac = jacobian(lambda x: x - x.mean())(x)
    assert jac.solved_as == "dense"
    with pytest.raises(torch.linalg.LinAlgError, match="singular"):
        jac.solve(right + 1)
    y = torch.linspace(0, 1, 21, dtype=torch.float64, requires_grad=grad).view(3, 7)
    batch = jacobian(lambda y: y - y.mean(-1, keepdim=True) + torch.eye(3, 1, dtype=y.dtype) * y)(y)
    assert batch.solved_as == "block-diagonal"
    with pytest.raises(torch.linalg.LinAlgError, match=r"singular .*block [12]"):
        batch.solve(torch.arange(1.0, 22.0, dtype=torch.float64).view(3, 7))
    small = jacobian(lambda x: 1e-30 * (x + x.mean()))(x)
    torch.testing.assert_close(small @ small.solve(right), right)


def test_a_dense_matrix_says_where_it_is_singular() -> None:
    """A row or column of zeros is named, else the first column that depends on others."""
    one = torch.ones(5, dtype=torch.float64)
    without = (torch.arange(5) != 3).double()
    for f, message in (
        (lambda x: (x.sum() + x) * without, "row 3 is zero"),
        (lambda x: (x * without).sum() + x * without, "column 3 is zero"),
        (lambda x: x.sum() * one, "column 1 depends linearly on others"),
    ):
        jac = jacobian(f)(one)
        assert jac.solved_as == "dense"
        with pytest.raises(torch.linalg.LinAlgError, match=rf"solve: the Jacobian is singular \({message}\)"):
            jac.solve(one)


@pytest.mark.parametrize("bad", [torch.nan, torch.inf])
@pytest.mark.parametrize("shape", [(4,), (100,)])
def test_values_that_are_not_finite(bad, shape) -> None:
    """NaN is answered, not a singular matrix, by sparse factors as by dense ones, and its gradient is NaN too."""
    weight = torch.ones(shape, dtype=torch.float64)
    weight[2] = bad
    x = torch.ones(shape, dtype=torch.float64)
    f = lambda x: weight * (3 * x**2 + x.roll(1) + 0.5 * x.roll(-1))
    jac = jacobian(f)(x)
    assert jac.solved_as == ("sparse" if shape == (100,) else "dense")
    sign, logabs = jac.slogdet()
    assert (sign.item(), logabs.isnan().item()) == (0, True)
    assert jac.solve(x).isnan().any()
    assert torch.func.grad(lambda x: jacobian(f)(x).slogdet().logabsdet)(x).isnan().all()


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", SYSTEMS)
def test_half_precision(name, dtype) -> None:
    """It is solved in float32, with one factorisation, and rounded once; gradients come back in half precision."""
    f, _, shape = SYSTEMS[name]
    x = torch.linspace(0.5, 1, torch.Size(shape).numel()).reshape(shape).to(dtype)
    in_half = lambda x: f(x.double()).to(dtype)
    jac = jacobian(in_half)(x)
    whole = jac.to_dense().double().reshape(x.numel(), x.numel())
    right = torch.ones(jac.out_shape, dtype=dtype)
    found = jac.solve(right)
    expected = torch.linalg.solve(whole, right.double().flatten()).reshape(jac.in_shape)
    torch.testing.assert_close(found, expected.to(dtype), rtol=1e-2, atol=1e-2)
    sign, logabs = jac.slogdet()
    expected = torch.linalg.slogdet(whole)
    torch.testing.assert_close(
        torch.stack([sign, logabs]), torch.stack(expected).to(dtype), rtol=1e-2, atol=1e-2
    )
    assert torch.func.grad(lambda x: jacobian(in_half)(x).solve(right).sum())(x).dtype == dtype


@pytest.mark.parametrize(
    "act, error, message",
    [
        (lambda J: J[1:].solve(torch.ones(2)), ValueError, "as many outputs as inputs, got 2 for 3 .*lstsq"),
        (lambda J: J[1:].slogdet(), ValueError, r"slogdet: needs as many .* and \(3,\)\)$"),
        (lambda J: J.solve(torch.ones(2)), ValueError, r"solve: b must have shape \(3,\), got \(2,\)"),
        (lambda J: J.solve(torch.ones(2, 3)), ValueError, r"must have shape \(3,\) \+ \(k,\), got \(2, 3\)"),
        (lambda J: J.solve(1.0), TypeError, "must be a tensor"),
        (lambda J: J.inverse(), AttributeError, r"no tensor and has no 'inverse'; solve\(b\)"),
        (lambda J: J.sum(), AttributeError, r"no tensor and has no 'sum'; to_dense\(\)"),
        (lambda J: J.nonzeros, AttributeError, "'Jacobian' object has no attribute 'nonzeros'"),
    ],
)
def test_errors(act, error, message) -> None:
    """What does not fit is refused with the shape given and the shape needed."""
    with pytest.raises(error, match=message):
        act(jacobian(torch.exp)(torch.zeros(3)))


def brusselator(state):
    """The residual of the two-dimensional Brusselator on a periodic grid."""
    u, v = state
    across = (state.shape[-1] - 1) ** 2
    laplacian = lambda w: (w.roll(1, 0) + w.roll(-1, 0) + w.roll(1, 1) + w.roll(-1, 1) - 4 * w) * across
    return torch.stack([
        1 + u**2 * v - 4.4 * u + 10 * laplacian(u), 3.4 * u - u**2 * v + 10 * laplacian(v),
    ])  # fmt: skip


@pytest.mark.parametrize("n", [8, 128])
def test_an_implicit_step_of_the_brusselator(n) -> None:
    """Newton on an implicit Euler step converges quadratically, with 12 n² nonzeros and few numbers stored."""
    y = torch.linspace(0, 1, n, dtype=torch.float64)
    start = torch.stack(
        [(22 * (y * (1 - y)) ** 1.5).expand(n, n), (27 * (y * (1 - y)) ** 1.5).expand(n, n).T]
    )
    residual = lambda w: w - start - 1e-3 * brusselator(w)
    state, norms = start, [residual(start).norm()]
    for _ in range(3 if n == 128 else 4):
        jac = jacobian(residual)(state)
        assert jac.solved_as == "sparse"
        assert jac.nnz == 12 * n**2
        assert jac.stored < 40 * n**2
        state = state - jac.solve(residual(state))
        norms.append(residual(state).norm())
    assert norms[-1] < 1e-6 * norms[0]
    if n == 8:
        right = torch.randn(2, n, n).double()
        expected = torch.linalg.solve(jac.to_dense().reshape(2 * n * n, -1), right.flatten())
        torch.testing.assert_close(jac.solve(right).flatten(), expected)


def test_broyden_tridiagonal() -> None:
    """A hundred thousand unknowns: three diagonals, and Newton's step lowers the residual (Moré et al. 1981)."""
    n = 100_000

    def broyden(x):
        inner = torch.nn.functional.pad(x, (1, 1))
        return (3 - 2 * x) * x - inner[:-2] - 2 * inner[2:] + 1

    x = -torch.ones(n, dtype=torch.float64)
    for _ in range(4):
        jac = jacobian(broyden)(x)
        assert jac.nnz == 3 * n - 2
        assert jac.stored <= 3 * n
        x = x - jac.solve(broyden(x))
    assert broyden(x).abs().max() < 1e-6


def test_gauss_newton() -> None:
    """A Gauss–Newton step by the Gram matrix is the least-squares step."""
    t = torch.linspace(0, 1, 9, dtype=torch.float64)
    x = torch.tensor([[1.0, 0.5], [2.0, -0.3]], dtype=torch.float64)
    f = lambda x: x[:, :1] * torch.exp(x[:, 1:] * t) - 1
    jac, value = torchjac.jacobian(f)(x), f(x)
    step = jac.gram().solve(value @ jac)
    expected = torch.linalg.lstsq(jac.to_dense().reshape(18, 4), value.reshape(18, 1)).solution
    assert jac.gram().solved_as == "block-diagonal"
    torch.testing.assert_close(step.reshape(4, 1), expected)


@pytest.mark.parametrize("kind", ["dense", "block-diagonal", "sparse"])
def test_singular_matrices_are_refused_for_lucky_right_sides(kind) -> None:
    """A right side that the solution of a singular matrix nearly meets by chance is refused too."""
    random = torch.Generator().manual_seed(0)
    size = 300 if kind == "sparse" else 17
    matrix = torch.randn(size, size, dtype=torch.float64, generator=random) + 5 * torch.eye(size)
    if kind == "sparse":
        matrix = matrix.triu(-2).tril(2)
    matrix[-1] = 0.3 * matrix[-2] + 0.7 * matrix[-3]
    left = torch.linalg.svd(matrix)[0][:, -1]

    def func(x):
        if kind == "sparse":
            rows, columns = matrix.nonzero(as_tuple=True)
            return torch.zeros_like(x).index_add(0, rows, matrix[rows, columns] * x[columns])
        return x @ matrix.mT

    shape = (2, size) if kind == "block-diagonal" else (size,)
    jac = jacobian(func)(torch.zeros(shape, dtype=torch.float64))
    assert jac.solved_as == kind
    accepted = 0
    for _ in range(400):
        right = torch.randn(shape, dtype=torch.float64, generator=random)
        out = (right @ left)[..., None] * left
        right = right - out + out * torch.rand((), dtype=torch.float64, generator=random) * 0.2
        try:
            solved = jac.solve(right)
        except torch.linalg.LinAlgError:
            continue
        accepted += 1
        assert float((jac @ solved - right).abs().max()) < 0.02 * float(right.abs().max())
    assert accepted < 200


def test_singular_is_told_from_ill_conditioned() -> None:
    """Projections, singular but for rounding, are refused though their solutions leave little; 1e14 is a condition."""
    random = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, dtype=torch.float64, generator=random)
    refused = 0
    for size in (10, 20, 40):
        for _ in range(100):
            (normal,) = torch.linalg.qr(draw(size, 1))[0].T
            project = jacobian(lambda x, normal=normal: x - normal * (normal @ x))
            try:
                project(normal).solve(draw(size))
            except torch.linalg.LinAlgError:
                refused += 1
            left, right = (torch.linalg.qr(draw(size, size))[0] for _ in range(2))
            weak = torch.ones(size, dtype=torch.float64)
            weak[-1] = 1e-14
            poor, given = (left * weak) @ right, draw(size)
            solved = jacobian(lambda x, poor=poor: poor @ x)(normal).solve(given)
            assert float((poor @ solved - given).norm()) < 0.1 * float(given.norm())
    assert refused > 265


@pytest.mark.parametrize("kind", ["dense", "block-diagonal", "sparse"])
def test_rows_of_other_scales_are_not_singular(kind) -> None:
    """Equations with terms of sizes sixteen digits apart, as of a barrier method, are solved for any right side."""
    random = torch.Generator().manual_seed(0)
    size = 300 if kind == "sparse" else 17
    shape = (2, size) if kind == "block-diagonal" else (size,)
    well = lambda x: 4 * x + x.roll(1, -1) - x.roll(-2, -1).sin()
    plain = jacobian(well)(torch.zeros(shape, dtype=torch.float64))
    for _ in range(3 if kind == "sparse" else 30):
        exponents = 16 * torch.rand(2, *shape, dtype=torch.float64, generator=random) - 8
        across, down = 10**exponents
        jac = jacobian(lambda x, across=across, down=down: down * well(across * x))(torch.zeros_like(across))
        assert jac.solved_as == kind
        right = torch.randn(shape, dtype=torch.float64, generator=random)
        for solved, expected in (
            (jac.solve(right), plain.solve(right / down) / across),
            (jac.mT.solve(right), plain.mT.solve(right / across) / down),
        ):
            assert float((solved - expected).abs().max()) < 1e-9 * float(expected.abs().max())


def test_a_triangle_that_grows_beyond_rounding() -> None:
    """A sum of those before, whose solution of 1e28 pivots lose altogether, is refused."""
    weight = torch.randn(3, 301, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    jac = jacobian(lambda x: 3 * weight[0] * x + weight[1] * (x.cumsum(0) - x))(torch.zeros(301).double())
    with pytest.raises(torch.linalg.LinAlgError, match="singular to working precision"):
        jac.solve(torch.ones(301, dtype=torch.float64))
