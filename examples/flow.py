"""The change of variables of a flow with a hundred thousand dimensions, without a matrix.

    python examples/flow.py               n = 100,000
    python examples/flow.py --n 500       fewer, beside torch.linalg.slogdet of the dense matrix

A flow maps noise to data, y = f(x), and log p(y) = log p(x) - log |det ∂f/∂x| (Papamakarios et al., Normalizing
Flows for Probabilistic Modeling and Inference, JMLR 22 (2021), eq. 4). The layers here are elementwise maps and
affine couplings (Dinh et al., Density Estimation Using Real NVP, 2017), whose determinants are known: the sum of
their logarithms is what `slogdet` of the structured Jacobian of the whole flow is compared with.
"""

from __future__ import annotations

import argparse
from time import perf_counter

import torch
from torch import Tensor

import torchjac


def elementwise(x: Tensor) -> tuple[Tensor, Tensor]:
    """The map x + tanh(x)/2, and the logarithm of its determinant."""
    return x + torch.tanh(x) / 2, torch.log(1 + (1 - torch.tanh(x) ** 2) / 2).sum()


def coupling(x: Tensor) -> tuple[Tensor, Tensor]:
    """One half scales and shifts the other: (a, b) → (a, b exp(s(a)) + t(a)) with s = tanh, t = sin."""
    a, b = x.chunk(2)
    scale = torch.tanh(a)
    return torch.cat([a, b * scale.exp() + a.sin()]), scale.sum()


def swap(x: Tensor) -> tuple[Tensor, Tensor]:
    """The halves change places, so that the next coupling moves the other one; |det| is 1."""
    return torch.cat(tuple(reversed(x.chunk(2)))), x.new_zeros(())


FLOWS = {
    "elementwise": (elementwise, elementwise),
    "coupling": (coupling, elementwise),
    "couplings of both halves": (coupling, elementwise, swap, coupling, swap),
}


def main(argv: list[str] | None = None) -> None:
    """Print the logarithm of the determinant of each flow, and how far it is from what is known."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--n", type=int, default=100_000, help="dimensions, an even number")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    x = torch.randn(options.n, dtype=torch.float64, generator=torch.Generator().manual_seed(0))

    for name, layers in FLOWS.items():
        known = []

        def flow(x: Tensor, layers=layers, known=known) -> Tensor:
            for layer in layers:
                x, logdet = layer(x)
                known.append(logdet.detach())
            return x

        begin = perf_counter()
        J = torchjac.jacobian(flow)(x)
        _, found = J.slogdet()
        expected = float(sum(known))
        print(f"{name}: {J}, kind {J.kind}")
        print(
            f"  log |det J| = {float(found):.6f}, relative difference from the sum over layers "
            f"{abs(float(found) / expected - 1):.1e}, {perf_counter() - begin:.2f} s"
        )
        if options.n <= 2000:
            _, dense = torch.linalg.slogdet(J.to_dense())
            print(f"  relative difference from the dense matrix {abs(float(found / dense) - 1):.1e}")


if __name__ == "__main__":
    main()
