"""The public names and how they are called, in one table: nothing of it changes unseen."""

import inspect

import pytest
import torch

import torchjac
from torchjac import (
    Cost,
    Costs,
    Jacobian,
    ProgramCache,
    Report,
    Step,
    accumulate,
    distributed,
    extend,
    ipopt,
    scipy,
    store,
    testing,
)
from torchjac.distributed import Halo, ShardedJacobian, ShardedOperator
from torchjac.store import Stored

#: Taken from torch.func as they are; their signatures are PyTorch's.
FROM_TORCH = {
    "functional_call", "jvp", "linearize", "stack_module_state", "vjp", "vmap",
}  # fmt: skip

#: Made by the library and given to users, who do not make them.
GIVEN = {
    Cost,
    Costs,
    Jacobian,
    ProgramCache,
    Report,
    Step,
    accumulate.Sums,
    accumulate.Tile,
    extend.Node,
    Halo,
    ShardedJacobian,
    ShardedOperator,
    Stored,
}

#: The modules that have public names.
MODULES = (torchjac, accumulate, distributed, extend, ipopt, scipy, store, testing)

#: What a change of this table means: docs/project/deprecation.md.
TABLE = """
Jacobian.T
Jacobian.add_diagonal(self, values)
Jacobian.as_linear_operator(self)
Jacobian.block_diagonal(self)
Jacobian.blocks
Jacobian.cpu(self)
Jacobian.detach(self)
Jacobian.device
Jacobian.diagonal(self)
Jacobian.dtype
Jacobian.explain(self)
Jacobian.factors
Jacobian.gram(self, weight=None)
Jacobian.in_shape
Jacobian.kind
Jacobian.lstsq(self, right)
Jacobian.mT
Jacobian.matmat(self, vectors)
Jacobian.nnz
Jacobian.out_shape
Jacobian.pattern(self, layout=torch.sparse_coo)
Jacobian.row(self, index)
Jacobian.shape
Jacobian.slogdet(self)
Jacobian.solve(self, right, solver=None, preconditioner=None)
Jacobian.solved_as
Jacobian.spy(self, ax=None)
Jacobian.stored
Jacobian.to(self, *args, **kwargs)
Jacobian.to_bsr(self)
Jacobian.to_dense(self)
Jacobian.to_scipy(self, format='csr')
Jacobian.to_sparse(self, layout=torch.sparse_coo, *, index_dtype=torch.int64, triangle=None)
Jacobian.trace(self)
Report.answers
Report.costs
Report.lost
Report.summary
ShardedJacobian.add_diagonal(self, value)
ShardedJacobian.diagonal(self)
ShardedJacobian.gram(self, weight=None)
ShardedJacobian.halo
ShardedJacobian.nnz
ShardedJacobian.norm(self, ord='fro')
ShardedJacobian.rows
ShardedJacobian.shape
ShardedJacobian.solve(self, right, solver='gmres', preconditioner=None, *, tolerance=None, max_products=10000)
ShardedJacobian.to_dense(self)
ShardedJacobian.to_dsparse(self)
ShardedJacobian.to_petsc(self, comm=None)
ShardedJacobian.to_sparse(self)
Stored.as_linear_operator(self)
Stored.nnz
Stored.pieces(self)
Stored.to_scipy(self)
Stored.verify(self)
torchjac.Cost
torchjac.Costs
torchjac.Jacobian
torchjac.ProgramCache
torchjac.Report
torchjac.Step
torchjac.StructureLostWarning
torchjac.accumulate
torchjac.accumulate.Sums
torchjac.accumulate.Tile
torchjac.accumulate.kernel_tiles(func, parameters, data, *, start=0, progress=False, mesh=None)
torchjac.accumulate.sums(func, parameters, data, of=('gram', 'gradient'), *, weight=None, residual=None, dtype=None, \
layout=torch.strided, checkpoint=None, every=100, progress=False, mesh=None)
torchjac.block(parts)
torchjac.compile(func, *, backend='inductor', cache_size=64, dynamic=None)
torchjac.distributed.Halo
torchjac.distributed.RankError
torchjac.distributed.ShardedJacobian
torchjac.distributed.ShardedOperator
torchjac.distributed.jacobian(func, mesh, argnums=0)
torchjac.distributed.local_jacobian(func, halo, out_shape=None)
torchjac.distributed.local_rows(size, mesh)
torchjac.distributed.row_tasks(func, count, argnums=0)
torchjac.distributed.together(mesh)
torchjac.distributed.value_and_local_jacobian(func, halo, out_shape=None)
torchjac.explain(func, argnums=0, *, has_aux=False, measure=False)
torchjac.export(func, example_args, path, example_kwargs=None)
torchjac.extend
torchjac.extend.Affine(offset, terms)
torchjac.extend.Block(value, on, out, wrt)
torchjac.extend.Gather(index, labels)
torchjac.extend.LocalJacobian(locals=(), batch_dims={}, others={}, alternatives={}, scans={})
torchjac.extend.Label(size)
torchjac.extend.Local(input, block, slot=0, selects=False)
torchjac.extend.Node
torchjac.extend.TermCost(terms, inner, entries, make, scales=False, whole=False)
torchjac.extend.bare(label)
torchjac.extend.broadcast(over, shape)
torchjac.extend.call(node, cotangents, wanted=None)
torchjac.extend.constant(position)
torchjac.extend.local(node, k, out, wrt, value=1.0, on='', slot=0)
torchjac.extend.new_labels(shape)
torchjac.extend.ones(node, slot=0)
torchjac.extend.rule(*ops, any_dtype=False)
torchjac.extend.spelling(terms)
torchjac.extend.spread(value, over)
torchjac.extend.unregister(*ops)
torchjac.grad(func, argnums=0, has_aux=False)
torchjac.grad_and_value(func, argnums=0, has_aux=False)
torchjac.hessian(func, argnums=0, *, has_aux=False, chunk_size=None, layout=torch.strided, progress=False, memory=None, \
triangle=None)
torchjac.ipopt.Problem(objective, x0, constraints=None)
torchjac.jacfwd(func, argnums=0, has_aux=False, *, randomness='error')
torchjac.jacobian(func, argnums=0, *, has_aux=False, mode='auto', progress=False, memory=None)
torchjac.jacrev(func, argnums=0, *, has_aux=False, chunk_size=None, layout=torch.strided, progress=False, out=None, memory=None)
torchjac.pieces(func, argnums=0, *, memory='1 GB')
torchjac.program_cache(*, max_bytes=None, clear=False)
torchjac.scipy.Constraint(func, lower, upper)
torchjac.scipy.least_squares_args(func, x0, method=None)
torchjac.scipy.minimize_args(func, x0, constraints=(), hessian=None, method=None)
torchjac.scipy.root_args(func, x0)
torchjac.scipy.solve_ivp_args(func, y0, method=None)
torchjac.store.Stored
torchjac.store.open(path)
torchjac.store.verify(path)
torchjac.store.write(func, x, path, layout='dense', memory='1 GB', progress=True)
torchjac.testing
torchjac.testing.check_jacobian(func, *args, argnums=0, rtol=1e-07, atol=1e-09, differences=True)
torchjac.testing.check_rule(op, *args, differences=True)
torchjac.testing.finite_differences(func, *args, argnum=0, step=1e-06)
torchjac.testing.loop_jacobian(func, *args, argnum=0)
torchjac.value_and_jacobian(func, argnums=0, *, has_aux=False, mode='auto', progress=False)
torchjac.warn_structure_lost(enabled=True)
"""  # noqa: E501


