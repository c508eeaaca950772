"""Arguments and outputs of jacrev: pytrees, keyword arguments, aux, shapes, dtypes, devices."""

from collections import OrderedDict, namedtuple
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from torchjac import jacobian, jacrev

pytestmark = pytest.mark.usefixtures("way")

Point = namedtuple("Point", ["where", "speed"])


def test_dict_in(agrees):
    """A dict of tensors gives a dict of Jacobians."""
    state = {"u": torch.randn(3), "v": torch.randn(2, 2)}
    found = agrees(lambda s: s["u"].sin()[:, None] * s["v"].sum(0), state)
    assert found["u"].shape == (3, 2, 3)
    assert found["v"].shape == (3, 2, 2, 2)


def test_flat_trees_keep_their_type_and_keys(agrees):
    """A list, a tuple and a dict of tensors, in and out, come back as what they are, keys in their order."""
    a, b = torch.randn(3), torch.nn.Parameter(torch.randn(2))
    for tree, part in (([a, b], list), ((a, b), tuple), ({"z": a, 1: b}, lambda d: list(d.values()))):
        found = agrees(
            lambda tree, part=part: {"y": part(tree)[0].sin(), "a": part(tree)[1] * part(tree)[0].sum()}, tree
        )
        assert list(found) == ["y", "a"]
        assert type(found["y"]) is type(tree)
        if type(tree) is dict:
            assert list(found["a"]) == ["z", 1]
    found = agrees(lambda x: (x.sin(), x.sum()), a)
    assert type(found) is tuple
    found = agrees(lambda x: [x.sin()], a)
    assert type(found) is list
    assert len(found) == 1


def test_dict_out(agrees):
    """A dict of outputs gives a dict of Jacobians."""
    found = agrees(lambda x: {"a": x.exp(), "b": [x.sum(), (x[1:] * x[:-1],)]}, torch.randn(4))
    assert found["b"][1][0].shape == (3, 4)


def test_namedtuple_in_and_out(agrees):
    """Named tuples keep their type on both sides: output tree outside, input tree inside."""
    found = agrees(
        lambda p, scale: Point(p.where * scale, p.speed.cos() * p.where),
        Point(torch.randn(3), torch.randn(3)),
        2.0,
    )
    assert type(found) is Point
    assert type(found.where) is Point
    assert not found.where.speed.any()


def test_nested_lists_and_ordered_dicts(agrees):
    """Lists, tuples and ordered dicts nest to any depth, with argnums between outputs and inputs."""
    first = [torch.randn(2), (torch.randn(3), OrderedDict(b=torch.randn(1), a=torch.randn(())))]
    second = {"k": [torch.randn(2, 2)]}

    def f(p, q):
        a, (b, rest) = p
        return [a * rest["a"], {"z": b.sum() * q["k"][0]}, (rest["b"] + a[0],)]

    found = agrees(f, first, second, argnums=(1, 0))
    assert found[1]["z"][0]["k"][0].shape == (2, 2, 2, 2)
    assert found[0][1][1][1]["a"].shape == (2,)


def test_same_tensor_twice_in_a_tree(agrees):
    """A tensor that stands twice among the arguments is two inputs."""
    x = torch.randn(3)
    found = agrees(lambda p: p[0] * p[1].sin(), (x, x))
    torch.testing.assert_close(found[0], torch.diag(x.sin()))


def test_empty_trees(agrees):
    """A differentiated tree with no tensors gives an empty tree; empty parts of trees stay where they are."""
    x = torch.randn(2)
    assert jacrev(lambda p, x: x.sin())({}, x) == {}
    found = agrees(lambda p: (p["x"] ** 2, []), {"x": x, "none": []})
    assert found[1] == []
    assert found[0]["none"] == []


def test_keyword_arguments(agrees):
    """Keyword arguments are passed on, tensors and others; they are not differentiated."""
    x, scale = torch.randn(3), torch.randn(3)
    found = agrees(
        lambda x, power, *, scale, offset=None: x**power * scale if offset is None else x,
        x, 3, scale=scale, torch_works=False,
    )  # fmt: skip
    torch.testing.assert_close(found, torch.diag(3 * x**2 * scale))


def test_keyword_argument_that_requires_grad():
    """A tensor given by keyword is a captured one: the answer is differentiable with respect to it."""
    scale = torch.randn(3, requires_grad=True)
    jacrev(lambda x, scale: x**2 * scale)(torch.ones(3), scale=scale).sum().backward()
    torch.testing.assert_close(scale.grad, torch.full((3,), 2.0))


def test_any_object_in_other_arguments():
    """What is not differentiated may be anything, and reaches the function as it was given."""
    x = torch.randn(3)
    others = (
        "name", None, 3, 2.5, np.arange(3.0), SimpleNamespace(k=2), torch.arange(3), torch.ones(3) > 0,
        torch.randn(3, dtype=torch.complex128), [1, "a"], {"x": object()}, torch.sin,
    )  # fmt: skip
    seen = []

    def f(first, *rest):
        seen[:] = [id(other) for other in rest]
        return rest[-1](first) * rest[5].k

    found = jacrev(f)(x, *others)
    assert seen == [id(other) for other in others]
    torch.testing.assert_close(found, torch.diag(2 * x.cos()))


