"""export: packages that PyTorch loads alone, in Python and in C++."""

import shutil
import subprocess
import sys
from pathlib import Path

import numpy
import pytest
import torch
from torch import nn

import torchjac
from torchjac import export, hessian, jacfwd, jacobian, jacrev, value_and_jacobian
from torchjac._transforms.dynamo import HAS_OP
from torchjac.testing import loop_jacobian

CPP = Path(__file__).parents[2] / "examples" / "cpp" / "newton.cpp"
COMPILER = next(filter(None, map(shutil.which, ("c++", "g++", "clang++"))), None)

#: Runs a package where torchjac cannot be imported: arguments and answers are files.
ALONE = """
import sys

sys.modules["torchjac"] = None
import torch

package, given, answers = sys.argv[1:]
args, kwargs = torch.load(given)
torch.save(torch._inductor.aoti_load_package(package)(*args, **kwargs), answers)
"""

LAYER = nn.Linear(4, 3, dtype=torch.float64)


def outputs(state):
    x, y = state["x"], state["y"]
    return (x[1:] - x[:-1]).sin() * y.sum(), LAYER(x).tanh()


def stencil(x):
    return x[1:] ** 2 * x[:-1]


def answers(state, scale, *, shift):
    """Dense answers of two outputs by a dict, sparse ones in each layout, an operator, and the value."""
    x = state["x"]
    return {
        "dense": jacrev(outputs)(state),
        "csr": jacrev(stencil, layout=torch.sparse_csr)(x),
        "csc": jacrev(stencil, layout=torch.sparse_csc)(x),
        "operator": jacobian(lambda x: scale * x * (x.roll(1) + shift))(x),
        "value": (outputs(state)[0], shift),
    }


def test_loaded_without_torchjac(tmp_path):
    """A package takes the same arguments and gives dense tensors, and values of sparse ones beside their pattern."""
    package = tmp_path / "answers.pt2"
    args = {"x": torch.randn(4, requires_grad=True), "y": torch.randn(2)}, 2.5
    export(torchjac.compile(answers, backend="eager"), args, package, {"shift": torch.ones(())})

    state, shift = {"x": torch.randn(4), "y": torch.randn(2)}, torch.tensor(0.5)
    torch.save(((state, 2.5), {"shift": shift}), tmp_path / "given.pt")
    paths = [str(tmp_path / name) for name in ("given.pt", "answers.pt")]
    subprocess.run([sys.executable, "-c", ALONE, str(package), *paths], check=True, cwd=tmp_path)
    found, places = torch.load(paths[1]), numpy.load(tmp_path / "answers.npz")

    for number in range(2):
        for name in ("x", "y"):
            of_leaf = lambda leaf, name=name, number=number: outputs({**state, name: leaf})[number]
            assert torch.allclose(found["dense"][number][name], loop_jacobian(of_leaf, state[name]))
    by_loop = loop_jacobian(stencil, state["x"])
    csr = torch.sparse_csr_tensor(
        *[torch.from_numpy(places[f"4.{name}"]) for name in ("crow_indices", "col_indices")],
        found["csr"], tuple(places["4.shape"]),
    )  # fmt: skip
    csc = torch.sparse_csc_tensor(
        *[torch.from_numpy(places[f"5.{name}"]) for name in ("ccol_indices", "row_indices")],
        found["csc"], tuple(places["5.shape"]),
    )  # fmt: skip
    coo = torch.sparse_coo_tensor(
        torch.from_numpy(places["6.indices"]), found["operator"], tuple(places["6.shape"])
    )
    assert torch.allclose(csr.to_dense(), by_loop)
    assert torch.allclose(csc.to_dense(), by_loop)
    by_loop = loop_jacobian(lambda x: 2.5 * x * (x.roll(1) + shift), state["x"])
    assert torch.allclose(coo.to_dense(), by_loop)
    assert found["csr"].numel() == 6
    assert found["operator"].numel() == 8
    assert torch.allclose(found["value"][0], outputs(state)[0])
    assert found["value"][1] == 0.5


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler")
def test_loaded_in_cpp(tmp_path):
    """The example in C++ builds against the installed PyTorch, and finds a root by Newton's method."""
    target = torch.linspace(0, 1, 5)
    residual = torchjac.value_and_jacobian(lambda x: x + 0.1 * x.roll(1) ** 3 - target)
    dense = lambda x: (lambda value, J: (value, J.to_dense()))(*residual(x))
    package = tmp_path / "residual.pt2"
    export(dense, (torch.ones(5),), package)

    torch_at = Path(torch.__file__).parent
    headers = [f"-I{torch_at}/include", f"-I{torch_at}/include/torch/csrc/api/include"]
    libraries = [
        f"-L{torch_at}/lib", f"-Wl,-rpath,{torch_at}/lib", "-ltorch", "-ltorch_cpu", "-lc10"
    ]  # fmt: skip
    newton = tmp_path / "newton"
    subprocess.run([COMPILER, "-std=c++20", *headers, CPP, *libraries, "-o", newton], check=True)
    told = subprocess.run([newton, package], check=True, capture_output=True, text=True).stdout

    x = torch.zeros(5)
    for _ in range(6):
        value, J = residual(x)
        x = x - torch.linalg.solve(J.to_dense(), value)
    found = [float(line) for line in told.splitlines() if not line.startswith(("step", "["))]
    assert numpy.allclose(found, x.numpy(), atol=1e-4)  # as it is printed
    assert "step 5" not in told


