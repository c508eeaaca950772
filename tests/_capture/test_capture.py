"""Capturing a function: entries, grad mode, what is recorded outside, inside functorch or not."""

import gc
import weakref

import pytest
import torch

from torchjac._blocks.tracing import inside_functorch
from torchjac._capture.capture import as_batched, batched_zero, capture, mapped_over, plain
from torchjac._torch import is_level_tensor


def _run(f):
    return lambda tensors: ([f(*tensors)], None)


def test_entries_are_copies():
    """The function gets copies: it may write into them."""
    x = torch.randn(3)
    before = x.clone()
    captured = capture(_run(lambda x: x.mul_(2)), [x])
    assert torch.equal(x, before)
    assert torch.equal(captured.outputs[0], before * 2)


def test_extra_comes_back():
    """What the function returns beside its outputs is handed through."""
    assert capture(lambda tensors: (tensors, "extra"), [torch.randn(3)]).extra == "extra"


@pytest.mark.parametrize("needs", [True, False])
@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_records(needs, mode):
    """The answer is recorded where an input or a captured tensor asks for it and the mode allows it."""
    x, w = torch.randn(3).requires_grad_(needs), torch.randn(3, requires_grad=True)
    with mode():
        assert capture(_run(torch.sin), [x]).records == (needs and mode is torch.enable_grad)
        assert capture(_run(lambda x: x * w), [x]).records == (mode is torch.enable_grad)


@pytest.mark.parametrize("mode", [torch.enable_grad, torch.no_grad, torch.inference_mode])
def test_the_function_sees_grad_mode(mode):
    """Inside the function gradients are on, whatever is outside; outside nothing changes."""
    seen = []

    def look(tensors):
        seen.append((torch.is_grad_enabled(), torch.is_inference_mode_enabled()))
        return tensors, None

    with mode():
        before = torch.is_grad_enabled(), torch.is_inference_mode_enabled()
        capture(look, [torch.randn(3)])
        assert (torch.is_grad_enabled(), torch.is_inference_mode_enabled()) == before
    assert seen == [(True, False)]


def test_inside_functorch():
    """A functorch level is noticed, and only while it is there."""
    seen = []
    torch.func.vmap(lambda x: (seen.append(inside_functorch()), x)[1])(torch.randn(2))
    torch.func.jvp(lambda x: (seen.append(inside_functorch()), x)[1], (torch.randn(2),), (torch.randn(2),))
    assert seen == [True, True]
    assert not inside_functorch()


@pytest.mark.parametrize(
    ("transform", "shape"),
    [
        (lambda f: f, ()),
        (torch.func.vmap, (2,)),
        (torch.func.grad, ()),
        (lambda f: torch.func.vmap(torch.func.grad(f)), (2,)),
        (lambda f: torch.func.vmap(torch.func.vmap(f)), (2, 3)),
        (lambda f: torch.func.vmap(torch.func.grad(lambda x: torch.func.vmap(f)(x).sum())), (2, 3)),
    ],
)
def test_a_zero_with_every_batch_dim(transform, shape):
    """What every active vmap maps over, a zero that can be written beside it has: levels of grad have none."""
    zeros, mapped = [], []

    def f(x):
        zeros.append(batched_zero(x))
        mapped.append(mapped_over())
        return x + zeros[-1]

    transform(f)(torch.randn(shape))
    assert mapped == [torch.Size(shape).numel()]
    assert zeros[0].shape == ()
    assert sorted(plain(zeros[0]).shape) == sorted(shape)


def test_plain():
    """The tensor below every level, with its batch dims."""
    seen = []
    x = torch.randn(2, 3)
    torch.func.vmap(torch.func.grad(lambda x: (seen.append(x), x.sum())[1]))(x)
    assert is_level_tensor(seen[0])
    assert plain(seen[0]).data_ptr() == x.data_ptr()
    assert plain(x) is x