def test_differentiated_argument_among_objects():
    """Argnums count all positional arguments."""
    x = torch.randn(3)
    found = jacrev(lambda name, x, flag: x.sin() if flag and name == "sin" else x, argnums=-2)("sin", x, True)
    torch.testing.assert_close(found, torch.diag(x.cos()))


def test_unrelated_outputs_are_zero(agrees):
    """An output that does not depend on an input has a Jacobian of zeros, and so have constants."""
    x, y = torch.randn(3), torch.randn(2)
    found = agrees(
        lambda x, y: (x.sin(), y * 2, torch.ones(2), x.detach(), (x > 0).to(x.dtype)),
        x, y, argnums=(0, 1), differences=False,
    )  # fmt: skip
    for output, k in ((0, 1), (1, 0), (2, 0), (2, 1), (3, 0), (4, 0)):
        assert not found[output][k].any()


SHAPES = [(), (0,), (1,), (0, 3), (3, 0), (1, 1), (2, 3)]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(
    "f",
    [
        torch.sin,
        torch.sum,
        lambda x: x.reshape(-1),
        lambda x: x.reshape(-1)[:, None] * x.reshape(-1),
        lambda x: x.reshape(-1)[:1].softmax(0),
        lambda x: torch.zeros(0) * x.sum(),
        lambda x: torch.stack([x, x * 2]),
        lambda x: x.cumsum(0) if x.dim() else x,
        lambda x: x @ x.mT if x.dim() == 2 else x,
        lambda x: torch.zeros_like(x).copy_(x),
        lambda x: x[x > 0],
    ],
    ids=["sin", "sum", "flat", "outer", "first", "empty", "stack", "cumsum", "matmul", "copy", "mask"],
)
def test_sizes_zero_and_one(f, shape, agrees):
    """Zero-size and 0-dim tensors work on both sides."""
    agrees(f, torch.rand(shape) + 0.5)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16])
def test_dtype_is_the_inputs(dtype, agrees):
    """The Jacobian has the dtype of the input."""
    found = agrees(lambda x: (x * x.roll(1)).sum(0), torch.randn(3, 2).to(dtype), differences=False)
    assert found.dtype == dtype


def test_casts_inside(agrees):
    """Casts between float32 and float64 inside the function round as autograd rounds."""
    x = torch.randn(4, dtype=torch.float32)
    found = agrees(lambda x: (x.double().sin() * 3).float().cumsum(0).double(), x, differences=False)
    assert found.dtype == torch.float32


@pytest.mark.parametrize("low, high", [(torch.float32, torch.float64), (torch.bfloat16, torch.float32)])
def test_mixed_dtypes_in_one_tree(low, high, agrees):
    """Each Jacobian of a mixed tree has its own input's dtype, whatever the output's."""
    tree = {"low": torch.randn(3).to(low), "high": torch.randn(3).to(high)}
    found = agrees(
        lambda t: (t["low"] * t["high"], t["low"].sin(), t["high"].cos().to(low)), tree, differences=False
    )
    for row in found:
        assert row["low"].dtype == low
        assert row["high"].dtype == high


def test_meta_device():
    """On the meta device only shapes are computed."""
    x = torch.empty(3, 2, device="meta")
    found = jacrev(lambda x: (x @ torch.empty(2, 4, device="meta")).tanh().sum(0))(x)
    assert found.device.type == "meta"
    assert found.shape == (4, 3, 2)


def test_default_device_is_not_ours():
    """The default device does not leak into the answer: a CPU function stays on the CPU."""
    x, at = torch.randn(5), torch.tensor([3, 0, 3])

    def f(x):
        out = x.new_zeros(4, 5)
        out[:, 1:3] = x[:2].sin()
        out[at[:2]] = x * 2
        return out.flip(0).cumsum(0), x[at] * x.sum(), x.diff(), x.softmax(0)

    expected = torch.func.jacrev(f)(x)
    torch.set_default_device("meta")
    try:
        found = jacrev(f)(x)
    finally:
        torch.set_default_device(None)
    for ours, theirs in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, theirs)


