"""Dense Jacobians under `torch.compile`: one op of its graph, whose body is the function as Dynamo read it.

Dynamo traces the function itself, so it guards what the function reads, lifts the tensors that it captures, and
refuses what it cannot follow. The walk runs where the op is called: without values for the shapes, then under
AOTAutograd's tracer, which records what the Jacobian's values need.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from typing import Any, TypeVar

import torch
from torch import Tensor

from .._capture.constant_folding import constants_computed
from .._torch import HigherOrderOperator, dynamo, graph_break, is_watched_by_dynamo, pytree, tracer_mode
from .arguments import check_argnums, check_outputs, differentiated, nest, put_arguments, split_aux, unflatten
from .call_function import record
from .dense import dense_jacobians
from .exporting import is_exporting, replayed

T = TypeVar("T")

NAME = "torchjac_dense_jacobian"

_VERSION = tuple(map(int, torch.__version__.split(".")[:2]))

#: Whether Dynamo takes such an op; its own side of one is not the same from version to version.
HAS_OP = _VERSION >= (2, 13)


class DenseJacobian(HigherOrderOperator):
    """The outputs of a body and their dense Jacobians.

    ``body`` takes tensors and gives a list: first ``outputs`` tensors that are differentiated, with respect to the
    first ``inputs`` tensors among the operands, then others that are handed through. The op gives those others, and
    then a Jacobian for each output and input. Operands that are sizes come first.
    """

    def __init__(self) -> None:
        super().__init__(NAME)  # type: ignore[no-untyped-call]

    def __call__(
        self,
        body: Any,
        what: str,
        mode: str,
        chunk_size: int | None,
        inputs: int,
        outputs: int | None,
        *operands: Any,
    ) -> Any:
        """Take the Jacobians; see the class.

        Without a number of outputs it is `in_dynamo` that calls, as Dynamo could not follow the body.
        """
        how: Any = _run if outputs is not None else _run_apart
        settings = body, what, mode, chunk_size, inputs, outputs
        if is_exporting():
            return replayed(lambda *operands: how(*settings, operands), operands, {})
        return torch.compiler.disable(how)(*settings, operands)

    @property
    def __name__(self) -> str:
        """Its name, which is the first thing that Dynamo asks for: only then is Dynamo told what the op is.

        Told when torchjac is imported, it would have to be imported too, which takes seconds.
        """
        _tell_dynamo()
        return NAME

    @__name__.setter
    def __name__(self, name: str) -> None:
        pass


def _run(
    body: Any,
    what: str,
    mode: str,
    chunk_size: int | None,
    inputs: int,
    outputs: int,
    operands: Sequence[Any],
) -> tuple[Tensor, ...]:
    fixed = [_fixed(operand) for operand in operands]
    first = next((at for at, operand in enumerate(fixed) if isinstance(operand, Tensor)), 0)
    sizes, given_leaves, rest = fixed[:first], fixed[first : first + inputs], fixed[first + inputs :]

    def func(*leaves: Tensor) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
        results = body(*sizes, *leaves, *rest)
        return tuple(results[:outputs]), tuple(results[outputs:])

    # Index tensors of blocks are constants with values, and a backward pass through the answer reads them.
    if (fake := tracer_mode("FAKE")) is not None:
        fake.allow_non_fake_inputs = True
    # AOTAutograd records in anomaly mode to know which line made an op; nobody asked that the engine be watched.
    folding = constants_computed()
    with folding as constants, torch.autograd.set_detect_anomaly(False):
        recorded = record(what, func, tuple(range(inputs)), True, tuple(given_leaves), {})
        recorded = recorded._replace(outermost=folding.begun)
        answers = dense_jacobians(recorded, chunk_size, mode)
        _, others = recorded.finish(answers, True)
        given = (*others, *[answer for row in answers for answer in row])
        return tuple([constants.now(each) if isinstance(each, Tensor) else each for each in given])


def _run_apart(
    body: Any, what: str, mode: str, chunk_size: int | None, inputs: int, _: None, leaves: Sequence[Any]
) -> tuple[Any, list[Tensor]]:
    """Return what Dynamo makes of the op, without Dynamo: what else the body returned, and the Jacobians in a row."""
    recorded = record(what, body, tuple(range(inputs)), True, tuple(leaves), {})
    found, rest = recorded.finish(dense_jacobians(recorded, chunk_size, mode), True)
    return rest, pytree.tree_leaves(found)


def _fixed(operand: Any) -> Any:
    """Return an operand with sizes that are numbers: which blocks there are depends on them."""
    if isinstance(operand, torch.SymInt):
        return int(operand)
    if not isinstance(operand, Tensor) or not any(isinstance(n, torch.SymInt) for n in operand.shape):
        return operand
    return operand.as_strided([int(n) for n in operand.shape], [int(n) for n in operand.stride()])


def _sizes_first(module: torch.fx.GraphModule, operands: Sequence[Any]) -> list[Any]:
    """Put the sizes that a body takes in front of its tensors, and give its operands in that order.

    Dynamo asks the first tensor for a size that no placeholder before it gave, and inside vmap it cannot tell
    (torch 2.13).
    """
    places = module.graph.find_nodes(op="placeholder")
    is_size = [isinstance(place.meta.get("example_value"), torch.SymInt) for place in places]
    for place, size in zip(places, is_size, strict=True):
        if size:
            places[0].prepend(place)
    module.recompile()
    sizes = [operand for operand, size in zip(operands, is_size, strict=True) if size]
    return sizes + [operand for operand, size in zip(operands, is_size, strict=True) if not size]


dense_jacobian = DenseJacobian()


def seen_by_tracers(
    what: str,
    func: Callable[..., Any],
    transformed: Callable[..., T],
    settings: tuple[str, int | tuple[int, ...], bool, int | None] | None = None,
) -> Callable[..., T]:
    """Return ``transformed``, which a transform made of ``func``, as it is seen by Dynamo and `torch.export`.

    Where it gives dense answers, ``settings`` are its mode, argnums, has_aux and chunk_size, and Dynamo traces
    ``func``. Dynamo leaves any other as it is, with all that it calls; with ``fullgraph=True`` it is refused.
    """
    dense = settings if HAS_OP else None

    @wraps(func)
    def seen(*args: Any, **kwargs: Any) -> T:
        found: T
        if torch.compiler.is_dynamo_compiling():
            if dense is not None:
                mode, argnums, has_aux, chunk_size = dense
                found = in_dynamo(what, mode, func, argnums, has_aux, chunk_size, args, kwargs)
                return found
            graph_break(
                f"{what} inside torch.compile: only dense answers of jacrev, jacfwd and hessian are compiled there, "
                "by PyTorch 2.13 or newer; torchjac.compile takes operators, sparse layouts and out= too"
            )
            found = torch.compiler.disable(transformed)(*args, **kwargs)
            return found
        if is_exporting():
            found = replayed(transformed, args, kwargs)
            return found
        if is_watched_by_dynamo():  # it gave up at this call, and would read what the library does
            found = torch.compiler.disable(transformed)(*args, **kwargs)
            return found
        return transformed(*args, **kwargs)

    return seen


def in_dynamo(
    what: str,
    mode: str,
    func: Callable[..., Any],
    argnums: int | tuple[int, ...],
    has_aux: bool,
    chunk_size: int | None,
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    """Return what a transform returns, as Dynamo traces it."""
    positions = check_argnums(argnums, len(args), what)
    leaves, in_spec = differentiated(args, argnums, positions, what)

    def body(*given: Tensor) -> Any:
        chosen = unflatten(given, in_spec)
        with torch.enable_grad():  # as it will run: modules ask for the mode
            result = func(*put_arguments(args, argnums, positions, chosen), **kwargs)
            output, aux = split_aux(result, what) if has_aux else (result, None)
            outputs, _ = check_outputs(output, what)
            # Dynamo names a tensor once, however often it is returned: an output twice, or as aux too, would be lost.
            own = tuple([each.view_as(each) for each in outputs])
        return own, (pytree.tree_map(lambda _: 0, output), aux)

    traced: Any = dense_jacobian
    (like, aux), flat = traced(body, what, mode, chunk_size, len(leaves), None, *leaves)
    _, out_spec = pytree.tree_flatten(like)
    rows = [flat[at : at + len(leaves)] for at in range(0, len(flat), len(leaves))]
    tree = nest(rows, out_spec, in_spec)
    return (tree, aux) if has_aux else tree


class _FunctionsRefused:  # a context manager, and used as one
    """Let Dynamo read no `torch.autograd.Function`: of tensors that ask for no gradients it reads the forward alone.

    They ask for them where the body runs, and the Function's own backward would be lost.
    """

    def __enter__(self) -> None:
        self.kind = dynamo("variables").AutogradFunctionVariable
        self.before = self.kind.call_apply
        self.kind.call_apply = _refuse_function

    def __exit__(self, *_: object) -> None:
        self.kind.call_apply = self.before


def _refuse_function(function: Any, *_: Any) -> Any:
    dynamo("exc").unimplemented(
        gb_type="torch.autograd.Function inside a Jacobian",
        context=f"{function.fn_cls.__name__}.apply",
        explanation="Dynamo would lose its backward, or second derivatives of it.",
        hints=["Without fullgraph=True the Jacobian is found without Dynamo; torchjac.compile takes it."],
    )


def _tell_dynamo() -> None:
    """Register how Dynamo is to trace the op: the body as a subgraph, with the tensors that it captures lifted."""
    variables, builder = dynamo("variables"), dynamo("variables.builder")
    higher_order_ops: Any = dynamo("variables.higher_order_ops")

    if NAME in higher_order_ops._hop_name_to_variable_class:
        return

    class DenseJacobianVariable(higher_order_ops.WrapHigherOrderVariable):  # type: ignore[misc]
        _HOP_NAME = NAME

        def _call_function(self, tx: Any, args: Any, kwargs: Any) -> Any:
            what, mode, chunk_size, _, _, *leaves = args[1:]
            with _FunctionsRefused():
                operands, _, _, result, module, _, tensors, _ = self.create_wrapped_node(
                    tx, args[0], leaves, {}, NAME,
                    subgraph_name=NAME, set_subgraph_inputs="automatic_with_forced_inputs",
                )  # fmt: skip
            body, *operands = operands
            operands = _sizes_first(module, operands)
            outputs, rest = result.items
            count = len(outputs.items)
            settings = [each.as_python_constant() for each in (what, mode, chunk_size)]
            proxy = tx.output.create_proxy(
                "call_function",
                self.value,
                args=(body, *settings, len(leaves), count, *operands),
                kwargs={},
            )
            flat: Any = builder.wrap_fx_proxy(tx=tx, proxy=proxy)
            others = list(tensors)[count:]
            higher_order_ops.overwrite_tensor_vt_proxy(
                others, variables.TupleVariable(flat.items[: len(others)])
            )
            return variables.TupleVariable([rest, variables.TupleVariable(flat.items[len(others) :])])

    higher_order_ops._hop_name_to_variable_class[NAME] = DenseJacobianVariable
