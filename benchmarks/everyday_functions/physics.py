"""Springs, meshes, pair potentials and stencils."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from .call import Made, everyday


def grid_edges(n: int) -> tuple[Tensor, Tensor]:
    """The ends of the edges of a grid of n × n nodes."""
    place = torch.arange(n * n).reshape(n, n)
    pairs = [(place[1:], place[:-1]), (place[:, 1:], place[:, :-1])]
    return tuple(torch.cat([pair[k].flatten() for pair in pairs]) for k in (0, 1))  # type: ignore[return-value]


@everyday(3, 8, order=2)
def springs_energy(n: int) -> Made:
    """The Hessian of the energy of a net of springs."""
    i, j = grid_edges(n)

    def f(x: Tensor) -> Tensor:
        return ((x[i] - x[j]).norm(dim=1) - 0.5).square().sum() / 2

    return f, torch.rand(n * n, 2)


@everyday(3, 8)
def springs_force(n: int) -> Made:
    """The forces of the net by index_add."""
    i, j = grid_edges(n)

    def f(x: Tensor) -> Tensor:
        apart = x[i] - x[j]
        length = apart.norm(dim=1, keepdim=True)
        pull = (length - 0.5) * apart / length
        return torch.zeros_like(x).index_add(0, i, -pull).index_add(0, j, pull)

    return f, torch.rand(n * n, 3)


@everyday(4, 13, order=2)
def lennard_jones(atoms: int) -> Made:
    """The Hessian of the energy of atoms, all pairs."""
    i, j = torch.triu_indices(atoms, atoms, 1)

    def f(x: Tensor) -> Tensor:
        inverse = 1 / (x[i] - x[j]).square().sum(1) ** 3
        return (4 * (inverse**2 - inverse)).sum()

    return f, 2 * torch.rand(atoms, 3) + torch.arange(atoms)[:, None]


@everyday(4, 20)
def gravity(bodies: int) -> Made:
    """The accelerations of bodies, softened."""
    masses = torch.rand(bodies)

    def f(x: Tensor) -> Tensor:
        apart = x[None] - x[:, None]
        return (masses[:, None] * apart / ((apart**2).sum(-1, keepdim=True) + 0.01) ** 1.5).sum(1)

    return f, torch.rand(bodies, 3)


@everyday(3, 8, order=2)
def elastic_triangles(n: int) -> Made:
    """The Hessian of the energy of a neo-Hookean sheet."""
    place = torch.arange(n * n).reshape(n, n)
    corners = torch.stack([place[:-1, :-1], place[1:, :-1], place[:-1, 1:]], -1).reshape(-1, 3)
    rest = torch.stack(torch.meshgrid(torch.arange(n), torch.arange(n), indexing="ij"), -1).reshape(-1, 2)

    def f(x: Tensor) -> Tensor:
        a, b, c = x[corners].unbind(1)
        deformed = torch.stack([b - a, c - a], -1)
        area = deformed[:, 0, 0] * deformed[:, 1, 1] - deformed[:, 0, 1] * deformed[:, 1, 0]
        return (deformed.square().sum((1, 2)) - 2 - 2 * area.log() + area.log() ** 2).sum()

    return f, rest + 0.2 * torch.rand(n * n, 2)


@everyday(4, 12)
def mesh_normals(n: int) -> Made:
    """The normals of the vertices of a surface."""
    place = torch.arange(n * n).reshape(n, n)
    faces = torch.stack([place[:-1, :-1], place[1:, :-1], place[:-1, 1:]], -1).reshape(-1, 3)

    def f(x: Tensor) -> Tensor:
        a, b, c = x[faces[:, 0]], x[faces[:, 1]], x[faces[:, 2]]
        normal = torch.linalg.cross(b - a, c - a).repeat_interleave(3, 0)
        return torch.zeros_like(x).index_add_(0, faces.flatten(), normal)

    return f, torch.rand(n * n, 3)


@everyday(10, 100)
def heat_step(n: int) -> Made:
    """A step of the heat equation, by slices."""

    def f(u: Tensor) -> Tensor:
        new = u.clone()
        new[1:-1] = u[1:-1] + 0.1 * (u[2:] - 2 * u[1:-1] + u[:-2])
        return new

    return f, torch.rand(n)


@everyday(16, 128)
def burgers(n: int) -> Made:
    """Burgers' equation on a ring, by roll."""

    def f(u: Tensor) -> Tensor:
        left, right = torch.roll(u, 1), torch.roll(u, -1)
        return -u * (right - left) / 2 + 0.1 * (right - 2 * u + left)

    return f, torch.rand(n)


@everyday(16, 128)
def upwind(n: int) -> Made:
    """Transport with the side chosen by the sign."""

    def f(u: Tensor) -> Tensor:
        back, ahead = u - u.roll(1), u.roll(-1) - u
        return -u * torch.where(u > 0, back, ahead)

    return f, torch.randn(n)


@everyday(5, 14)
def bratu(n: int) -> Made:
    """Bratu's equation on a grid, by padding."""

    def f(u: Tensor) -> Tensor:
        p = F.pad(u, (1, 1, 1, 1))
        around = p[2:, 1:-1] + p[:-2, 1:-1] + p[1:-1, 2:] + p[1:-1, :-2]
        return 4 * u - around - 0.1 * u.exp()

    return f, torch.rand(n, n)


@everyday(6, 14)
def diffusion_by_conv(n: int) -> Made:
    """Ten steps of diffusion and reaction on an image by a convolution."""
    kernel = torch.tensor([[0.0, 1, 0], [1, -4, 1], [0, 1, 0]])[None, None]

    def f(u: Tensor) -> Tensor:
        for _ in range(10):
            u = u + 0.1 * F.conv2d(u[None, None], kernel, padding=1)[0, 0] + 0.01 * u * (1 - u)
        return u

    return f, torch.rand(n, n)