def test_batch_dims_of_another():
    """What all samples share becomes each one's own, at every level; what has its batch dims stays what it is."""
    seen = []

    def look(x, y):
        shared = torch.ones(2)
        seen.extend([as_batched(shared, x), as_batched(x, shared), as_batched(x, y), as_batched(y, x)])
        assert as_batched(x, y) is x
        return x

    torch.func.vmap(torch.func.vmap(look, (0, None)))(torch.randn(3, 4), torch.randn(3))
    assert [part.shape for part in seen] == [(2,), (), (), ()]
    assert [sorted(plain(part).shape) for part in seen] == [[2, 3, 4], [3, 4], [3, 4], [3, 4]]
    x = torch.ones(2)
    assert as_batched(x, torch.ones(3, 4)) is x


@pytest.mark.parametrize("outside", [torch.func.vmap, lambda f: torch.func.grad(lambda x: f(x).sum())])
def test_a_level_ends_with_its_function(outside):
    """Whether a function returns or raises, its level is left, and nothing else may ask for gradients there."""
    depths = []
    depth = lambda: len(torch._C._functorch.get_interpreter_stack() or ())

    def fails(tensors):
        depths.append(depth())
        raise ValueError

    def look(x):
        before = depth()
        capture(_run(torch.sin), [x])
        with pytest.raises(ValueError):
            capture(fails, [x])
        assert (depth(), depths.pop()) == (before, before + 1)
        with pytest.raises(RuntimeError, match="requires_grad_"):
            x.clone().requires_grad_()
        return x

    outside(look)(torch.randn(2))
    assert depth() == 0


def test_functorch_keeps_its_own_graph():
    """Under vmap the tape is that of the level's own graph, and always recorded."""
    tapes = []

    def f(x):
        captured = capture(_run(lambda y: y.sin() * 2), [x])
        tapes.append(captured)
        return captured.outputs[0].sum()

    torch.func.vmap(f)(torch.randn(2, 3))
    assert [node.name for node in tapes[0].tape.nodes] == ["MulBackward0", "SinBackward0"]
    assert tapes[0].records


def test_graph_of_the_entries():
    """Where the answer is recorded, the graph goes on to the caller's tensors."""
    x = torch.randn(3, requires_grad=True)
    (output,) = capture(_run(torch.sin), [x]).outputs
    (grad,) = torch.autograd.grad(output.sum(), x)
    torch.testing.assert_close(grad, x.cos())


def test_nothing_outlives_a_capture():
    """Tape, outputs and saved tensors make no cycles: they die with the last name, without the collector."""
    kept = []

    def f(x):
        y = x.exp()
        kept.append(weakref.ref(y))
        return y.sin()

    gc.collect()
    gc.disable()
    try:
        captured = capture(_run(f), [torch.randn(3)])
        assert kept[0]() is not None
        del captured
        assert kept[0]() is None
    finally:
        gc.enable()


def test_inference_tensors():
    """Captured tensors made in inference mode are copied for the ops that save them, once each."""
    with torch.inference_mode():
        w, x = torch.randn(3), torch.randn(3)
    calls = []
    for source in (torch.randn(3), x):
        captured = capture(_run(lambda x: (calls.append(1), (x * w).sin() * w)[1]), [source])
        assert captured.outputs[0].requires_grad
    assert len(calls) == 3  # the first was called again when autograd refused
    assert w.is_inference()


def test_writes_into_inference_tensors_are_refused():
    """A write into one is refused as PyTorch refuses it, and not done to a copy."""
    with torch.inference_mode():
        w, x = torch.zeros(3), torch.randn(3)
    with pytest.raises(RuntimeError, match=r"[Ii]nference"):
        capture(_run(lambda x: w.add_(x) * x), [x])


def test_other_errors_are_not_tried_again():
    """Only that refusal makes a function run twice."""
    calls = []

    def f(x):
        calls.append(1)
        raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        capture(_run(f), [torch.randn(3)])
    assert len(calls) == 1


def test_reentrant_checkpoints_are_refused():
    """The tape of a reentrant checkpoint is refused by name."""
    f = lambda x: torch.utils.checkpoint.checkpoint(torch.sin, x, use_reentrant=True)
    with pytest.raises(RuntimeError, match="use_reentrant=False"):
        capture(_run(f), [torch.randn(3)])