def alternatives(name, thing):
    """A name with its arguments and defaults, without annotations; properties and attributes as a bare name."""
    if not callable(thing):
        return name
    if isinstance(thing, type) and (issubclass(thing, (Warning, RuntimeError)) or thing in GIVEN):
        return name
    try:
        signature = inspect.signature(thing)
    except (TypeError, ValueError):  # a type alias, or a class of C
        return name
    bare = inspect.Parameter.empty
    parameters = [p.replace(annotation=bare) for p in signature.parameters.values() if p.name[0] != "_"]
    return name + str(signature.replace(parameters=parameters, return_annotation=bare))


def found():
    """The table as it is."""
    for module in MODULES:
        for name in module.__all__:
            if name not in FROM_TORCH:
                yield alternatives(f"{module.__name__}.{name}", getattr(module, name))
    for cls in (Jacobian, Report, ShardedJacobian, Step, Stored):
        for name in dir(cls):
            if (
                not name.startswith("_")
                and name not in dir(tuple)
                and name not in vars(cls).get("__slots__", ())
            ):
                yield alternatives(f"{cls.__name__}.{name}", inspect.getattr_static(cls, name))


def test_table():
    """Each public name is called as the table says, and there are no others."""
    assert sorted(found()) == sorted(TABLE.split("\n")[1:-1])


@pytest.mark.parametrize("name", sorted(FROM_TORCH))
def test_from_torch(name):
    """One import line replaces torch.func's."""
    assert getattr(torchjac, name) is getattr(torch.func, name)


def test_every_name_is_documented():
    """Each public name has a docstring."""
    for module in MODULES:
        for name in module.__all__:
            thing = getattr(module, name)
            assert inspect.getdoc(thing), f"{module.__name__}.{name}"
