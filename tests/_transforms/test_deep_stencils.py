"""Steps of explicit schemes: a block for each diagonal within reach, and exactly the entries within reach."""

import pytest
import torch
import torch.nn.functional as F

import torchjac
from torchjac.testing import loop_jacobian


def line_rolled(x, steps):
    """Diffusion and reaction on a ring."""
    for _ in range(steps):
        x = x + 0.1 * (x.roll(1, 0) - 2 * x + x.roll(-1, 0)) - 0.1 * x**3
    return x


def line_padded(x, steps):
    """The same between two ends held at zero."""
    for _ in range(steps):
        p = F.pad(x, (1, 1))
        x = x + 0.1 * (p[2:] - 2 * x + p[:-2]) - 0.1 * x**3
    return x


def plane(x, steps):
    """The same on a rectangle held at zero around."""
    for _ in range(steps):
        p = F.pad(x, (1, 1, 1, 1))
        x = x + 0.1 * (p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2] - 4 * x) - 0.1 * x**3
    return x


def flat_plane(x, steps):
    """The same, the state given as one vector."""
    return plane(x.view(30, -1), steps).reshape(-1)


PROGRAMS = [
    (line_rolled, (1,), 3), (line_rolled, (5,), 2), (line_rolled, (300,), 12), (line_padded, (300,), 12),
    (line_padded, (2,), 9), (plane, (30, 31), 3), (plane, (1, 4), 3), (flat_plane, (30 * 31,), 3),
]  # fmt: skip


@pytest.mark.parametrize("f, shape, steps", PROGRAMS)
def test_value_and_nnz(f, shape, steps) -> None:
    """The value is the loop's, and an entry is named only where the loop finds one."""
    x = torch.rand(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)) + 0.5
    J = torchjac.jacobian(lambda x: f(x, steps))(x)
    expected = loop_jacobian(lambda x: f(x, steps), x)
    torch.testing.assert_close(J.to_dense(), expected, rtol=1e-9, atol=1e-12)
    assert J.nnz == int((expected != 0).sum())


def test_a_line_of_many_points() -> None:
    """Twenty steps on 5,000 points: 41 diagonals, no index tensor, each entry stored at most once."""
    x = torch.rand(5000, dtype=torch.float64)
    J = torchjac.jacobian(lambda x: line_padded(x, 20))(x)
    assert len(J.blocks) == 41
    assert J.nnz == 41 * 5000 - 20 * 21
    assert J.stored <= J.nnz  # the outermost diagonals are constant
    assert not J.report.lost
    ring = torchjac.jacobian(lambda x: line_rolled(x, 20))(x)
    assert ring.nnz == 41 * 5000
    assert ring.stored < 1.1 * ring.nnz  # the corners are coordinates
    v = torch.rand_like(x)
    torch.testing.assert_close(J @ v, torch.func.jvp(lambda x: line_padded(x, 20), (x,), (v,))[1])
    torch.testing.assert_close(ring @ v, torch.func.jvp(lambda x: line_rolled(x, 20), (x,), (v,))[1])


def test_a_plane_of_many_points() -> None:
    """Five steps on 100 × 120 points: a diamond of 61 diagonals, each entry stored at most once."""
    x = torch.rand(100, 120, dtype=torch.float64)
    J = torchjac.jacobian(lambda x: plane(x, 5))(x)
    assert len(J.blocks) == 61
    within = sum(
        (100 - abs(i)) * (120 - abs(j)) for i in range(-5, 6) for j in range(-5, 6) if abs(i) + abs(j) < 6
    )
    assert J.nnz == within
    assert J.stored <= J.nnz


def test_a_wide_stencil() -> None:
    """A sum of 25 shifted copies is 25 diagonals and their other ends, the constants stored once."""

    def f(x):
        return sum(x.roll(k, 0) * (k + 13.5) for k in range(-12, 13)).tanh()

    J = torchjac.jacobian(f)(torch.rand(4000, dtype=torch.float64))
    assert J.nnz == 25 * 4000
    assert J.stored < 1.1 * J.nnz


def test_under_vmap_and_twice() -> None:
    """A batch of states, and the second derivative through the joined blocks."""
    x = torch.rand(2, 12, dtype=torch.float64)
    rows = torchjac.vmap(torchjac.jacrev(lambda x: line_padded(x, 6)))(x)
    torch.testing.assert_close(rows[1], loop_jacobian(lambda x: line_padded(x, 6), x[1]))
    small = torch.rand(6, dtype=torch.float64)
    twice = torchjac.jacrev(torchjac.jacrev(lambda x: line_padded(x, 4)))(small)
    expected = torch.func.jacfwd(torch.func.jacfwd(lambda x: line_padded(x, 4)))(small)
    torch.testing.assert_close(twice, expected)
