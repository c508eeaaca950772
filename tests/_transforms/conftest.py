"""What the tests of the transforms share: both ways of finding an answer, and the loop as oracle."""

import itertools

import pytest
import torch
from tests.fixtures import double as double
from tests.forced import force
from torch.utils import _pytree as pytree

from torchjac import jacrev
from torchjac.testing import finite_differences, loop_jacobian

#: Looking for examples in it would import it, which only a function under test may do.
collect_ignore = ["imported_late.py"]


@pytest.fixture(params=["structured", "dense"])
def way(request, monkeypatch):
    """Each of the two ways an answer is found, whatever the size: by structure, or by dense rows."""
    force(monkeypatch, "structure" if request.param == "structured" else "rows")
    return request.param


@pytest.fixture(
    params=["structured", "dense", "structured inside dense", "dense inside structured", "by cost"]
)
def ways(request, monkeypatch):
    """The two ways and their mixtures, for nested Jacobians: the inner one asks first."""
    if request.param != "by cost":
        answers = {"structured": ["structure"], "dense": ["rows"]}.get(request.param)
        if answers is None:
            answers = (
                ["structure", "rows"] if request.param.startswith("structured") else ["rows", "structure"]
            )
        turn = itertools.cycle(answers)
        force(monkeypatch, lambda _: next(turn))
    return request.param


def _leaf_of(func, args, kwargs, argnums, position, number):
    """The function from one leaf of the differentiated arguments to one leaf of the output, and that leaf."""
    chosen = args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)
    leaves, spec = pytree.tree_flatten(chosen)

    def single(leaf):
        replaced = [leaf if k == position else other for k, other in enumerate(leaves)]
        tree = pytree.tree_unflatten(replaced, spec)
        full = list(args)
        for n, value in zip((argnums,) if isinstance(argnums, int) else argnums,
                            (tree,) if isinstance(argnums, int) else tree, strict=True):  # fmt: skip
            full[n] = value
        return pytree.tree_leaves(func(*full, **kwargs))[number]

    return single, leaves[position]


def _recorded(tensor):
    """A copy that autograd follows, so that a function may write into it or hang hooks on it."""
    copy = tensor.detach().clone()
    return copy.requires_grad_().clone() if copy.is_floating_point() else copy


def loop_tree(func, args, kwargs, argnums, oracle=loop_jacobian):
    """The Jacobian of a function of trees, one pair of leaves at a time, nested as torch.func nests it."""
    chosen = args[argnums] if isinstance(argnums, int) else tuple(args[n] for n in argnums)
    count, in_spec = len(pytree.tree_leaves(chosen)), pytree.tree_structure(chosen)
    with torch.enable_grad():
        outputs = func(*pytree.tree_map_only(torch.Tensor, _recorded, args), **kwargs)
    rows = [
        pytree.tree_unflatten(
            [oracle(*_leaf_of(func, args, kwargs, argnums, k, number)) for k in range(count)], in_spec
        )
        for number in range(len(pytree.tree_leaves(outputs)))
    ]
    return pytree.tree_unflatten(rows, pytree.tree_structure(outputs))


@pytest.fixture
def same():
    """Assert that two trees have the same structure, types of containers included, and agree."""

    def compare(actual, expected, **tolerance):
        assert pytree.tree_structure(actual) == pytree.tree_structure(expected)
        for ours, theirs in zip(pytree.tree_leaves(actual), pytree.tree_leaves(expected), strict=True):
            assert ours.shape == theirs.shape
            assert ours.dtype == theirs.dtype
            torch.testing.assert_close(ours.detach(), theirs.detach(), **tolerance)

    return compare


@pytest.fixture
def agrees(same):
    """Assert that jacrev is the loop's answer, near finite differences, in torch.func's tree."""

    def check(func, *args, argnums=0, torch_works=True, differences=True, tolerance=None, **kwargs):
        tolerance = tolerance or {}
        found = jacrev(func, argnums=argnums)(*args, **kwargs)
        same(found, loop_tree(func, args, kwargs, argnums), **tolerance)
        if differences:
            same(found, loop_tree(func, args, kwargs, argnums, finite_differences), rtol=1e-5, atol=1e-5)
        if torch_works:
            same(found, torch.func.jacrev(func, argnums=argnums)(*args, **kwargs), **tolerance)
        return found

    return check