LAYOUTS = {
    "transposed": lambda: torch.randn(3, 4).T,
    "strided": lambda: torch.randn(8, 6)[::2, ::2],
    "expanded": lambda: torch.randn(4, 1).expand(4, 3),
    "flipped view": lambda: torch.randn(4, 3).flip(0),
    "channels last": lambda: torch.randn(1, 4, 3, 1).to(memory_format=torch.channels_last)[0, :, :, 0],
    "parameter": lambda: torch.nn.Parameter(torch.randn(4, 3)),
    "requires grad": lambda: torch.randn(4, 3, requires_grad=True),
    "not a leaf": lambda: torch.randn(4, 3, requires_grad=True) * 2,
    "overlapping": lambda: torch.randn(6).as_strided((4, 3), (1, 1)),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_memory_layouts(layout, agrees):
    """However the input lies in memory, leaf or not, the answer is that of its values."""
    agrees(lambda x: x.sin().sum(1) * x[:, 0] + x.reshape(-1)[:4], LAYOUTS[layout](), differences=False)


def test_a_function_that_looks_at_strides():
    """It sees those of its argument, also where there are gaps between the entries: what it makes of them counts."""
    whole = torch.arange(18, dtype=torch.float64).reshape(3, 3, 2)
    x, line = whole[..., 0], torch.randn(8, dtype=torch.float64)[1::2]
    corners = torch.zeros(3, 3, 3, dtype=torch.float64)
    for k in range(3):
        corners[k, k, 0] = 2 * x[k, 0]
    torch.testing.assert_close(jacrev(lambda x: x.as_strided((3,), (6,)) ** 2)(x), corners)
    torch.testing.assert_close(jacrev(lambda x: x * x.stride(0))(line), 2 * torch.eye(4, dtype=torch.float64))

    def writes(x):
        x.mul_(x.detach().cos())
        return x.as_strided((2,), (4,)) * 3

    before = line.clone()
    expected = torch.zeros(2, 4, dtype=torch.float64)
    expected[0, 0], expected[1, 2] = 3 * line[0].cos(), 3 * line[2].cos()
    for _ in range(4):
        torch.testing.assert_close(jacrev(writes)(line), expected)
    torch.testing.assert_close(line, before)  # the caller's own is not written


def test_entries_far_apart():
    """A column of a wide matrix is copied without the matrix: the memory is that of its entries."""
    column = torch.ones(50, 1000, dtype=torch.float64)[:, 0]
    seen = []

    def f(x):
        seen.append(x.untyped_storage().nbytes())
        return x * 2

    jacrev(f)(column)
    assert seen == [50 * 8]


@pytest.mark.parametrize(
    "windows", [lambda x: x.unfold(0, 3, 1), lambda x: x.expand(2, 6), lambda x: x.unfold(0, 4, 2)]
)
def test_writes_into_entries_that_share_memory(windows):
    """A function that writes into windows of one tensor writes into each entry by itself, as into a copy."""
    x = windows(torch.arange(1.0, 7.0, dtype=torch.float64))
    for transform in (jacrev, lambda f: lambda x: jacobian(f)(x).to_dense()):
        found = transform(lambda x: x.mul_(2).square())(x)
        torch.testing.assert_close(found.reshape(x.numel(), -1), (8 * x).flatten().diag())


def test_aux_of_any_kind():
    """Aux may be anything; tensors in it come detached where nothing outside requires grad."""
    thing = object()
    x = torch.randn(3)
    f = lambda x: (
        x.sin(),
        {"thing": thing, "value": x * 2, "none": None, "n": 3, "names": ["a", (x.sum(),)]},
    )
    jacobian, aux = jacrev(f, has_aux=True)(x)
    torch.testing.assert_close(jacobian, torch.diag(x.cos()))
    assert aux["thing"] is thing
    assert (aux["none"], aux["n"], aux["names"][0]) == (None, 3, "a")
    torch.testing.assert_close(aux["value"], x * 2)
    assert not aux["value"].requires_grad
    assert not aux["names"][1][0].requires_grad


@pytest.mark.parametrize("aux", [None, "text", 0, (), [], torch.arange(3), torch.tensor(True), 1j])
def test_aux_is_handed_through(aux):
    """Aux comes back as it was returned."""
    _, found = jacrev(lambda x: (x.sin(), aux), has_aux=True)(torch.randn(3))
    if isinstance(aux, torch.Tensor):
        torch.testing.assert_close(found, aux)
    else:
        assert found == aux


def test_aux_with_trees_and_argnums(same):
    """Aux goes with argument tuples, output trees and chunks."""
    x, y = torch.randn(3), torch.randn(3)
    f = lambda x, y: ({"p": x * y, "q": y.sum()}, (x, y))
    found, aux = jacrev(f, argnums=(1, 0), has_aux=True, chunk_size=2)(x, y)
    expected, expected_aux = torch.func.jacrev(f, argnums=(1, 0), has_aux=True, chunk_size=2)(x, y)
    same(found, expected)
    same(aux, expected_aux)


@pytest.mark.parametrize("given", [False, True])
def test_the_private_keyword(given, same):
    """What `torch.func.jacrev` takes for itself is taken, as libraries pass it on."""
    x = torch.randn(3)
    arguments = {"chunk_size": 2, "_preallocate_and_copy": given}
    same(jacrev(torch.sin, **arguments)(x), torch.func.jacrev(torch.sin, **arguments)(x))


def test_arguments_are_left_alone():
    """Neither the caller's tensors nor their grads, versions or flags change."""
    x, y = torch.randn(3), torch.randn(3, requires_grad=True)
    before = x.clone(), y.detach().clone(), x._version, y._version
    jacrev(lambda x, y: (x * y).sin(), argnums=(0, 1))(x, y)
    torch.testing.assert_close(x, before[0])
    torch.testing.assert_close(y.detach(), before[1])
    assert (x._version, y._version) == before[2:]
    assert (x.requires_grad, x.grad, y.grad, y.requires_grad) == (False, None, None, True)
