"""The file from which sums go on: what they are, how far they came, and whether this call is the one that made it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor


def fingerprint(tensors: Sequence[Tensor], told: Any) -> str:
    """Return a digest of the values of tensors, and of anything else by its `repr`."""
    digest = sha256(repr(told).encode())
    for tensor in tensors:
        digest.update(repr((tuple(tensor.shape), tensor.dtype)).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


class Checkpoint(NamedTuple):
    """A file, and the fingerprint of the call whose sums it holds."""

    path: Path
    fingerprint: str

    def load(self) -> dict[str, Any] | None:
        """Return what the file holds; None where there is none.

        Raises:
            ValueError: if it is of a call with other parameters or other sums.
        """
        if not self.path.exists():
            return None
        kept: dict[str, Any] = torch.load(self.path, weights_only=True)
        if kept.get("fingerprint") != self.fingerprint:
            raise ValueError(
                f"sums: the checkpoint {self.path} is of other parameters, other sums or other ranks than this call's; "
                "give another file, or remove it to begin anew"
            )
        return kept

    def save(self, sums: Tensor, sparse: Tensor | None, batches: int, output: Tensor) -> None:
        """Write the sums, and the output of the last batch; the file there was stays whole until this one is."""
        told = {"fingerprint": self.fingerprint, "batches": batches, "output": output.clone()}
        kept = {**told, "sums": sums, "sparse": sparse}
        beside = self.path.with_name(self.path.name + ".new")
        with open(beside, "wb") as file:
            torch.save(kept, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, self.path)

    def check_output(self, output: Tensor, kept: Tensor) -> None:
        """Raise unless the last batch that is in the sums gives the output it gave when it was added.

        Raises:
            ValueError: if it does not: other data, in another order, or another function.
        """
        same = output.shape == kept.shape and torch.allclose(
            output.detach().cpu(), kept.cpu(), rtol=1e-3, atol=1e-5, equal_nan=True
        )
        if not same:
            raise ValueError(
                f"sums: the last batch in the checkpoint {self.path} gives another output now: the data come in "
                "another order (shuffle=False keeps it), or the function is another one"
            )
