"""Where torchjac may differ from the row-by-row loop, because PyTorch itself is wrong there.

An entry names the op, the modes, and PyTorch's own defect. It excuses a difference, it does not ask for one.
"""

from __future__ import annotations

from typing import NamedTuple


class Exemption(NamedTuple):
    """The modes in which an op is excused, and PyTorch's defect."""

    modes: frozenset[str]
    defect: str


EXEMPTIONS: dict[str, Exemption] = {
    "native_group_norm": Exemption(
        frozenset({"plain", "vmap", "inner_vmap", "forward"}),
        "autograd drops the gradient of the outputs mean and rstd unless both are given one (torch 2.13): "
        "torch.autograd.grad(native_group_norm(x, …)[1].sum(), x) finds nothing, but it depends on x",
    ),
}


def exemption(op: str, mode: str) -> str:
    """Why a difference is excused; empty where it is not."""
    found = EXEMPTIONS.get(op)
    return found.defect if found is not None and mode in found.modes else ""
