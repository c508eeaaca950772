"""A layer of a graph network over a hundred thousand edges: a sparse Jacobian through gather and index_add.

    python examples/graph_network.py                  20,000 nodes, 100,000 edges
    python examples/graph_network.py --nodes 30       fewer, beside the dense Jacobian of torch.func

Each node adds up messages of its neighbours, hᵢ′ = tanh(U hᵢ + Σⱼ wᵢⱼ tanh(V hⱼ)), with features of four numbers.
The Jacobian has a block of 4 × 4 for each edge and each node. Its products are used here for the first steps of
power iteration on JᵀJ, whose largest eigenvalue bounds how much the layer can amplify a change (its Lipschitz
constant at this point, squared).
"""

from __future__ import annotations

import argparse
from functools import partial
from time import perf_counter

import torch
from torch import Tensor

import torchjac

FEATURES = 4


class Layer:
    """One round of messages over a random graph without repeated edges or loops."""

    def __init__(self, nodes: int, edges: int) -> None:
        make = torch.Generator().manual_seed(0)
        pairs = torch.randint(nodes * nodes, (edges,), generator=make).unique()
        source, target = pairs // nodes, pairs % nodes
        other = source != target
        self.source, self.target = source[other], target[other]
        draw = partial(torch.randn, dtype=torch.float64, generator=make)
        self.own, self.message = draw(FEATURES, FEATURES), draw(FEATURES, FEATURES)
        self.weight = draw(len(self.source), 1)

    def __call__(self, h: Tensor) -> Tensor:
        """The features of every node after the round, (nodes, 4)."""
        messages = self.weight * torch.tanh(h @ self.message)[self.source]
        return torch.tanh((h @ self.own).index_add(0, self.target, messages))


def main(argv: list[str] | None = None) -> None:
    """Find the Jacobian, compare it, and iterate."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--nodes", type=int, default=20_000)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    layer = Layer(options.nodes, 5 * options.nodes)
    h = torch.randn(options.nodes, FEATURES, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    begin = perf_counter()
    J = torchjac.jacobian(layer)(h)
    print(f"{J}\nfound in {perf_counter() - begin:.2f} s")
    expected = (len(layer.source) + options.nodes) * FEATURES**2
    print(f"{len(layer.source):,} edges; 16 entries for each edge and node: {J.nnz == expected}")

    v = torch.ones_like(h)
    _, pushed = torch.func.jvp(layer, (h,), (v,))
    print(f"largest difference of J @ v from torch.func.jvp: {float((J @ v - pushed).abs().max()):.1e}")
    if options.nodes <= 100:
        difference = (J.to_dense() - torch.func.jacrev(layer)(h)).abs().max()
        print(f"largest difference from torch.func.jacrev: {float(difference):.1e}")

    begin = perf_counter()
    for _ in range(100):
        v = (J @ v) @ J
        norm = v.norm()
        v = v / norm
    print(f"norm of J after 100 iterations: {float(norm.sqrt()):.6f}, {perf_counter() - begin:.2f} s")


if __name__ == "__main__":
    main()
