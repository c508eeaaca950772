"""One compiled program for many sizes: the numbers of a recorded graph that follow from sizes are inputs of its code.

Each size is recorded, which takes a fraction of a compilation. Where a graph is that of another size but for numbers
(sizes, strides, offsets, the factor of a mean), those that differ become inputs, and one code runs for both and for
every further size whose recording is the same again: nothing is taken to hold at a size that was not recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import zip_longest
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, fx

from .._torch import FakeTensorMode, OpOverload, TracingContext, dynamo, symbolic_shapes, tracing
from .backend import Run, compile_graph, compiled_by

#: A number at each size seen, and its kind: int, or for floats the dtype that it is computed with.
Column: TypeAlias = tuple[Any, ...]

#: Gives the size or stride of an input, or another number, from the inputs and the numbers of a graph.
Get: TypeAlias = Callable[[Sequence[Tensor], dict[Column, Any]], int]


class GraphForm(NamedTuple):
    """A graph without its numbers, a line for each op, and the numbers with their kinds in their order."""

    lines: list[str]
    numbers: list[tuple[Any, Any]]


def form_of(graph: fx.GraphModule) -> GraphForm:
    """Return a graph's ops and numbers apart; those of an input are its sizes."""
    lines: list[str] = []
    numbers: list[tuple[Any, Any]] = []
    names: dict[Any, str] = {}

    def leaf(value: Any, kind: Any) -> str:
        if kind is None:
            return names.get(value, repr(value)) if isinstance(value, fx.Node) else repr(value)
        numbers.append((kind, value))
        return "#"

    for node in graph.graph.nodes:
        names[node] = f"%{len(names)}"
        if node.op == "placeholder":
            tensor = node.meta["val"]
            numbers.extend((int, size) for size in tensor.shape)
            lines.append(f"an input of {tensor.dim()} dims, {tensor.dtype}, {tensor.device}")
        else:
            lines.append(f"{node.target}{_mapped(node, leaf)}")
    return GraphForm(lines, numbers)


def _mapped(node: fx.Node, leaf: Callable[[Any, Any], Any]) -> tuple[Any, Any]:
    """Return the arguments of a node with each leaf replaced by a function of it, and of its kind if it is a number.

    A float is one where it stands for a tensor: as that, it may be an input.
    """
    is_tensor = isinstance(node.target, OpOverload) and node.target._overloadname == "Tensor"
    made = node.meta.get("val")
    is_double = isinstance(made, Tensor) and made.dtype in (torch.float64, torch.complex128)
    dtype = torch.float64 if is_double else torch.float32

    def integer(value: Any) -> Any:
        return leaf(value, int if type(value) is int else None)

    def number(value: Any) -> Any:
        return leaf(value, dtype) if type(value) is float and is_tensor else integer(value)

    return fx.node.map_aggregate(node.args, number), fx.node.map_aggregate(node.kwargs, integer)


class SharedCode:
    """Compiles the graphs of one function for several sizes; see the module.

    ``compiled`` counts what was handed to the backend: the first size alone, then all of them.
    """

    def __init__(self, backend: Any) -> None:
        self.compiled = 0
        self._backend = backend
        self._seen: list[GraphForm] = []
        self._general: _General | None = None

    def __call__(self, graph: fx.GraphModule, example: list[Tensor]) -> Run:
        """Return what runs a graph.

        Raises:
            RuntimeError: if it is not that of the sizes before but for numbers.
        """
        _zeros_alike(graph)
        form = form_of(graph)
        if self._seen:
            _check_same(self._seen[0], form)
        run = None if self._general is None else self._general.run_for(form, example)
        if run is None:
            self._seen.append(form)
            self.compiled += 1
            if len(self._seen) == 1:
                return compile_graph(graph, example, self._backend)
            self._general = _General(graph, example, self._seen, self._backend)
            run = self._general.run_for(form, example)
        if run is None:
            raise RuntimeError(
                "compile: dynamic=True: the backend takes a size for a constant in the program of this function; "
                "leave dynamic out, for a program for each size"
            )
        return run


def _zeros_alike(graph: fx.GraphModule) -> None:
    """Write zeros in one way, be they many or few."""
    for node in graph.graph.find_nodes(op="call_function", target=torch.ops.torchjac.zeros.default):
        node.target, node.args = torch.ops.aten.zeros.default, ([node.args[0]],)
        node.kwargs = {**node.kwargs, "pin_memory": False}
    graph.recompile()


def _check_same(first: GraphForm, form: GraphForm) -> None:
    for number, (before, now) in enumerate(zip_longest(first.lines, form.lines, fillvalue="nothing")):
        if before != now:
            raise RuntimeError(
                f"compile: dynamic=True: the programs for two sizes are not one: step {number} is {before} for the "
                f"first size and {now} for this one (which blocks meet, and what is cheapest, follows from the sizes); "
                "leave dynamic out, for a program for each size, or pad what comes in many sizes to a few"
            )


