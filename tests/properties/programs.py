"""Random programs: short functions of tensors as people write them, drawn line by line and kept as source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from hypothesis import strategies as st
from torch import Tensor

HEADER = "import torch\nimport torch.nn.functional as F\n"
MOST_ENTRIES = 60


@dataclass(frozen=True)
class Program:
    """The source of ``f(x, y)`` and the inputs to call it with."""

    source: str
    inputs: tuple[Tensor, ...]
    outputs: int = 1

    def function(self) -> Any:
        """The function that the source defines."""
        scope: dict[str, Any] = {}
        exec(HEADER + self.source, scope)
        return scope["f"]

    def snippet(self) -> str:
        """The program as a script that shows what is wrong."""
        values = "\n".join(
            f"{name} = torch.tensor({tensor.tolist()}, dtype={tensor.dtype}).reshape({tuple(tensor.shape)})"
            for name, tensor in zip("xy", self.inputs, strict=True)
        )
        check = "check_jacobian(f, x, y, argnums=(0, 1))"
        if self.outputs > 1:
            each = "check_jacobian(lambda x, y: f(x, y)[k], x, y, argnums=(0, 1))"
            check = f"for k in range({self.outputs}):\n    {each}"
        return f"{HEADER}\n{self.source}\n{values}\nfrom torchjac.testing import check_jacobian\n{check}\n"


class Writer:
    """A program in the making: its lines, and the value each name has."""

    def __init__(self, draw: Any, inputs: dict[str, Tensor]) -> None:
        self.draw = draw
        self.scope: dict[str, Any] = {"torch": torch, "F": torch.nn.functional, **inputs}
        self.names = list(inputs)
        self.lines: list[str] = []

    def integer(self, low: int, high: int) -> int:
        """A number drawn from ``low`` to ``high``."""
        return self.draw(st.integers(low, high))

    def pick(self, choices: Any) -> Any:
        """One of some choices."""
        return self.draw(st.sampled_from(list(choices)))

    def name(self) -> str:
        """One of the tensors, the latest most often."""
        return self.names[-1] if self.draw(st.booleans()) else self.pick(self.names)

    def value(self, name: str) -> Tensor:
        """What a name holds."""
        return self.scope[name]

    def like(self, shape: torch.Size) -> str:
        """A tensor of that shape, or one that broadcasts to it, perhaps made for it."""
        same = [name for name in self.names if self.value(name).shape == shape]
        if same and self.draw(st.booleans()):
            return self.pick(same)
        scalars = [name for name in self.names if self.value(name).dim() == 0]
        if scalars and self.draw(st.booleans()):
            return self.pick(scalars)
        return f"{self.name()}.mean()"

    def run(self, code: str, new: str | None = None) -> bool:
        """Add lines if they run and what they give stays small and finite."""
        scope = dict(self.scope)
        for name in self.names:
            scope[name] = scope[name].clone()
        try:
            exec(code, scope)
        except (RuntimeError, IndexError, ValueError, TypeError):
            return False
        made = scope.get(new) if new else None
        if new and (not isinstance(made, Tensor) or made.numel() > MOST_ENTRIES):
            return False
        if (
            new
            and made.numel()
            and (not bool(made.isfinite().all()) or float(made.detach().abs().max()) > 1e3)
        ):
            return False
        exec(code, self.scope)
        self.lines += code.splitlines()
        if new:
            self.names.append(new)
        return True


POINTWISE = (
    "torch.sin({a})", "torch.tanh({a})", "torch.exp(0.1 * {a})", "{a} ** 2", "F.relu({a})", "-{a}",
    "F.softplus({a})", "torch.sigmoid({a})", "1.5 * {a}", "{a} / 3", "2 - {a}", "{a}.abs()", "{a}.clamp(-1, 1)",
    "{a} * {b}", "{a} + {b}", "{a} - 2 * {b}", "{a} / (2 + {b} ** 2)", "torch.where({a} > 0, {a}, {b})",
    "torch.maximum({a}, {b})", "torch.atan2({a}, {b} ** 2 + 1)", "torch.addcmul({a}, {a}, {b}, value=0.5)",
    "torch.lerp({a}, {b}, 0.3)", "{a}.masked_fill({a} > 0.5, 0.25)", "F.gelu({a})", "torch.hypot({a}, {b} + 3)",
)  # fmt: skip

REINDEX = (
    "{a}.flip({d})", "{a}.roll({k}, {d})", "{a}.transpose({d}, {e})", "{a}.reshape(-1)", "{a}.unsqueeze({d})",
    "{a}.squeeze()", "{a}.expand(2, *{a}.shape)", "{a}.narrow({d}, 0, {a}.shape[{d}] // 2)",
    "{a}.select({d}, {k})", "{a}[1:]", "{a}[::2]", "{a}[..., 1:]", "{a}[..., None, :]", "{a}.unbind({d})[0]",
    "{a}.split(2, {d})[-1]", "{a}.diagonal(0, {d}, {e})", "{a}.tril()", "{a}.triu(1)", "{a}.unfold({d}, 2, 1)",
    "F.pad({a}, (1, 2))", "F.pad({a}, (-1, 1))", "{a}.repeat(2, *[1] * {a}.dim())", "{a}.diag_embed()",
    "{a}[torch.tensor([0, -1, 0])]", "{a}[..., torch.tensor([[0], [1]])]", "{a}[{a} > 0]",
    "{a}.index_select({d}, torch.tensor([1, 0, 1]))", "{a}.gather({d}, torch.zeros_like({a}, dtype=torch.long))",
    "torch.cat([{a}, {a} * 2], {d})", "torch.cat([torch.ones(2, dtype={a}.dtype), {a}.reshape(-1)])",
    "torch.stack([{a}, {b} + {a}], {d})", "{a}.permute(*reversed(range({a}.dim())))", "{a}.movedim({d}, {e})",
    "{a}.reshape(2, -1)", "{a}.reshape(-1, 3)", "{a}.rot90(1, (0, 1))", "{a}.sort({d})[0]", "{a}.topk(1, {d})[0]",
    "torch.cat([{a}.reshape(-1), {b}.reshape(-1)])", "{a}.take(torch.tensor([0, 1, 0]))", "{a}.contiguous()",
)  # fmt: skip

REDUCE = (
    "{a}.sum()", "{a}.sum({d})", "{a}.mean({d}, keepdim=True)", "{a}.prod({d})", "{a}.var({d})", "{a}.amax({d})",
    "{a}.logsumexp({d})", "({a} + 0.1).norm()", "{a}.cumsum({d})", "{a}.cumprod({d})", "{a}.softmax({d})",
    "{a}.log_softmax({d})", "{a}.max({d})[0]", "{a}.std()", "F.normalize({a} + 2, dim={d})", "{a}.cummax({d})[0]",
    "F.layer_norm({a}, {a}.shape[-1:])", "{a}.diff(dim={d})", "{a}.logcumsumexp({d})",
    "torch.fft.rfft({a}).abs()", "torch.linalg.vector_norm({a} + 1, dim={d})",
)  # fmt: skip

CONTRACT = (
    "{a} @ torch.linspace(-1, 1, {a}.shape[-1], dtype={a}.dtype)",
    "{a} @ torch.linspace(-1, 1, 2 * {a}.shape[-1], dtype={a}.dtype).reshape(-1, 2)",
    "{a} @ {a}.mT", "torch.einsum('...i,...i->...', {a}, {a} + 1)", "torch.einsum('i...,j...->ij', {a}, {a})",
    "torch.outer({a}.reshape(-1), {b}.reshape(-1))", "torch.dot({a}.reshape(-1), {a}.reshape(-1))",
    "torch.baddbmm({a}, {a}, torch.ones({a}.shape[0], {a}.shape[-1], {a}.shape[-1], dtype={a}.dtype))",
    "F.conv1d({a}.reshape(1, 1, -1), torch.tensor([[[1.0, -2.0, 1.0]]], dtype={a}.dtype), padding=1)",
    "torch.linalg.inv({a} @ {a}.mT + 5 * torch.eye({a}.shape[-2], dtype={a}.dtype))",
    "torch.linalg.solve({a} @ {a}.mT + 5 * torch.eye({a}.shape[-2], dtype={a}.dtype), {a})",
    "torch.cdist({a}, {a} + 1)", "F.linear({a}, torch.ones(2, {a}.shape[-1], dtype={a}.dtype), {b}.reshape(-1)[:2])",
    "torch.kron({a}, torch.tensor([1.0, -1.0], dtype={a}.dtype))",
)  # fmt: skip

WRITE = (
    "{n} = torch.zeros_like({a})\n{n}[1:] = {a}[:-1] * 2",
    "{n} = {a}.clone()\n{n}[0] = {b}",
    "{n} = {a} * 1\n{n}[..., ::2] *= 3",
    "{n} = {a} * 1\n{n}.mul_({b})",
    "{n} = {a}.clone()\n{n}.select({d}, 0).add_({b})",
    "{n} = {a}.clone()\n{n}.view(-1)[1:].sin_()",
    "{n} = {a} + 0\n{n}[{n} > 0] = 0.5",
    "{n} = {a} + 0\n{n}[torch.tensor([0, -1])] += {b}",
    "{n} = {a}.index_add(0, torch.tensor([0, 0]), torch.stack([{a}[0], {a}[-1]]))",
    "{n} = {a}.scatter_add({d}, torch.zeros_like({a}, dtype=torch.long), {a} ** 2)",
    "{n} = torch.zeros(3, dtype={a}.dtype)\nfor i in range(3):\n    {n}[i] = {a}.reshape(-1)[i] * (i + 1)",
    "{n} = {a}.clone()\n{n}[..., 1:] = {n}[..., :-1].clone()",
    "{n} = {a}.clone()\n{n}.diagonal().fill_(1.0)",
    "{n} = {a}.clone()\n{n}.T[0] = {b}",
    "{n} = {a}.index_copy(0, torch.tensor([1]), {a}[:1] * 2)",
    "{n} = {a}.select_scatter({a}[0] * 2, 0, -1)",
    "{n} = {a}.slice_scatter({a}[1:] * 2, 0, 0, -1)",
    "{n} = {a}.index_put((torch.tensor([0, 0]),), {b}, accumulate=True)",
)  # fmt: skip

CONTROL = (
    "if {a}.sum() > 0:\n    {n} = {a} * 2\nelse:\n    {n} = {a}.sin()",
    "with torch.no_grad():\n    c = {a}.sin()\n{n} = {a} * c",
    "{n} = {a} * {a}.detach()",
    "{n} = {a} * {a}.abs().max().item()",
    "{n} = {a}\nfor _ in range(3):\n    {n} = torch.sin({n}) + {a}",
    "{n} = F.dropout({a}, 0.0)",
    "{n} = {a}.to(torch.float32).to({a}.dtype)",
)


@st.composite
def programs(draw: Any, lines: int = 6, dtype: torch.dtype = torch.float64, outputs: int = 1) -> Program:
    """A program of up to so many lines over two inputs, views and shared subexpressions included.

    Its outputs are the latest of its tensors, the inputs among them where it has few lines.
    """
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    inputs = {}
    for name in "xy":
        shape = draw(
            st.sampled_from([(), (1,), (3,), (4,), (5,), (0,), (2, 3), (3, 3), (1, 4), (2, 2, 3), (3, 0)])
        )
        tensor = torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype)
        if draw(st.booleans()) and tensor.dim() > 1:
            tensor = tensor.mT  # not contiguous
        elif draw(st.integers(0, 5)) == 0 and tensor.dim() == 1:
            tensor = tensor[:1].expand(3) if tensor.numel() else tensor
        inputs[name] = tensor
    writer = Writer(draw, {name: tensor.clone() for name, tensor in inputs.items()})
    for _ in range(draw(st.integers(1, lines))):
        family = writer.pick((POINTWISE, POINTWISE, REINDEX, REINDEX, REDUCE, CONTRACT, WRITE, CONTROL))
        template = writer.pick(family)
        a = writer.name()
        rank = max(writer.value(a).dim(), 1)
        new = f"v{len(writer.names)}"
        code = template.format(
            a=a,
            b=writer.like(writer.value(a).shape),
            d=writer.integer(-rank, rank - 1),
            e=writer.integer(-rank, rank - 1),
            k=writer.integer(0, 2),
            n=new,
        )
        writer.run(code if family in (WRITE, CONTROL) else f"{new} = {code}", new)
    results = []
    for name in dict.fromkeys(reversed(writer.names[-outputs:])):
        if writer.value(name).numel() > 30:
            writer.run(f"out{name} = {name}.reshape(-1)[:30]", f"out{name}")
            name = f"out{name}"
        results.append(name)
    body = "\n".join("    " + line for line in writer.lines)
    source = f"def f(x, y):\n{body}\n    return {', '.join(results)}\n"
    return Program(source, tuple(inputs.values()), len(results))
