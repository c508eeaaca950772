"""Per-sample Jacobians of networks with BatchNorm in eval mode, beside torch.func's vmap(jacrev).

    python examples/per_sample.py               batches of 256 and 32
    python examples/per_sample.py --batch 16    smaller ones

In eval mode BatchNorm treats samples apart, so the Jacobian of a batch is block-diagonal. `torchjac.jacobian`
takes the batch as it is, finds that, and `block_diagonal` reads the blocks off: D[b] = ∂f(x)[b] / ∂x[b].
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from statistics import median
from time import process_time

import torch
from torch import Tensor, nn

import torchjac


def perceptron() -> nn.Module:
    """Two hidden layers of 64 with BatchNorm, 32 numbers to 10."""
    hidden = [
        nn.Linear(32, 64),
        nn.BatchNorm1d(64),
        nn.Tanh(),
        nn.Linear(64, 64),
        nn.BatchNorm1d(64),
        nn.Tanh(),
    ]
    return nn.Sequential(*hidden, nn.Linear(64, 10))


def convolutional() -> nn.Module:
    """Two convolutions with BatchNorm and a pooling between, images of 1 × 12 × 12 to 10."""
    return nn.Sequential(
        nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(8 * 6 * 6, 10),
    )  # fmt: skip


def settled(net: nn.Module, x: Tensor) -> nn.Module:
    """The network in eval mode, with running statistics of a few batches."""
    net = net.double()
    for _ in range(3):
        net(x + torch.randn_like(x))
    return net.eval()


def turns(functions: tuple[Callable[[], Tensor], ...], count: int) -> list[float]:
    """Median times of functions that take turns, in seconds of the processor: one thread does all the work."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(count):
        for function, record in zip(functions, times, strict=True):
            begin = process_time()
            function()
            record.append(process_time() - begin)
    return [median(record) for record in times]


def compare(name: str, net: nn.Module, x: Tensor) -> None:
    """Print whether both ways agree, and their times."""
    net = settled(net, x)

    def ours() -> Tensor:
        return torchjac.jacobian(net)(x).block_diagonal()

    def theirs() -> Tensor:
        return torch.func.vmap(torch.func.jacrev(lambda one: net(one[None])[0]))(x)

    difference = (ours() - theirs()).abs().max().item()
    mine, other = turns((ours, theirs), 9)
    print(
        f"{name}: {tuple(ours().shape)}, largest difference from vmap(jacrev) {difference:.1e}, "
        f"{mine * 1e3:.1f} ms beside {other * 1e3:.1f} ms, {other / mine:.1f} times faster",
        flush=True,
    )


def main(argv: list[str] | None = None) -> None:
    """Compare two networks."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--batch", type=int, default=256, help="samples in a batch")
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    compare("perceptron", perceptron(), torch.randn(options.batch, 32, dtype=torch.float64))
    images = torch.randn(max(2, options.batch // 8), 1, 12, 12, dtype=torch.float64)
    compare("convolutional", convolutional(), images)


if __name__ == "__main__":
    main()