X = torch.ones(3)
NORM = nn.BatchNorm1d(3)

REFUSED = {
    "takes no function": (TypeError, "func must be callable", 3),
    "draws": (RuntimeError, "random numbers", jacrev(lambda x: x * torch.rand(3))),
    "writes": (RuntimeError, "tensors that are not its own", jacrev(lambda x: NORM(x.repeat(4, 1)))),
    "looks at values": (RuntimeError, "looks at values", jacrev(lambda x: x if x.sum() > 0 else 2 * x)),
    "gives a number": (
        TypeError,
        "must be a tensor or a Jacobian, got 3",
        lambda x: (jacrev(torch.sin)(x), 3),
    ),
    "stands where values say": (
        RuntimeError,
        "looks at values",
        jacrev(lambda x: x.sort().values, layout=torch.sparse_coo),
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name, tmp_path):
    """What a package could not do is refused by name, and nothing is written."""
    kind, said, func = REFUSED[name]
    with pytest.raises(kind, match=said):
        export(func, (X,), tmp_path / "refused.pt2")
    assert not list(tmp_path.iterdir())


def test_complex_numbers(tmp_path):
    """Complex numbers that AOTInductor cannot hand to an op are refused by name, with what to do."""
    jac, path, x = jacrev(lambda x: torch.fft.rfft(x).abs() ** 2), tmp_path / "jac.pt2", torch.rand(6)
    said = ""
    try:
        export(jac, (x,), path)
        torch.testing.assert_close(torch._inductor.aoti_load_package(str(path))(x), jac(x))  # another PyTorch
    except NotImplementedError as error:
        said = str(error)
    assert path.exists() or "torch.view_as_real" in said


def test_refused_name(tmp_path):
    """AOTInductor wants its own suffix."""
    with pytest.raises(ValueError, match=r"must end with \.pt2"):
        export(jacrev(torch.sin), (X,), tmp_path / "refused.zip")
    with pytest.raises(TypeError, match=r"a tuple of arguments, as \(x,\), got Tensor"):
        export(jacrev(torch.sin), X, tmp_path / "refused.pt2")


class Holds(nn.Module):
    """A module whose forward takes a Jacobian."""

    def __init__(self, how):
        super().__init__()
        self.layer, self.how = nn.Linear(3, 3), how
        self.register_buffer("index", torch.tensor([2, 0, 0]))

    def forward(self, x):
        return self.how(self, x)


def by_parameters(module, x):
    of = lambda parameters: torch.func.functional_call(module.layer, parameters, x).tanh()
    return jacrev(of)(dict(module.layer.named_parameters()))


FORWARDS = {
    "a layer": lambda module, x: jacrev(lambda x: module.layer(x).tanh())(x),
    "what autograd saved": lambda _, x: jacrev(lambda x: x.softmax(-1))(x),
    "a Hessian": lambda module, x: hessian(lambda x: module.layer(x).tanh().sum())(x),
    "forward": lambda _, x: jacfwd(lambda x: torch.stack([x.sum(), x.prod()]))(x),
    "indices made inside": lambda _, x: jacrev(lambda x: x[torch.tensor([2, 0, 0])] ** 2)(x),
    "indices of a buffer": lambda module, x: jacrev(lambda x: x[module.index] ** 2)(x),
    "writes": lambda _, x: jacrev(lambda x: x.clone().index_put_((torch.tensor([0]),), x[1:2] ** 2))(x),
    "aux": lambda _, x: jacrev(lambda x: (x.softmax(-1), x.sum()), has_aux=True)(x),
    "parameters": by_parameters,
    "a product": lambda _, x: jacobian(lambda x: (x[1:] - x[:-1]).sin())(x) @ x,
    "a value": lambda _, x: (lambda value, J: torch.linalg.solve(J.to_dense(), value))(
        *value_and_jacobian(lambda x: x**3 + x)(x)
    ),
    "inside vmap": lambda _, x: jacrev(torchjac.vmap(lambda row: row.sin() * row.sum()))(x[None]),
}


@pytest.mark.parametrize("name", FORWARDS)
def test_inside_torch_export(name):
    """A module that holds a transform is exported, and its program gives the same for other values."""
    module = Holds(FORWARDS[name])
    program = torch.export.export(module, (torch.randn(3),), strict=False).module()
    x = torch.randn(3)
    torch.testing.assert_close(program(x), module(x), check_dtype=True)


@pytest.mark.skipif(not HAS_OP, reason="Dynamo takes the op from PyTorch 2.13 on")
@pytest.mark.parametrize("name", ["what autograd saved", "a layer", "aux"])
def test_inside_torch_export_strictly(name):
    """So it is where Dynamo traces it."""
    module = Holds(FORWARDS[name])
    program = torch.export.export(module, (torch.randn(3),), strict=True).module()
    x = torch.randn(3)
    torch.testing.assert_close(program(x), module(x))


def test_inside_vmap_inside_torch_export():
    """Recorded ops have no batching rules there: the one way around is named."""
    module = Holds(lambda _, x: torchjac.vmap(jacrev(torch.sin))(x[None]))
    with pytest.raises(NotImplementedError, match="export takes vmap"):
        torch.export.export(module, (torch.randn(3),), strict=False)
