"""The peers outside PyTorch: jax, asdex, sparsejac and CasADi. Each is imported when it is asked for."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import numpy as np
from scipy.sparse import coo_array, csr_array

from .answers import NotForThisError, Numbers, at_places, dense_numbers
from .problem import Problem


def ready(call: Callable[..., Any], *args: Any) -> Any:
    """A call that returns when its answer is there."""
    import jax

    return jax.block_until_ready(call(*args))


def needs_jax(problem: Problem) -> None:
    """Raise where the problem has no spelling in jax."""
    problem.jax_constants  # noqa: B018 - the import may fail; and arrays made while jax traces would be its tracers
    if not problem.workload.jax:
        raise NotForThisError("no spelling in jax")


def jax_dense(build: Any, problem: Problem, name: str) -> Any:
    """``jax.jit(jax.jacrev(f))`` or ``jacfwd``; a Hessian is that over ``jax.grad``."""
    needs_jax(problem)
    jax, workload = problem.jax, problem.workload
    jac = getattr(jax, name)
    transform = jac if workload.order == 1 else lambda function: jac(jax.grad(function))
    if workload.batched:
        spelling = workload.by_hand or mapped
        call = spelling(jax.vmap, transform, problem.jax_function)
    else:
        call = problem.with_transform(transform, problem.jax_function)
    return build(partial(ready, jax.jit(call), problem.jax_x, *problem.jax_constants), dense_numbers)


def mapped(
    vmap: Callable[..., Any], jac: Callable[..., Any], function: Callable[..., Any]
) -> Callable[..., Any]:
    """The Jacobian of each row."""
    return lambda x, *constants: vmap(jac(lambda row: function(row, *constants)))(x)


def jax_by_hand(build: Any, problem: Problem) -> Any:
    """``jax.jit(jax.vmap(jax.jacrev(f)))`` where a person would write that."""
    needs_jax(problem)
    workload, jax = problem.workload, problem.jax
    if workload.by_hand is None or workload.by_hand_places is None or workload.batched:
        raise NotForThisError("no spelling by vmap")
    call = jax.jit(workload.by_hand(jax.vmap, jax.jacrev, problem.jax_function))
    return build(
        partial(ready, call, problem.jax_x, *problem.jax_constants), at_places(workload.by_hand_places)
    )


def bcoo(answer: Any) -> Numbers:
    """The matrix of a BCOO of two dims; indices out of its range are padding."""
    indices, values = np.asarray(answer.indices), np.asarray(answer.data)
    inside = (indices < np.array(answer.shape)).all(1)
    where = tuple(indices[inside].T)
    return csr_array(coo_array((values[inside], where), shape=answer.shape))


def flattened(problem: Problem) -> Callable[..., Any]:
    """The function from a vector to a vector (or to a number): what sparse libraries are made for."""
    shape = problem.jax_x.shape

    def function(x: Any) -> Any:
        value = problem.jax_function(x.reshape(shape), *problem.jax_constants)
        return value if problem.workload.order == 2 else value.reshape(-1)

    return function


def asdex(build: Any, problem: Problem, output: str) -> Any:
    """asdex, jitted; detection and colouring are made once and told apart."""
    import asdex as library

    needs_jax(problem)
    workload = problem.workload
    if not workload.structured:
        raise NotForThisError("the Jacobian is dense")
    kind = "jacobian" if workload.order == 1 else "hessian"

    function, x = flattened(problem), problem.jax_x.reshape(-1)
    start = perf_counter()
    sparsity = getattr(library, f"{kind}_sparsity")(function, x)
    detected = perf_counter()
    coloring = getattr(library, f"{kind}_coloring_from_sparsity")(sparsity)
    colored = perf_counter()
    call = problem.jax.jit(getattr(library, f"{kind}_from_coloring")(function, coloring, output))
    return build(
        partial(ready, call, x),
        dense_numbers if output == "dense" else bcoo,
        {"detection": detected - start, "coloring": colored - detected},
    )


def sparsejac(build: Any, problem: Problem) -> Any:
    """sparsejac, jitted; it is given the pattern, which it cannot find, and colours it itself."""
    import sparsejac as library
    from jax.experimental.sparse import BCOO

    needs_jax(problem)
    workload, jax = problem.workload, problem.jax
    if not workload.structured or workload.blocks_places is None:
        raise NotForThisError("the Jacobian is dense" if not workload.structured else "no pattern to give it")
    where = workload.blocks_places()
    indices = np.stack([where.rows, where.columns], 1)
    pattern = BCOO((np.ones(len(indices)), jax.numpy.asarray(indices)), shape=where.shape)
    flat = flattened(problem)
    start = perf_counter()
    call = jax.jit(library.jacrev(flat if workload.order == 1 else jax.grad(flat), pattern))
    colored = perf_counter() - start
    return build(partial(ready, call, problem.jax_x.reshape(-1)), bcoo, {"coloring": colored})


def casadi(build: Any, problem: Problem, answer: str) -> Any:
    """CasADi's virtual machine on a symbolic Jacobian; it has float64 only."""
    import casadi as library

    workload = problem.workload
    if workload.casadi is None:
        raise NotForThisError("not natural in CasADi")
    if (answer == "structured") != workload.structured:
        raise NotForThisError("its answer is sparse" if workload.structured else "the Jacobian is dense")
    if problem.dtype != "float64":
        raise NotForThisError("float64 only")
    start = perf_counter()
    x = library.SX.sym("x", workload.x.size)
    constants = [constant.tolist() for constant in workload.constants]
    value = workload.casadi(library, x, *constants)
    matrix = library.jacobian(value, x) if workload.order == 1 else library.hessian(value, x)[0]
    function = library.Function("jacobian", [x], [matrix])
    spent = perf_counter() - start
    rows, columns = map(np.asarray, matrix.sparsity().get_triplet())
    values, given = np.zeros(len(rows)), np.ascontiguousarray(workload.x.reshape(-1))
    buffer, run = function.buffer()
    buffer.set_arg(0, memoryview(given))
    buffer.set_res(0, memoryview(values))

    def numbers(_: Any) -> Numbers:
        found = csr_array(coo_array((values, (rows, columns)), shape=matrix.shape))
        return found if answer == "structured" else [found.toarray().reshape(-1)]

    # The buffer holds plain pointers: it must stay alive with what they point to.
    call = partial(lambda *_: run(), buffer, given, values)
    return build(call, numbers, {"symbolic": spent})


#: Name, form of the answer, and maker of each.
MAKERS: list[tuple[str, str, Callable[..., Any]]] = [
    ("jax.jit(jacrev)", "dense", partial(jax_dense, name="jacrev")),
    ("jax.jit(jacfwd)", "dense", partial(jax_dense, name="jacfwd")),
    ("jax.jit(vmap(jacrev))", "structured", jax_by_hand),
    ("asdex", "dense", partial(asdex, output="dense")),
    ("asdex", "structured", partial(asdex, output="bcoo")),
    ("sparsejac", "structured", sparsejac),
    ("CasADi", "dense", partial(casadi, answer="dense")),
    ("CasADi", "structured", partial(casadi, answer="structured")),
]
