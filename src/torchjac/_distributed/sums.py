"""Sums over data of what the Jacobian of each batch gives: Σ JᵀWJ, Σ Jᵀr, Σ diag(JᵀWJ)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence, Sized
from functools import partial, reduce
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from .._accumulate.progress import import_tqdm
from .._answers.operator import Jacobian
from .._torch import pytree
from .._transforms.jacobian import value_and_jacobian
from .batches import add_diagonal, arguments, at_least_one_dim, check_batches, shaped
from .checkpoint import Checkpoint, fingerprint
from .sparse_gram import LAYOUTS, add_over_ranks, sparse_gram

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

#: What can be summed
SUMS = ("gram", "gradient", "diagonal")

#: What an iterator gives at its end
END = object()

#: The bytes of dense rows that are written out at once.
ROWS = 1 << 26


class Sums(NamedTuple):
    """The result of `sums`; a sum that was not asked for is None.

    Attributes:
        gram: Σ JᵀWJ, of shape (p, p) for p parameters, in the order of their tree, in the layout asked for.
        gradient: Σ Jᵀr, of shape (p,).
        diagonal: the diagonal of Σ JᵀWJ, of shape (p,).
        batches: how many there were.
        unravel: takes a vector of shape (p,) to a tree like the parameters.
    """

    gram: Tensor | None
    gradient: Tensor | None
    diagonal: Tensor | None
    batches: int
    unravel: Callable[[Tensor], Any]


def sums(
    func: Callable[..., Tensor],
    parameters: Any,
    data: Iterable[Any],
    of: Sequence[str] = ("gram", "gradient"),
    *,
    weight: Callable[..., Tensor] | None = None,
    residual: Callable[..., Tensor] | None = None,
    dtype: torch.dtype | None = None,
    layout: torch.layout = torch.strided,
    checkpoint: str | Path | None = None,
    every: int = 100,
    progress: bool = False,
    mesh: DeviceMesh | None = None,
) -> Sums:
    """Sums over the batches of ``data`` of what the Jacobian J of ``func`` by the parameters gives.

    Each batch is differentiated by itself and added in place, and let go before the next is asked for: what is held is
    the sums, one batch, and what its Jacobian takes. They are constants: gradients end here.

    Args:
        func: ``func(parameters, *batch)`` gives a tensor, most often one row for each sample.
        parameters: a tensor, or a tree of them, such as the dictionary of a module's parameters.
        data: a `DataLoader` or any other iterable. A tuple or list of it is the arguments that follow the parameters,
            anything else is one argument.
        of: which sums: "gram" is Σ JᵀWJ, "gradient" Σ Jᵀr, "diagonal" the diagonal of the first alone.
        weight: ``weight(output, *batch)`` gives W: one number for each output, or a square matrix for each entry of
            the output's first dim, as `Jacobian.gram` takes them; the identity by default.
        residual: ``residual(output, *batch)`` gives r, of the shape of the output; by default the output itself.
        dtype: dtype of the sums; that of the parameters by default.
        layout: of Σ JᵀWJ. ``torch.sparse_coo`` and ``torch.sparse_csr`` keep the structure that the Jacobians have, as
            where a batch reads a few of the parameters only; nothing of shape (p, p) is made.
        checkpoint: a file in which the sums are kept after ``every`` batches each, and at the end. A call that finds it
            goes on where it ends, passing over the batches that are in it: the data must come in the same order. With a
            mesh each rank has its own, ``checkpoint.rank0`` and so on.
        every: the number of batches between two checkpoints.
        progress: whether to show a bar on standard error (needs tqdm).
        mesh: ranks that share the data. Each is given its own part, and at the end there is one sum over the ranks.

    Raises:
        TypeError: if ``func`` gives no tensor.
        ValueError: if what is asked for is unknown, or the checkpoint is of another call.
        RankError: where another rank of the mesh raised, or is gone.
        ImportError: if ``progress`` is set and tqdm is not installed.

    Example:
        >>> import torch
        >>> from torchjac import accumulate
        >>> x, y = torch.arange(6.0), 2 * torch.arange(6.0) + 1
        >>> residual = lambda line, x, y: line["slope"] * x + line["offset"] - y
        >>> line = {"slope": torch.zeros(1), "offset": torch.zeros(1)}
        >>> found = accumulate.sums(residual, line, zip(x.split(2), y.split(2)))
        >>> found.unravel(-torch.linalg.solve(found.gram, found.gradient).round(decimals=4))
        {'slope': tensor([2.]), 'offset': tensor([1.])}
    """
    unknown = set(of) - set(SUMS)
    if unknown or not of:
        raise ValueError(f"sums: of must name some of {SUMS}, got {tuple(of)}")
    if every < 1:
        raise ValueError(f"sums: every must be a positive number of batches, got {every}")
    if layout not in LAYOUTS:
        raise ValueError(f"sums: layout must be one of {LAYOUTS}, got {layout}")
    check_batches(data, "sums")
    running = _Running(func, parameters, of, weight, residual, dtype, layout)
    if mesh is None:
        running.over(data, _checkpoint(checkpoint, running, of, None), every, progress)
        return running.result()
    from .group import check_mesh, tell

    mesh = check_mesh(mesh, "sums")
    error: Exception | None = None
    try:
        running.over(data, _checkpoint(checkpoint, running, of, mesh), every, progress)
    except Exception as raised:
        error = raised
    failed = running.reduced(error, mesh)
    if failed:
        tell(error, mesh)
    return running.result()


def _checkpoint(
    path: str | Path | None, running: _Running, of: Sequence[str], mesh: DeviceMesh | None
) -> Checkpoint | None:
    if path is None:
        return None
    rank, ranks = (None, 1) if mesh is None else (mesh.get_local_rank(), mesh.size())
    path = Path(path) if rank is None else Path(f"{path}.rank{rank}")
    told = (sorted(of), str(running.all.dtype), rank, ranks, str(running.spec), running.sparse is None)
    return Checkpoint(path, fingerprint(running.leaves, told))


class _Running:
    """The sums so far, all in one tensor, so that they are kept, and added over ranks, at once."""

    def __init__(
        self,
        func: Callable[..., Tensor],
        parameters: Any,
        of: Sequence[str],
        weight: Callable[..., Tensor] | None,
        residual: Callable[..., Tensor] | None,
        dtype: torch.dtype | None,
        layout: torch.layout,
    ) -> None:
        leaves, self.spec = pytree.tree_flatten(parameters)
        self.leaves = [leaf.detach() if isinstance(leaf, Tensor) else leaf for leaf in leaves]
        self.jacobian = value_and_jacobian(at_least_one_dim(func, "sums"))
        self.weight, self.residual, self.layout = weight, residual, layout
        tensors = [leaf for leaf in self.leaves if isinstance(leaf, Tensor)]  # others are told by `jacobian`
        self.sizes = [leaf.numel() for leaf in tensors]
        self.count = sum(self.sizes)
        dtype = dtype or reduce(torch.promote_types, [leaf.dtype for leaf in tensors], torch.float32)
        dense = [name for name in of if name != "gram" or layout is torch.strided]
        lengths = [self.count ** (2 if name == "gram" else 1) if name in dense else 0 for name in SUMS]
        # Two more numbers: the batches, and whether a rank failed.
        self.all = torch.zeros(sum(lengths) + 2, dtype=dtype, device=tensors[0].device if tensors else None)
        gram, gradient, diagonal, self.batches, self.failed = self.all.split_with_sizes([*lengths, 1, 1])
        self.gram = gram.view(self.count, self.count) if "gram" in dense else None
        self.sparse: Tensor | None = None  # the gram matrix in COO, where its layout is sparse
        if "gram" in of and "gram" not in dense:
            none = self.all.new_empty(2, 0, dtype=torch.int64)
            self.sparse = torch.sparse_coo_tensor(
                none, self.all[:0], (self.count, self.count), device=none.device
            ).coalesce()
        self.gradient = gradient if "gradient" in of else None
        self.diagonal = diagonal if "diagonal" in of else None

    def over(self, data: Iterable[Any], checkpoint: Checkpoint | None, every: int, progress: bool) -> None:
        """Add batch after batch."""
        kept = None if checkpoint is None else checkpoint.load()
        done = 0 if kept is None else int(kept["batches"])
        if kept is not None:
            self.all.copy_(kept["sums"])
            self.sparse = kept["sparse"]
        total = len(data) if isinstance(data, Sized) else None
        bar = import_tqdm()(total=total, desc="batches", leave=False) if progress else None
        number, items, output = 0, iter(data), None
        while True:
            batch = next(items, END)
            if batch is END:
                break
            number += 1
            if number == done:
                assert kept is not None
                assert checkpoint is not None
                checkpoint.check_output(self._output(batch), kept["output"])
            elif number > done:
                output = self._add(batch)
                if checkpoint is not None and number % every == 0:
                    checkpoint.save(self.all, self.sparse, number, output)
            del batch  # before the next one is asked for
            if bar is not None:
                bar.update(1)
        if number < done:
            raise ValueError(
                f"sums: the checkpoint holds {done} batches, and the data have {number}; they are not those it was "
                "made of"
            )
        if checkpoint is not None and output is not None and number % every:
            checkpoint.save(self.all, self.sparse, number, output)
        if bar is not None:
            bar.close()

    def _arguments(self, batch: Any) -> tuple[Any, ...]:
        return pytree.tree_unflatten(self.leaves, self.spec), *arguments(batch)

    def _output(self, batch: Any) -> Tensor:
        output: Tensor = self.jacobian(*self._arguments(batch))[0]
        return output

    def _add(self, batch: Any) -> Tensor:
        """Add what a batch gives, and give its output."""
        parameters, *rest = self._arguments(batch)
        output: Tensor
        output, tree = self.jacobian(parameters, *rest)
        output, jacobians = output.detach(), [J.detach() for J in pytree.tree_leaves(tree)]
        weight = self.weight and shaped(self.weight(output, *rest), output, "weight", square=True)
        if self.gradient is not None:
            residual = output if self.residual is None else self.residual(output, *rest)
            residual = shaped(residual, output, "residual").contiguous()
            for J, part in zip(jacobians, self._parts(self.gradient), strict=True):
                part += (residual.to(J.dtype) @ J).reshape(-1)
        if self.gram is not None:
            self._add_rows(jacobians, weight, self.gram.addmm_)
        if self.sparse is not None:
            self.sparse = (self.sparse + sparse_gram(jacobians, weight, self.all.dtype)).coalesce()
        if self.diagonal is not None:
            if self.gram is not None:
                self.diagonal.copy_(self.gram.diagonal())
            else:
                for J, part in zip(jacobians, self._parts(self.diagonal), strict=True):
                    self._add_rows([J], weight, partial(add_diagonal, part))
        self.batches += 1
        return output

    def _parts(self, vector: Tensor) -> tuple[Tensor, ...]:
        """Return what belongs to each of the tensors of parameters."""
        return vector.split_with_sizes(self.sizes)

    def _add_rows(
        self, jacobians: list[Jacobian], weight: Tensor | None, add: Callable[[Tensor, Tensor], Any]
    ) -> None:
        """Give Jᵀ and WJ of a few entries of the output's first dim at a time."""
        rows, *rest = jacobians[0].out_shape
        sizes = [prod(J.in_shape) for J in jacobians]
        height = prod(rest)
        step = max(1, ROWS // max(1, height * sum(sizes) * self.all.element_size()))
        for begin in range(0, rows, step):
            part = [J[begin : begin + step] for J in jacobians] if step < rows else jacobians
            count = part[0].out_shape[0]
            dense = self.all.new_empty(count, height, sum(sizes))
            for J, into in zip(part, dense.split_with_sizes(sizes, -1), strict=True):
                into.copy_(J.to_dense().reshape(count, height, -1))
            weighted = dense
            if weight is not None:
                here = weight[begin : begin + step].to(dense.dtype)
                if here.dim() == 1 + len(rest):
                    weighted = here.reshape(count, height, 1) * dense
                else:
                    weighted = here.reshape(count, height, height) @ dense
            add(dense.flatten(0, 1).mT, weighted.flatten(0, 1))

    def reduced(self, error: Exception | None, mesh: DeviceMesh) -> bool:
        """Sum over the ranks of a mesh, and tell whether one of them failed."""
        from .group import all_reduce

        self.failed.fill_(error is not None)
        all_reduce(self.all, mesh)
        failed = bool(self.failed.item())
        if self.sparse is not None and not failed:
            self.sparse = add_over_ranks(self.sparse, mesh)
        return failed

    def result(self) -> Sums:
        """Return the sums as the caller sees them."""
        shapes = [tuple(leaf.shape) for leaf in self.leaves]

        def unravel(vector: Tensor) -> Any:
            parts = [
                part.reshape(shape)
                for part, shape in zip(vector.split_with_sizes(self.sizes), shapes, strict=True)
            ]
            return pytree.tree_unflatten(parts, self.spec)

        gram = self.gram if self.sparse is None else self.sparse.to_sparse(layout=self.layout)
        return Sums(gram, self.gradient, self.diagonal, int(self.batches.item()), unravel)
