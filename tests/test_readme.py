"""The README is true: its Python prints what it says, and the programs it names work here and not there."""

import contextlib
import io
import re
from pathlib import Path

import pytest
import torch
from torch.utils.checkpoint import checkpoint

import torchjac
from torchjac.testing import finite_differences

README = (Path(__file__).parents[1] / "README.md").read_text()
#: A block of Python, with the block of text that follows it directly, if one does.
BLOCKS = re.findall(r"```python\n(.*?)```\n(?:\n```text\n(.*?)```)?", README, re.DOTALL)


@pytest.fixture(scope="module")
def printed():
    """What each block prints; they run in order and share their names, as a reader would run them."""
    names: dict = {}
    outputs = []
    for number, (code, _) in enumerate(BLOCKS):
        with contextlib.redirect_stdout(io.StringIO()) as output:
            exec(compile(code, f"README.md, block {number}", "exec"), names)
        outputs.append(output.getvalue())
    return outputs


def test_there_is_an_example():
    """The pattern finds the blocks, and the first one shows its output."""
    assert BLOCKS
    assert BLOCKS[0][1]


def test_the_first_example_is_six_lines():
    """The first example stays short enough to be read at a glance."""
    lines = [line for line in BLOCKS[0][0].splitlines() if line.strip()]
    assert len(lines) <= 6


@pytest.mark.parametrize("number", range(len(BLOCKS)))
def test_output(printed, number):
    """Each block prints exactly the text below it."""
    assert printed[number].strip() == BLOCKS[number][1].strip()


def test_the_commands_exist():
    """The commands of the first screen are targets of the Makefile."""
    makefile = (Path(__file__).parents[1] / "Makefile").read_text()
    for target in re.findall(r"^make (\w+)", README, re.MULTILINE):
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_claim_names_a_test():
    """What torchjac does that torch.func cannot is a table, and each row names a test that exists."""
    table = README.split("## What it does that torch.func cannot")[1].split("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("|")][2:]
    assert len(rows) > 10
    for row in rows:
        ((name, path),) = re.findall(r"\[(\w+)\]\(([\w/.]+)\) \|$", row)
        assert f"\ndef {name}(" in (Path(__file__).parents[1] / path).read_text(), row


class Square(torch.autograd.Function):
    """x² in the style without `setup_context`."""

    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x**2

    @staticmethod
    def backward(ctx, cotangent):
        (x,) = ctx.saved_tensors
        return 2 * x * cotangent


def checkpointed(x):
    """The forward pass is run again in the backward pass."""
    return checkpoint(lambda y: y.sin().cos(), x, use_reentrant=False)


def packed(x):
    """What is saved for the backward pass goes through hooks."""
    with torch.autograd.graph.saved_tensors_hooks(torch.Tensor.numpy, torch.from_numpy):
        return x.sin() ** 2


def normalised(x, norm=torch.nn.BatchNorm1d(3, dtype=torch.float64)):  # noqa: B008 (one module for all calls)
    """Batch normalisation in training mode writes into its running statistics."""
    return norm(x)


def hooked(x):
    """A module with a backward hook."""
    module = torch.nn.Softplus()
    module.register_full_backward_hook(lambda module, grad_in, grad_out: None)
    return module(x)


def looked_at(x):
    """A factor computed by NumPy."""
    return x.sin() * float(x.detach().numpy().sum())


def written(x):
    """The argument itself is written into."""
    return x.mul_(2.0).sin()


def rows(f, x):
    """The oracle: one backward pass for each output element."""
    leaf = x.clone().requires_grad_()
    output = f(leaf * 1)
    cotangents = torch.eye(output.numel(), dtype=x.dtype).view(-1, *output.shape)
    grads = [torch.autograd.grad(output, leaf, cotangent, retain_graph=True)[0] for cotangent in cotangents]
    return torch.stack(grads).view(*output.shape, *x.shape)


@pytest.mark.parametrize("f", [checkpointed, packed, normalised, hooked, Square.apply, looked_at, written])
def test_programs_as_autograd_takes_them(f):
    """Programs that stop torch.func.jacrev are differentiated here as the row-by-row loop does it."""
    x = torch.linspace(-1, 2, 6, dtype=torch.float64).view(2, 3)
    torch.testing.assert_close(torchjac.jacrev(f)(x.clone()), rows(f, x))
    if torch.__version__.startswith(
        "2.13."
    ):  # what the README says of torch.func was tried with this version
        with pytest.raises(RuntimeError):
            torch.func.jacrev(f)(x.clone())


def test_keyword_arguments():
    """Keyword arguments reach the function; torch.func.jacrev takes none."""
    x = torch.linspace(-1, 2, 3, dtype=torch.float64)
    torch.testing.assert_close(torchjac.jacrev(torch.pow)(x, exponent=3), torch.diag(3 * x**2))
    if torch.__version__.startswith("2.13."):
        with pytest.raises(TypeError):
            torch.func.jacrev(torch.pow)(x, exponent=3)


def test_cdist_between_few_points():
    """Distances, which torch.func.jacrev differentiates wrongly at small sizes."""
    generator = torch.Generator().manual_seed(0)
    x, y = (torch.randn(n, 2, dtype=torch.float64, generator=generator) for n in (3, 4))
    expected = rows(lambda x: torch.cdist(x, y), x)
    torch.testing.assert_close(torchjac.jacrev(torch.cdist)(x, y), expected)
    if torch.__version__.startswith("2.13."):
        assert not torch.allclose(torch.func.jacrev(torch.cdist)(x, y), expected)


def test_layer_norm_by_weight_and_input():
    """∂²/∂x∂w of a layer norm, which nested torch.func.jacrev gets wrong, against differences of ∂/∂w."""
    generator = torch.Generator().manual_seed(0)
    x, w = (torch.randn(shape, dtype=torch.float64, generator=generator) for shape in ((2, 4), (4,)))
    f = lambda x, w: torch.nn.functional.layer_norm(x, (4,), w)
    expected = finite_differences(lambda x: torchjac.jacrev(f, argnums=1)(x, w), x)
    ours = torchjac.jacrev(torchjac.jacrev(f, argnums=1), argnums=0)(x, w)
    torch.testing.assert_close(ours, expected, rtol=1e-7, atol=1e-7)
    if torch.__version__.startswith("2.13."):
        theirs = torch.func.jacrev(torch.func.jacrev(f, argnums=1), argnums=0)(x, w)
        assert not torch.allclose(theirs, expected, atol=1e-3)


def test_arguments_counted_from_the_end():
    """∂/∂y of xᵢ sin(yᵢ) by argnums=-1, which is zero by torch.func.jacfwd and by its hessian."""
    x, y = torch.linspace(1, 2, 6, dtype=torch.float64).view(2, 3)
    f = lambda x, y: x * y.sin()
    torch.testing.assert_close(torchjac.jacfwd(f, argnums=-1)(x, y), torch.diag(x * y.cos()))
    torch.testing.assert_close(
        torchjac.hessian(lambda x, y: f(x, y).sum(), argnums=-1)(x, y), torch.diag(-x * y.sin())
    )
    if torch.__version__.startswith("2.13."):
        assert not torch.func.jacfwd(f, argnums=-1)(x, y).any()
        assert not torch.func.hessian(lambda x, y: f(x, y).sum(), argnums=-1)(x, y).any()
