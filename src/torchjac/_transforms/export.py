"""export: a Jacobian as a package of AOTInductor, which PyTorch loads without this library, in Python and in C++."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy
import torch
from torch import Tensor, fx

from .._answers.frame import SparseParts
from .._answers.operator import Jacobian
from .._torch import inductor, pytree
from .backend import inductor_settings
from .call_function import check_callable
from .compile import Compiled, observed
from .op_recording import is_random
from .program import trace
from .signature import check_call, read_call

#: Names of the index tensors of each layout, as PyTorch has them.
_PLACES = {
    torch.sparse_coo: ("indices",),
    torch.sparse_csr: ("crow_indices", "col_indices"),
    torch.sparse_csc: ("ccol_indices", "row_indices"),
}


def export(
    func: Callable[..., Any],
    example_args: Sequence[Any],
    path: str | os.PathLike[str],
    example_kwargs: Mapping[str, Any] | None = None,
) -> None:
    """Write a function that takes Jacobians as a package that PyTorch loads alone, in Python and in C++.

    The package is AOTInductor's: ``torch._inductor.aoti_load_package(path)`` gives a function of the same arguments,
    in a process where torchjac need not be installed; in C++ it is ``torch::inductor::AOTIModelPackageLoader``, which
    takes and gives the tensors in the order of the trees' leaves. Gradients end there.

    Args:
        func: what `compile` takes: what a transform returned, a function that calls one, or a compiled one.
        example_args: its arguments. The package is for their shapes, strides, dtypes and devices, and for the values
            of those that are no tensors; the values of tensors do not matter.
        path: the file to write; its name ends with ``.pt2``. Where an answer is sparse, index arrays are written beside
            it, into a file that ends with ``.npz``.
        example_kwargs: keyword arguments.

    An answer in a sparse layout, and a `Jacobian` (as ``sparse_coo``), is the tensor of its nonzeros' values in the
    order of PyTorch's layout. Where they stand is the same for all values: for the k-th tensor of the answer, "k.shape"
    and "k.indices" of the ``.npz``, or "k.crow_indices" and "k.col_indices" (CSR), or "k.ccol_indices" and
    "k.row_indices" (CSC).

    Tensors that ``func`` captures, parameters of modules among them, are written with their values of today.

    The loaded function does not check its arguments: others than the example's shapes, strides and dtypes are
    read wrongly, unless the environment sets ``AOTI_RUNTIME_CHECK_INPUTS=1``.

    Raises:
        RuntimeError: where `compile` raises it, as where the nonzeros stand depends on values; if ``func`` draws
            random numbers or writes into tensors that it captures.
        NotImplementedError: for tensor arguments, or captured tensors, that are not dense; where AOTInductor
            cannot take complex numbers.
        TypeError: if ``func`` is not callable, ``example_args`` is neither a tuple nor a list, an argument is neither a
            tensor nor hashable, or the answer holds something else than tensors and Jacobians.
        ValueError: if ``path`` does not end with ``.pt2``.

    Example:
        >>> import torch
        >>> import torchjac
        >>> jac = torchjac.jacrev(lambda x: x[1:] * x[:-1])
        >>> torchjac.export(jac, (torch.ones(3),), "products.pt2")  # doctest: +SKIP
        >>> torch._inductor.aoti_load_package("products.pt2")(torch.tensor([1.0, 2.0, 3.0]))  # doctest: +SKIP
        tensor([[2., 1., 0.],
                [0., 3., 2.]])
    """
    check_callable(func, "export")
    path = Path(path)
    if path.suffix != ".pt2":
        raise ValueError(f"export: path must end with .pt2, got {str(path)!r}")
    if not isinstance(example_args, (tuple, list)):
        raise TypeError(
            f"export: example_args must be a tuple of arguments, as (x,), got {type(example_args).__name__}"
        )
    args, kwargs = tuple(example_args), dict(example_kwargs or {})
    call = read_call(args, kwargs)
    check_call(call)
    what = func._func if isinstance(func, Compiled) else func
    found: list[Any] = []  # the leaves of the answer, and its tree

    def flat(*args: Any, **kwargs: Any) -> list[Any]:
        with torch.no_grad():
            leaves, spec = pytree.tree_flatten(what(*args, **kwargs), is_leaf=_is_leaf)
            leaves = [leaf.to_sparse() if isinstance(leaf, Jacobian) else leaf for leaf in leaves]
        found[:] = leaves, spec
        return leaves

    traced, _ = observed(what, call, lambda _, call, observer: trace(flat, call, observer))
    leaves, spec = found
    patterns = {
        f"{number}.{name}": array
        for number, leaf in enumerate(leaves)
        for name, array in _pattern(number, leaf).items()
    }
    graph = traced.forward.graph
    if is_random(graph):
        raise RuntimeError(
            "export: the function draws random numbers; draw them outside and pass them as an argument"
        )
    if traced.forward.writes:
        raise RuntimeError(
            "export: the function writes into tensors that are not its own (BatchNorm in training mode does); "
            "call module.eval(), or return what is to be written"
        )
    with torch.no_grad():
        settings = inductor_settings(graph)
        module = _Answers(graph, traced.forward.captured, spec)
        exported = torch.export.export(module, args, kwargs, strict=False)
        try:
            inductor("").aoti_compile_and_package(exported, package_path=str(path), inductor_configs=settings)
        except inductor("exc").InductorError as error:
            made = [node.meta.get("val") for node in graph.graph.nodes]
            if not any(isinstance(value, Tensor) and value.is_complex() for value in made):
                raise
            raise NotImplementedError(
                "export: AOTInductor of this PyTorch makes no package of these complex numbers; compute with pairs of "
                "real ones (torch.view_as_real), or call torchjac.compile, which takes them"
            ) from error
    if patterns:
        numpy.savez(path.with_suffix(".npz"), **patterns)


class _Answers(torch.nn.Module):
    """A recorded graph as a module: the tensors that it captured are its buffers."""

    def __init__(self, graph: fx.GraphModule, captured: Sequence[Tensor], spec: Any) -> None:
        super().__init__()
        self.graph, self.spec, self.count = graph, spec, len(captured)
        for number, tensor in enumerate(captured):
            self.register_buffer(f"captured_{number}", tensor.detach())

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """Return the answers as a tree of tensors."""
        given = [leaf for leaf in pytree.tree_leaves((args, kwargs)) if isinstance(leaf, Tensor)]
        captured = [getattr(self, f"captured_{number}") for number in range(self.count)]
        return pytree.tree_unflatten(list(self.graph(*given, *captured)), self.spec)


def _is_leaf(tree: Any) -> bool:
    return isinstance(tree, (Jacobian, SparseParts))


def _pattern(number: int, leaf: Any) -> dict[str, Any]:
    """Return the arrays that tell where the nonzeros of a sparse answer stand.

    Raises:
        TypeError: if it is no tensor.
    """
    if isinstance(leaf, Tensor):
        return {}
    if not isinstance(leaf, SparseParts):
        raise TypeError(
            f"export: tensor {number} of the answer must be a tensor or a Jacobian, got {leaf!r} of type "
            f"{type(leaf).__name__}; return it from another function"
        )
    places = zip(_PLACES[leaf.layout], leaf.places, strict=True)
    return {"shape": numpy.array(leaf.size), **{name: place.numpy(force=True) for name, place in places}}
