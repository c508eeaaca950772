"""The equilibrium of a hanging cable net: Newton's method with a sparse stiffness matrix.

    python examples/truss.py --out truss.png

A square net of elastic cables hangs from its four corners and two of its sides' middles. Its energy is that of
the cables plus that of the weights,

    E(x) = Σ_cables k/2 (|x_a − x_b| − ℓ)²  + Σ_nodes w z

and in equilibrium its gradient is zero. The gradient's Jacobian, the stiffness matrix, joins only nodes with a
cable between them: `jacobian` finds that from the program, and `J.solve` factorises it. Newton's step is
damped by a shift that is raised until the energy falls (Nocedal & Wright, Numerical Optimization, 2006, section
3.4), because a slack net has directions without stiffness.

The checks are statics: the forces on every free node vanish, and the supports carry what the net weighs.
"""

from __future__ import annotations

import argparse
from typing import NamedTuple

import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from torch import Tensor

import torchjac

STIFFNESS, WEIGHT, SHORTER = 50.0, 0.02, 0.97


class Net(NamedTuple):
    """Where nodes stand at first, which of them are free, which cables join them, and how long these are slack."""

    nodes: Tensor
    free: Tensor
    cables: Tensor
    lengths: Tensor


def square_net(n: int) -> Net:
    """A flat net of n × n nodes over the unit square, held at its corners and at the middles of two sides."""
    line = torch.linspace(0, 1, n, dtype=torch.float64)
    x, y = torch.meshgrid(line, line, indexing="ij")
    nodes = torch.stack([x, y, torch.zeros_like(x)], -1).reshape(-1, 3)
    number = torch.arange(n * n).view(n, n)
    cables = torch.cat([
        torch.stack([number[1:], number[:-1]], -1).reshape(-1, 2),
        torch.stack([number[:, 1:], number[:, :-1]], -1).reshape(-1, 2),
    ])  # fmt: skip
    held = torch.zeros(n, n, dtype=torch.bool)
    for i, j, height in (
        (0, 0, 0.0),
        (0, -1, 0.0),
        (-1, 0, 0.0),
        (-1, -1, 0.0),
        (0, n // 2, 0.4),
        (-1, n // 2, 0.4),
    ):
        held[i, j] = True
        nodes.view(n, n, 3)[i, j, 2] = height
    apart = nodes[cables[:, 0], :2] - nodes[cables[:, 1], :2]
    return Net(nodes, (~held.view(-1)).nonzero()[:, 0], cables, SHORTER * apart.norm(dim=-1))


def placed(free: Tensor, net: Net) -> Tensor:
    """All nodes, from those that are free."""
    return net.nodes.index_copy(0, net.free, free)


def stretched(nodes: Tensor, net: Net) -> Tensor:
    """By how much each cable is longer than it is slack."""
    a, b = net.cables.T
    return (nodes[a] - nodes[b]).norm(dim=-1) - net.lengths


def energy(nodes: Tensor, net: Net) -> Tensor:
    """The energy of cables and weights."""
    return STIFFNESS / 2 * stretched(nodes, net).square().sum() + WEIGHT * nodes[:, 2].sum()


def equilibrium(net: Net, most: int = 60) -> tuple[Tensor, list[float]]:
    """The nodes at rest, and the norm of the forces after each step."""
    potential = lambda free: energy(placed(free, net), net)  # noqa: E731
    residual = torchjac.jacrev(potential)
    free, norms, shift = net.nodes[net.free], [], 0.0
    for _ in range(most):
        force, stiffness = torchjac.value_and_jacobian(residual)(free)
        norms.append(float(force.norm()))
        if norms[-1] < 1e-11:
            break
        while True:
            shifted = shift_by(stiffness, free, shift)
            change = shifted.solve(force)
            slope = float((change * force).sum())
            if slope > 0 and float(potential(free - change)) <= float(potential(free)) - 1e-4 * slope:
                break
            if norms[-1] < 1e-7 and slope > 0:  # the energy's own rounding
                break
            shift = max(4 * shift, 1e-3)
        free, shift = free - change, shift / 8 if shift > 1e-6 else 0.0
    return placed(free, net), norms


def shift_by(stiffness: torchjac.Jacobian, free: Tensor, shift: float) -> torchjac.Jacobian:
    """K + shift · I, as a Jacobian whose blocks are those of both."""
    if shift == 0.0:
        return stiffness
    return torchjac.jacobian(lambda x: stiffness @ x + shift * x)(free)


def plot(out: str, nodes: Tensor, net: Net, stiffness: torchjac.Jacobian) -> None:
    """Draw the net, its cables coloured by their tension, and the stiffness matrix."""
    figure = Figure(figsize=(12, 5.5), layout="constrained")
    left = figure.add_subplot(1, 2, 1, projection="3d")
    tension = STIFFNESS * stretched(nodes, net)
    shade = ((tension - tension.min()) / (tension.max() - tension.min())).sqrt()
    for (a, b), colour in zip(net.cables.tolist(), colormaps["plasma"](shade * 0.9), strict=True):
        left.plot(*nodes[[a, b]].T, color=colour, linewidth=1.3)
    held = torch.ones(len(nodes), dtype=torch.bool)
    held[net.free] = False
    left.scatter(*nodes[held].T, color="k", s=35, depthshade=False)
    left.set_box_aspect((1, 1, 0.6))
    left.view_init(elev=22, azim=-60)
    left.set_title("at rest, brighter where the tension is higher")
    stiffness.spy(figure.add_subplot(1, 2, 2))
    figure.savefig(out, dpi=120)


def main(argv: list[str] | None = None) -> None:
    """Find the equilibrium, check it, draw it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="truss.png", help="where to save the picture")
    parser.add_argument("--nodes", type=int, default=17, help="nodes along a side")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)  # for matrices this small more threads only wait for each other
    net = square_net(options.nodes)
    nodes, norms = equilibrium(net)
    potential = lambda free: energy(placed(free, net), net)  # noqa: E731
    stiffness = torchjac.jacobian(torchjac.jacrev(potential))(nodes[net.free])
    print(stiffness)
    print(f"forces on free nodes: {' → '.join(f'{norm:.1e}' for norm in (norms[0], *norms[-4:]))}")
    print(f"steps: {len(norms)}")
    forces = torchjac.jacrev(energy)(nodes, net)
    held = torch.ones(len(nodes), dtype=torch.bool)
    held[net.free] = False
    print(f"the supports carry {float(forces[held, 2].sum()):.12f}")
    print(f"the net weighs     {WEIGHT * len(nodes):.12f}")
    least = float(torch.linalg.eigvalsh(stiffness.to_dense().flatten(2).flatten(0, 1))[0])
    print(f"least eigenvalue of the stiffness: {least:.3g} (stable where positive)")
    plot(options.out, nodes, net, stiffness)
    print(f"net and stiffness drawn in {options.out}")


if __name__ == "__main__":
    main()