class _General:
    """A graph compiled with the numbers as inputs that differed among the sizes seen."""

    def __init__(
        self, graph: fx.GraphModule, example: Sequence[Tensor], seen: Sequence[GraphForm], backend: Any
    ) -> None:
        self._columns: list[Column] = [
            (numbers[0][0], *[value for _, value in numbers])
            for numbers in zip(*[form.numbers for form in seen], strict=True)
        ]
        #: The columns that are inputs: each stands for all that were equal to it at all sizes.
        self._inputs = list(dict.fromkeys(filter(_differs, self._columns)))
        self._facts: list[tuple[Any, Get]] = []
        self._env = symbolic_shapes().ShapeEnv(duck_shape=False)
        mode = FakeTensorMode(shape_env=self._env)
        given = [
            *self._without_sizes(example, mode),
            *[self._without_value(each, mode) for each in self._inputs],
        ]
        with torch.no_grad(), tracing(TracingContext(mode)):
            self._run = compiled_by(backend, self._with_inputs(graph), given)

    def run_for(self, form: GraphForm, example: Sequence[Tensor]) -> Run | None:
        """Return what runs a graph with its numbers; None where the code is not for them."""
        found: dict[Column, Any] = {}
        for column, (_, value) in zip(self._columns, form.numbers, strict=True):
            if found.setdefault(column, value) != value or not (_differs(column) or column[1] == value):
                return None
        facts = [(size, get(example, found)) for size, get in self._facts]
        values = {size: value for size, value in facts if getattr(size, "is_Symbol", False)}
        if (
            any((size if isinstance(size, int) else size.subs(values)) != value for size, value in facts)
            or any(value not in self._env.var_to_range[symbol] for symbol, value in values.items())
            or not all(guard.expr.subs(values) in (True,) for guard in self._env.guards)
        ):
            return None
        run = self._run
        numbers = [
            found[column] if column[0] is int else torch.tensor(found[column], dtype=column[0], device="cpu")
            for column in self._inputs
        ]
        return lambda tensors: run(*tensors, *numbers)

    def _without_sizes(self, example: Sequence[Tensor], mode: FakeTensorMode) -> Iterator[Tensor]:
        """Yield tensors whose sizes are symbols where they differed, and note what their sizes and strides are."""
        columns, shapes = iter(self._columns), symbolic_shapes()
        dynamic, static = shapes.DimDynamic.DYNAMIC, shapes.DimDynamic.STATIC
        for number, tensor in enumerate(example):
            dims: Any = [dynamic if _differs(next(columns)) else static for _ in tensor.shape]
            real = torch.empty_strided(
                tensor.shape, tensor.stride(), dtype=tensor.dtype, device=tensor.device
            )
            fake = mode.from_tensor(
                real,
                symbolic_context=shapes.StatelessSymbolicContext(dynamic_sizes=dims),
                source=dynamo("source").LocalSource(f"tensor{number}"),
            )
            for dim in range(tensor.dim()):
                self._note(fake.shape[dim], _size_of(number, dim))
                self._note(fake.stride()[dim], _stride_of(number, dim))
            yield fake

    def _without_value(self, column: Column, mode: FakeTensorMode) -> Any:
        """Return a number without a value, and note what it is."""
        if column[0] is not int:
            return mode.from_tensor(torch.tensor(column[-1], dtype=column[0], device="cpu"))
        source = dynamo("source").ConstantSource(f"size{len(self._facts)}")
        symbol = self._env.create_symbol(
            column[-1], source=source, dynamic_dim=symbolic_shapes().DimDynamic.DYNAMIC
        )
        made = self._env.create_symintnode(symbol, hint=column[-1], source=source)
        self._note(made, lambda _, found: int(found[column]))
        return made

    def _note(self, size: Any, get: Get) -> None:
        self._facts.append((size.node.expr if isinstance(size, torch.SymInt) else size, get))

    def _with_inputs(self, graph: fx.GraphModule) -> fx.GraphModule:
        """Return a graph in which the numbers that differ are placeholders."""
        made, copies = fx.Graph(), dict[fx.Node, Any]()
        made.output(made.graph_copy(graph.graph, copies))
        places: dict[Column, fx.Node] = {}
        first = next(node for node in made.nodes if node.op != "placeholder")
        for column in self._inputs:
            with made.inserting_before(first):
                places[column] = made.placeholder(f"number_{len(places)}")
        columns = iter(self._columns)

        def leaf(value: Any, kind: Any) -> Any:
            return value if kind is None else places.get(next(columns), value)

        copies[graph.graph.output_node()] = made.output_node()
        for before in graph.graph.nodes:
            if before.op == "placeholder":
                for _ in before.meta["val"].shape:
                    next(columns)
            else:
                copies[before].args, copies[before].kwargs = _mapped(copies[before], leaf)
        return fx.GraphModule(graph, made)


def _differs(column: Column) -> bool:
    return len(set(column[1:])) > 1


def _size_of(number: int, dim: int) -> Get:
    return lambda example, _: example[number].shape[dim]


def _stride_of(number: int, dim: int) -> Get:
    return lambda example, _: example[number].stride()[dim]
