"""Real problems at their real sizes: bundle adjustment and a layer of a graph network."""

import pytest
import torch

from torchjac import jacobian, jacrev, value_and_jacobian
from torchjac._answers.matrix_kind import is_symmetric
from torchjac.testing import loop_jacobian


def rotate(angles, points):
    """Rodrigues' formula for a batch of rotation vectors."""
    squared = angles.square().sum(-1, keepdim=True)
    theta = squared.sqrt()
    axis = angles / theta
    cosine, sine = theta.cos(), theta.sin()
    along = (axis * points).sum(-1, keepdim=True)
    return points * cosine + torch.linalg.cross(axis, points) * sine + axis * along * (1 - cosine)


def project(cameras, points):
    """ADBench's camera: rotation, centre, focal length, principal point and two terms of radial distortion.

    https://github.com/microsoft/ADBench, objective BA; cameras have 11 parameters.
    """
    seen = rotate(cameras[:, :3], points - cameras[:, 3:6])
    flat = seen[:, :2] / seen[:, 2:]
    radius = flat.square().sum(-1, keepdim=True)
    distortion = 1 + cameras[:, 9:10] * radius + cameras[:, 10:] * radius**2
    return flat * distortion * cameras[:, 6:7] + cameras[:, 7:9]


def bundle(n_cameras, n_points, n_observations):
    """The residual of a bundle adjustment problem, a point near its solution, and who sees what."""
    make = torch.Generator().manual_seed(0)
    draw = lambda *shape: torch.randn(*shape, generator=make, dtype=torch.float64)
    which = torch.randint(n_cameras, (n_observations,), generator=make)
    seen = torch.randint(n_points, (n_observations,), generator=make)
    base = torch.tensor([0, 0, 0, 0, 0, -9, 1, 0, 0, 0, 0], dtype=torch.float64)
    cameras = base + 0.1 * draw(n_cameras, 11)
    points = draw(n_points, 3)
    features = project(cameras[which], points[seen]) + 1e-5 * draw(n_observations, 2)

    def residual(cameras, points):
        return project(cameras[which], points[seen]) - features

    start = cameras + 0.001 * draw(n_cameras, 11), points + 0.001 * draw(n_points, 3)
    return residual, start, which, seen


def test_a_small_bundle_adjustment() -> None:
    """Each Jacobian is the row-by-row loop's."""
    residual, (cameras, points), _, _ = bundle(3, 5, 9)
    by_camera, by_point = jacobian(residual, argnums=(0, 1))(cameras, points)
    torch.testing.assert_close(by_camera.to_dense(), loop_jacobian(residual, cameras, points))
    torch.testing.assert_close(by_point.to_dense(), loop_jacobian(residual, cameras, points, argnum=1))


def test_a_large_bundle_adjustment() -> None:
    """Twenty thousand observations: 2 × 11 and 2 × 3 entries for each, where it is seen and by whom."""
    count = 20_000
    residual, start, which, seen = bundle(50, 3000, count)
    for found, index, width in zip(
        jacrev(residual, argnums=(0, 1), layout=torch.sparse_csr)(*start), (which, seen), (11, 3), strict=True
    ):
        expected = index.repeat_interleave(2)[:, None] * width + torch.arange(width)
        columns = found.col_indices()
        if width == 11:  # the principal point moves one coordinate only
            rows = torch.arange(2).repeat(count)[:, None]
            kept = (torch.arange(11) < 7) | (torch.arange(11) > 8) | (torch.arange(11) == 7 + rows)
            expected = expected[kept].view(-1)
        assert torch.equal(columns, expected.flatten())


def test_a_gauss_newton_step_of_bundle_adjustment() -> None:
    """Damped steps by the Gram matrix bring the residual down to the noise of the features."""
    residual, (cameras, points), _, _ = bundle(4, 100, 1500)
    size = cameras.numel()

    def packed(x):
        return residual(x[:size].view_as(cameras), x[size:].view_as(points))

    x = torch.cat([cameras.flatten(), points.flatten()])
    before = packed(x).norm()
    for _ in range(3):
        value, jac = value_and_jacobian(packed)(x)
        damped = jac.gram().to_scipy("csc")
        damped.setdiag(damped.diagonal() * (1 + 1e-6) + 1e-9)
        scipy_linalg = pytest.importorskip("scipy.sparse.linalg")
        x = x - torch.from_numpy(scipy_linalg.spsolve(damped, (value @ jac).numpy()))
    assert packed(x).norm() < 0.02 * before


def test_the_gram_matrix_of_bundle_adjustment() -> None:
    """Each entry is named once: pairs of what a camera and a point share, summed."""
    residual, (cameras, points), which, seen = bundle(20, 300, 2000)
    size = cameras.numel()
    x = torch.cat([cameras.flatten(), points.flatten()])
    jac = jacobian(lambda x: residual(x[:size].view_as(cameras), x[size:].view_as(points)))(x)
    assert len(jac.blocks) == 7  # whose products would keep each match of two tables
    weight = torch.rand(jac.out_shape, dtype=torch.float64)
    gram, weighted = jac.gram(), jac.gram(weight)
    places = torch.arange(size + points.numel())
    sees = torch.cat([places[:size].view(-1, 11)[which], places[size:].view(-1, 3)[seen]], 1)
    pairs = torch.zeros(x.numel(), x.numel(), dtype=torch.bool)
    pairs[sees[:, :, None], sees[:, None, :]] = True
    cx, cy = places[7:size:11], places[8:size:11]  # each coordinate has its own principal point
    pairs[cx, cy] = pairs[cy, cx] = False
    for found in (gram, weighted):
        assert torch.equal(found.pattern().to_dense(), pairs)
        assert len(found.blocks) == 3  # the diagonal, what is above it, and its mirror image
        assert found.stored == 3 * found.nnz - found.blocks[0].value.numel()
        assert is_symmetric(found.blocks)
    dense = jac.to_dense().reshape(-1, x.numel())
    torch.testing.assert_close(gram.to_dense(), dense.T @ dense)
    torch.testing.assert_close(weighted.to_dense(), dense.T @ (weight.flatten()[:, None] * dense))


def test_a_graph_layer() -> None:
    """A hundred thousand edges: an entry for each pair of neighbours, products without a matrix."""
    nodes, edges = 10_000, 100_000
    make = torch.Generator().manual_seed(0)
    source, target = torch.randint(nodes, (2, edges), generator=make)
    weight = torch.randn(edges, generator=make, dtype=torch.float64)

    def layer(h):
        return torch.tanh(torch.zeros_like(h).index_add(0, target, weight * h[source].sin()))

    h, v = torch.randn(2, nodes, generator=make, dtype=torch.float64)
    jac = jacobian(layer)(h)
    assert jac.nnz == (target * nodes + source).unique().numel()
    assert jac.stored <= 3 * edges
    assert jac.solved_as == "sparse"
    _, expected = torch.func.jvp(layer, (h,), (v,))
    torch.testing.assert_close(jac @ v, expected)
