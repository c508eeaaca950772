"""Which PyTorch runs the tests: what an older one lacks or gets wrong is told here, in one place."""

import torch

#: (major, minor); the tests as they stand are for the one that the Makefile installs, (2, 13), and newer ones.
TORCH = tuple(int(number) for number in torch.__version__.split(".")[:2])
NEWEST = TORCH >= (2, 13)

#: Nodes that PyTorch 2.9, the oldest supported, does not have, or whose op it does not differentiate.
NOT_IN_THE_OLDEST = {
    "AminmaxBackward0", "LdexpBackward0", "NarrowCopyBackward0", "UpsampleLanczos2DAaBackward0",
    "UpsampleLanczos2DAaBackwardBackward0",
}  # fmt: skip

#: Nodes whose op a later PyTorch took away: `torch.cholesky` raises from 2.14 on.
NOT_FROM = {"CholeskyBackward0": (2, 14)}


def lacks(node: str) -> bool:
    """Whether this PyTorch may lack a node that the rules know."""
    return (not NEWEST and node in NOT_IN_THE_OLDEST) or NOT_FROM.get(node, (99,)) <= TORCH
