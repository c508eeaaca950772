"""The generalised Gauss–Newton matrix of a network over a data set, and damped steps with it: one batch at a time.

    python examples/ggn_over_data.py --samples 60000 --checkpoint ggn.pt

A network is trained to tell which of ten prototypes a noisy image shows. Its loss is the cross entropy, so the matrix
is G = Σ JᵀWJ with W = diag(p) − ppᵀ for each sample, and the gradient Σ Jᵀ(p − onehot). Only G, one batch and its
Jacobian are ever held. Stop the program and start it again with the same checkpoint: it goes on with the batch after
the last one that is in it.
"""

from __future__ import annotations

import argparse
import resource
from time import perf_counter

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from torchjac import accumulate, functional_call


def images(count: int, seed: int = 0) -> TensorDataset:
    """Noisy pictures of 8 × 8 of ten prototypes, and which one each shows."""
    generator = torch.Generator().manual_seed(seed)
    prototypes = torch.randn(10, 64, generator=generator)
    labels = torch.randint(10, (count,), generator=generator)
    return TensorDataset(prototypes[labels] + 2 * torch.randn(count, 64, generator=generator), labels)


def weight(logits: Tensor, x: Tensor, label: Tensor) -> Tensor:
    """The second derivative of the cross entropy by the logits, a matrix for each sample: diag(p) − ppᵀ."""
    p = logits.softmax(-1)
    return torch.diag_embed(p) - p[:, :, None] * p[:, None, :]


def residual(logits: Tensor, x: Tensor, label: Tensor) -> Tensor:
    """The first derivative: p − onehot."""
    return logits.softmax(-1) - nn.functional.one_hot(label, logits.shape[-1])


def main(argv: list[str] | None = None) -> None:
    """Take damped Gauss-Newton steps on the whole data set, and tell the loss after each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--samples", type=int, default=4_000)
    parser.add_argument("--batch", type=int, default=500)
    parser.add_argument("--hidden", type=int, default=8)
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--checkpoint", help="a file for the sums of each step, to go on from")
    parser.add_argument("--progress", action="store_true", help="show a bar (needs tqdm)")
    options = parser.parse_args(argv)
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, options.hidden), nn.Tanh(), nn.Linear(options.hidden, 10))
    parameters = {name: p.detach() for name, p in model.named_parameters()}
    data = images(options.samples)
    loader = DataLoader(data, batch_size=options.batch)
    count = sum(p.numel() for p in parameters.values())
    print(f"{len(data):,} samples, {count:,} parameters: G takes {4 * count**2 / 1e6:.1f} MB")

    def logits(parameters: dict[str, Tensor], x: Tensor, label: Tensor) -> Tensor:
        return functional_call(model, parameters, (x,))

    def loss(parameters: dict[str, Tensor]) -> float:
        total = 0.0
        for x, label in loader:
            total += float(nn.functional.cross_entropy(logits(parameters, x, label), label, reduction="sum"))
        return total / len(data)

    damping = 1e-2
    print(f"loss {loss(parameters):.4f}")
    for step in range(options.steps):
        begun = perf_counter()
        sums = accumulate.sums(
            logits,
            parameters,
            loader,
            weight=weight,
            residual=residual,
            checkpoint=options.checkpoint and f"{options.checkpoint}.step{step}",
            every=10,
            progress=options.progress,
        )
        G, gradient, before = sums.gram / len(data), sums.gradient / len(data), loss(parameters)
        while True:  # Levenberg and Marquardt: damp until the loss falls
            change = sums.unravel(torch.linalg.solve(G + damping * torch.eye(count), gradient))
            changed = {name: p - change[name] for name, p in parameters.items()}
            after = loss(changed)
            if after < before:
                break
            damping *= 10
        parameters, damping = changed, damping / 10
        print(f"step {step + 1}: loss {after:.4f}, {perf_counter() - begun:.1f} s")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # Linux counts in KiB
    print(f"peak memory of the process: {peak:.2f} GiB")


if __name__ == "__main__":
    main()
