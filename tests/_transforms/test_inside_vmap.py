"""Jacobians inside vmap: captured beneath it, each sample's own, whatever vmap maps over and however often.

The oracle is the row-by-row loop for one sample after another, outside any transform.
"""

from typing import ClassVar

import pytest
import torch
import torch.nn.functional as F
from tests.forced import force
from tests.functions import Cubed, Doubled
from tests.versions import NEWEST
from torch import nn
from torch.utils.checkpoint import checkpoint

from torchjac import explain, hessian, jacfwd, jacobian, jacrev, value_and_jacobian, vmap
from torchjac._capture.capture import plain
from torchjac._transforms import call_function
from torchjac.testing import finite_differences, loop_jacobian

A = torch.linspace(-1, 1, 12, dtype=torch.float64).reshape(4, 3)


@pytest.fixture(autouse=True)
def in_float64(double):
    """The functions build tensors in the default dtype."""


@pytest.fixture
def beneath(monkeypatch):
    """Every capture inside vmap must be beneath it: nothing falls back on a level of its own."""
    capture = call_function.capture

    def refused(*args):
        assert not call_function.inside_functorch()
        return capture(*args)

    monkeypatch.setattr(call_function, "capture", refused)


def f(x):
    """Mixes, reduces and indexes: (3,) → (4,)."""
    return (A @ x).tanh() * x.sum() + (x * x.roll(1)).sin()[torch.tensor([0, 1, 2, 0])]


def loops(function, *batches):
    """The loop's Jacobian with respect to the first argument, for one sample after another."""
    return torch.stack([loop_jacobian(function, *sample) for sample in zip(*batches, strict=True)])


def _scale(w, x):
    return (w * x).sum(-1).tanh() * w.sum(-1)


@pytest.mark.parametrize("batch", [0, 1, 5])
@pytest.mark.parametrize("transform", [jacrev, jacfwd])
def test_batches(transform, batch, way, beneath, same):
    """Any batch size, none and one included."""
    g = lambda x: _scale(A, x) * x[:1]
    x = torch.rand(batch, 3)
    same(vmap(transform(g))(x), loops(g, x) if batch else torch.zeros(0, 4, 3))


@pytest.mark.parametrize("in_dim, out_dim", [(0, 0), (1, 2), (-1, 1), (0, -1)])
def test_in_dims_and_out_dims(in_dim, out_dim, way, beneath, same):
    """Samples stand along any dim of the input, and of the answer."""
    x = torch.rand(5, 3)
    found = vmap(jacrev(f), in_dims=in_dim, out_dims=out_dim)(x.movedim(0, in_dim))
    same(found, loops(f, x).movedim(0, out_dim))


def test_memory_of_the_batch(way, beneath, same):
    """A batch dim that is expanded, or strided."""
    x = torch.rand(3)
    same(vmap(jacrev(f))(x.expand(5, 3)), loop_jacobian(f, x).expand(5, 4, 3))
    y = torch.rand(3, 8)[:, ::2].T
    same(vmap(jacrev(f))(y), loops(f, y))


def test_arguments_that_are_not_mapped(way, beneath, same):
    """The derivative by an argument that all samples share is one for each sample; by both in one call."""
    w, x = torch.randn(4, 3), torch.rand(5, 3)
    by_w, by_x = vmap(jacrev(_scale, (0, 1)), (None, 0))(w, x)
    same(by_w, torch.stack([loop_jacobian(_scale, w, each) for each in x]))
    same(by_x, torch.stack([loop_jacobian(lambda x: _scale(w, x), each) for each in x]))
    both = vmap(jacrev(_scale, (0, 1)))(w.expand(5, 4, 3), x)
    same(both, (by_w, by_x))


def test_trees_and_aux(way, beneath, same):
    """Trees of inputs, of which some are mapped over, trees of outputs, and aux."""

    def tree(p, scale):
        return {"a": p["u"].sin() * p["v"].sum(), "b": (p["v"] * scale,)}, p["u"] * 2

    p = {"u": torch.rand(5, 2), "v": torch.rand(3)}
    found, aux = vmap(jacrev(tree, has_aux=True), ({"u": 0, "v": None}, None))(p, 3.0)
    same(aux, p["u"] * 2)
    alone = [jacrev(lambda p: tree(p, 3.0)[0])({"u": u, "v": p["v"]}) for u in p["u"]]
    for key in "uv":
        same(found["a"][key], torch.stack([each["a"][key] for each in alone]))
        same(found["b"][0][key], torch.stack([each["b"][0][key] for each in alone]))


@pytest.mark.parametrize("sizes", [(2, 4), (1, 3), (0, 2)])
def test_levels_of_other_sizes(sizes, way, beneath, same):
    """Two vmaps; what each maps over, and what only one does."""
    outer, inner = sizes
    w, x = torch.randn(outer, 4, 3), torch.rand(outer, inner, 3)
    expected = [
        [loop_jacobian(lambda x, w=w: _scale(w, x), x) for x in xs] for w, xs in zip(w, x, strict=True)
    ]
    expected = torch.stack(list(map(torch.stack, expected))) if outer else torch.zeros(0, inner, 4, 3)
    same(vmap(vmap(jacrev(_scale, 1), (None, 0)))(w, x), expected)
    y = torch.rand(inner, 3)  # the inner argument belongs to the inner level, the captured one to the outer
    found = vmap(lambda w: vmap(jacrev(lambda x: _scale(w, x)))(y))(w)
    rows = [torch.stack([loop_jacobian(lambda x, w=w: _scale(w, x), x) for x in y]) for w in w]
    same(found, torch.stack(rows) if outer else torch.zeros(0, inner, 4, 3))
    by_w = vmap(lambda w: vmap(lambda x: jacrev(_scale)(w, x))(y))(w)
    assert by_w.shape == (outer, inner, 4, 4, 3)
    if outer:
        same(by_w[-1, -1], loop_jacobian(_scale, w[-1], y[-1]))


def test_jacobians_around_and_inside(ways, beneath, same):
    """Levels and Jacobians in turns: J of a vmap of J, and J inside J inside vmap inside vmap."""
    s = lambda x: (f(x) * x[0]).square().sum()
    x = torch.rand(2, 3)
    same(vmap(jacrev(jacrev(jacrev(s))))(x), torch.stack([jacrev(jacrev(jacrev(s)))(each) for each in x]))
    gradients = lambda x: vmap(jacrev(s))(x)
    same(jacrev(gradients)(x), finite_differences(gradients, x), rtol=1e-5, atol=1e-5)
    nested = lambda y: vmap(lambda a: jacrev(lambda b: jacrev(s)(a * b))(y))(x)
    y = torch.rand(4, 3)
    expected = torch.stack(
        [torch.stack([hessian(lambda b, a=a: s(a * b))(y) / a[:, None] for a in x]) for y in y]
    )
    same(vmap(nested)(y), expected)


def test_chunks_of_samples(beneath, same):
    """Vmap's chunk_size takes the batch apart."""
    x = torch.rand(5, 3)
    same(vmap(jacrev(f), chunk_size=2)(x), loops(f, x))
    same(vmap(jacrev(f, chunk_size=1))(x), loops(f, x))


def test_what_does_not_depend_on_the_sample(way, beneath, same):
    """Outputs that are the same for all samples, constant ones, and a sample that is not looked at."""
    x, y = torch.rand(5, 3), torch.rand(3)
    same(vmap(jacrev(lambda x: y.sin()))(x), torch.zeros(5, 3, 3))
    same(vmap(lambda _: jacrev(f)(y))(x), loop_jacobian(f, y).expand(5, 4, 3))
    found = vmap(lambda x: jacrev(lambda y: (x.sin(), y.cos()))(y))(x)
    same(found, (torch.zeros(5, 3, 3), torch.diag_embed(-y.sin()).expand(5, 3, 3)))


def test_answers_are_samples(beneath):
    """An answer may be written into inside vmap, sample by sample, though all have the same one."""
    x = torch.rand(5, 3)
    filled = vmap(lambda x: jacrev(lambda x: 2 * x)(x).mul_(x.sum()))(x)
    torch.testing.assert_close(filled, 2 * torch.eye(3) * x.sum(1)[:, None, None])


def test_what_is_outside_may_ask_for_gradients(way, beneath, same):
    """A batch, a captured parameter and one of an outer level that require gradients outside are differentiated."""
    w = torch.rand(3, requires_grad=True)
    x = torch.rand(5, 3, requires_grad=True)
    total = vmap(jacrev(lambda x: (w * x).sin() * x.sum()))(x).square().sum()
    found = torch.autograd.grad(total, (w, x))
    rows = torch.stack([jacrev(lambda x: (w * x).sin() * x.sum())(each) for each in x])
    same(found, torch.autograd.grad(rows.square().sum(), (w, x)))
    assert not vmap(jacrev(f))(x.detach()).requires_grad
    with torch.no_grad():
        assert not vmap(jacrev(f))(x).requires_grad


def test_modes_outside_do_not_count(beneath, same):
    """no_grad and inference_mode around the call, as outside vmap; an inner no_grad does."""
    x = torch.rand(5, 3)
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            found = vmap(jacrev(f))(x)
        same(found, loops(f, x))
    halved = lambda x: x * torch.no_grad()(torch.sin)(x)
    same(vmap(jacrev(halved))(x), torch.diag_embed(x.sin()))


@pytest.mark.parametrize("randomness", ["same", "different"])
def test_randomness(randomness, way, beneath):
    """Dropout's zeros are those of the forward pass, for each sample its own or the same."""
    x = torch.rand(6, 40)
    both = lambda x: (lambda y: (y, y))(F.dropout(x, 0.5))
    found, value = vmap(jacrev(both, has_aux=True), randomness=randomness)(x)
    torch.testing.assert_close(found, torch.diag_embed(value / x))
    masks = value != 0
    assert bool((masks == masks[0]).all()) == (randomness == "same")


def test_randomness_is_refused():
    """As vmap does by default, though our capture calls the function once for all samples."""
    with pytest.raises(RuntimeError, match="randomness"):
        vmap(jacrev(lambda x: F.dropout(x, 0.5)))(torch.rand(6, 4))


def test_dropout_in_chunks(beneath):
    """Chunks of samples draw their own zeros; nothing is drawn twice for an answer and its value."""
    both = lambda x: (lambda y: (y, y))(F.dropout(x, 0.5))
    x = torch.rand(6, 40) + 0.1
    found, value = vmap(jacrev(both, has_aux=True), randomness="different", chunk_size=4)(x)
    torch.testing.assert_close(found, torch.diag_embed(value / x))


def test_writes(way, beneath, same):
    """In-place writes into the argument, of which the caller's stays, and into parts of a new tensor."""

    def written(x):
        x.mul_(x.clone())
        out = x.new_zeros(4)
        out = out + x.sum()
        out[1:] += x
        return out

    x = torch.rand(5, 3)
    before = x.clone()
    same(vmap(jacrev(written))(x), loops(lambda x: written(x.clone()), x))
    same(x, before)


@pytest.mark.parametrize("function", [Cubed, Doubled])
def test_functions(function, way, beneath, same):
    """Functions with a vmap of their own, and with a generated one."""
    x = torch.rand(5, 3)
    g = lambda x: function.apply(x) * x.sum()
    same(vmap(jacrev(g))(x), loops(g, x))


def test_checkpointing_and_saved_tensor_hooks(way, beneath, same):
    """Both fail in torch.func.jacrev; here a block runs again at the levels that it saw."""
    net = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2)).requires_grad_(False)
    x = torch.rand(5, 3)
    expected = loops(net, x)
    if NEWEST:  # before 2.11 PyTorch has no group inside which a block runs once
        same(vmap(jacrev(lambda x: checkpoint(net, x, use_reentrant=False)))(x), expected)
    packed = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: packed.append(x) or x * 1, lambda x: x):
        same(vmap(jacrev(net))(x), expected)
    assert packed


def test_batch_norm_in_evaluation(way, beneath, same):
    """Statistics that are kept are the same for all samples."""
    norm = nn.BatchNorm1d(3).eval()
    norm.running_var.fill_(2.0)
    x = torch.rand(4, 5, 3)
    same(
        vmap(jacrev(norm))(x).detach(),
        loops(lambda x: norm(x).detach() if not x.requires_grad else norm(x), x).detach(),
    )


def _by_data(x):
    return x.data * x


def _by_grad(x):
    return torch.autograd.grad(x.sin().sum(), x, create_graph=True)[0]


def _by_hook(x):
    y = x.sin()
    y.register_hook(lambda cotangent: 2 * cotangent)
    return y * 1


def _by_node(x):
    return x.sin() if x.sin().grad_fn is not None else x.cos()


@pytest.mark.parametrize(
    "function, slope",
    [
        (_by_data, lambda x: x),
        (_by_grad, lambda x: -x.sin()),
        (_by_hook, lambda x: 2 * x.cos()),
        (_by_node, torch.cos),
    ],
)
def test_what_asks_for_a_level(function, slope, same):
    """A function that asks a tensor for what only a level of its own has is captured at one."""
    x = torch.rand(5, 3)
    same(vmap(jacrev(function))(x), torch.diag_embed(slope(x)))


def test_batching_rules_that_autograd_gets_wrong(way, same):
    """What is wrong beneath vmap, as autograd shows for a vmap of such a function, is captured at a level."""
    g = lambda x: x.sin().select_scatter(x[0] * 2, 0, -1)
    x = torch.rand(5, 3)
    same(vmap(jacrev(g))(x), loops(g, x))


def test_attention_without_gradients(beneath, same):
    """Kernels without a derivative are not taken: a sample says that it requires gradients."""
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True).eval().requires_grad_(False)
    x = torch.rand(2, 1, 3, 8)
    same(vmap(jacrev(layer))(x), loops(layer, x))


class Opaque(torch.autograd.Function):
    """y = x Σx, with no rule of ours; it keeps the shapes of the cotangents it is called on, batch dims included."""

    generate_vmap_rule = True
    seen: ClassVar = []

    @staticmethod
    def forward(x):
        return x * x.sum(-1, keepdim=True)

    @staticmethod
    def setup_context(ctx, inputs, output):
        ctx.save_for_backward(*inputs)

    @staticmethod
    def backward(ctx, cotangent):
        Opaque.seen.append(tuple(plain(cotangent).shape))
        (x,) = ctx.saved_tensors
        return cotangent * x.sum(-1, keepdim=True) + (cotangent * x).sum(-1, keepdim=True)


def test_attention_of_the_whole_batch(beneath, same):
    """Fused attention, which vmap calls a sample at a time, is a few nodes of the batch; then it is fused again."""
    layer = nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0, batch_first=True)
    function = lambda x: layer(x[None])[0, 0]
    xs = torch.rand(6, 3, 4)
    steps = []

    def told(x):
        steps.extend(explain(function)(x).steps)
        assert not torch.backends.cuda.flash_sdp_enabled() or torch.cuda.is_initialized()
        return function(x)

    same(vmap(jacrev(function))(xs), loops(function, xs))
    vmap(jacrev(told))(xs)
    assert not [step for step in steps if "Attention" in step.name]
    assert torch.backends.cuda.flash_sdp_enabled()
    with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.FLASH_ATTENTION):
        same(vmap(jacrev(function))(xs), loops(function, xs))
    block = lambda x: checkpoint(function, x, use_reentrant=False)
    same(vmap(jacrev(block))(xs), loops(function, xs))


@pytest.mark.parametrize("batch", [2, 50])
def test_an_op_without_a_rule(batch, way, beneath, same):
    """It is called on the rows of one sample, for all samples at once, whatever the batch."""
    x = torch.rand(batch, 3)
    g = lambda x: Opaque.apply(x.sin())
    Opaque.seen.clear()
    found = vmap(jacrev(g))(x)
    (shape,) = Opaque.seen
    assert shape == (3, batch, 3)
    same(found, loops(g, x))


METHODS = {
    "to_dense": lambda J, x: J.to_dense(),
    "J @ v": lambda J, x: J @ x,
    "v @ J": lambda J, x: x @ J,
    "solve": lambda J, x: J.solve(x),
    "diagonal": lambda J, x: J.diagonal(),
    "trace": lambda J, x: J.trace(),
    "slogdet": lambda J, x: tuple(J.slogdet()),
    "gram": lambda J, x: J.gram().to_dense(),
    "mT": lambda J, x: J.mT.to_dense(),
    "row": lambda J, x: J[1].to_dense(),
    "sum": lambda J, x: (2 * J - J * x.sum()).to_dense(),
    "shifted": lambda J, x: J.gram().add_diagonal(1.0).solve(x),
}
SQUARE = {
    "diagonal": lambda x: x.sin() + 2 * x,
    "banded": lambda x: 3 * x + torch.cat([x[1:], x[:1]]).sin(),
    "dense": lambda x: x * x.sum() + x.exp(),
    "shared": lambda x: 2 * x,
    "by table": lambda x: torch.zeros(3).scatter_add(0, torch.tensor([2, 0, 1]), x.sin()),
    "written out": lambda x: torch.take(x, torch.tensor([1, 2, 0])).sin(),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", SQUARE)
def test_operators(name, method, beneath, same):
    """Each method of a Jacobian answers for each sample."""
    function, ask = SQUARE[name], METHODS[method]
    x = torch.rand(5, 3) + 0.5
    alone = [ask(jacobian(function)(each), each) for each in x]
    expected = (
        tuple(map(torch.stack, zip(*alone, strict=True))) if method == "slogdet" else torch.stack(alone)
    )
    found = vmap(lambda x: ask(jacobian(function)(x), x))(x)
    same(found, expected)


@pytest.mark.parametrize("sizes", [(2, 4), (1, 1), (0, 2)])
@pytest.mark.parametrize("method", ["to_dense", "J @ v", "solve", "diagonal", "slogdet", "gram"])
def test_operators_inside_two_levels(method, sizes, beneath, same):
    """A Jacobian inside two vmaps, of which the outer one batches a captured tensor, answers for each pair."""
    ask, w, x = METHODS[method], torch.rand(sizes[0], 3) + 0.5, torch.rand(sizes[1], 3) + 0.5
    one = lambda w, x: ask(jacobian(lambda x: w * x.exp() + x * x.sum())(x), x)
    found = vmap(lambda w: vmap(lambda x: one(w, x))(x))(w)
    if not sizes[0]:
        shape = one(torch.ones(3), x[0]).shape if method != "slogdet" else ()
        assert (found if method != "slogdet" else found[0]).shape == (*sizes, *shape)
        return
    pairs = [[one(each, other) for other in x] for each in w]
    if method == "slogdet":
        found, pairs = (
            torch.stack(tuple(found), -1),
            [[torch.stack(tuple(part)) for part in row] for row in pairs],
        )
    same(found, torch.stack([torch.stack(row) for row in pairs]))


def test_explain(beneath):
    """What explain tells of a sample is told once for the batch."""
    kept = []
    vmap(lambda x: kept.append(str(explain(f)(x))) or x)(torch.rand(5, 3))
    assert "TanhBackward0" in kept[0]


@pytest.mark.parametrize("mode", ["auto", "reverse", "forward"])
def test_operators_keep_their_structure(mode, beneath):
    """A sample's operator holds what it would outside, be a table shared by all samples or each one's own."""

    def ask(x):
        kept = jacobian(lambda x: x[1:] * x[:-1], mode=mode)(x)
        assert (kept.nnz, kept.stored, len(kept.blocks)) == (2 * 5, 2 * 5, 2)
        sorted_ = jacobian(lambda x: x.sort()[0], mode=mode)(x)
        assert sorted_.stored == 6
        return kept.to_dense(), sorted_ @ torch.ones(6)

    dense, ones = vmap(ask)(torch.rand(4, 6))
    assert dense.shape == (4, 5, 6)
    torch.testing.assert_close(ones, torch.ones(4, 6))


def test_values_and_operators_by_shared_arguments(beneath, same):
    """value_and_jacobian's value is the sample's; an operator by an argument that all share is each sample's own."""
    w, x = torch.randn(4, 3), torch.rand(5, 3)

    def ask(x):
        value, J = value_and_jacobian(_scale)(w, x)
        return value, J.to_dense()

    value, dense = vmap(ask)(x)
    same(value, torch.stack([_scale(w, each) for each in x]))
    same(dense, torch.stack([loop_jacobian(_scale, w, each) for each in x]))


@pytest.mark.parametrize("name", ["banded", "dense"])
def test_answers_are_written_once(name, beneath, monkeypatch, same):
    """Blocks are written with samples first, as they leave vmap: no copy brings them in order."""
    force(monkeypatch, "structure")
    contiguous, copied = torch.Tensor.contiguous, []

    def counted(tensor, **kwargs):
        copied.extend([] if tensor.is_contiguous() else [tensor.shape])
        return contiguous(tensor, **kwargs)

    x = torch.rand(5, 3)
    monkeypatch.setattr(torch.Tensor, "contiguous", counted)
    found = vmap(jacrev(SQUARE[name]))(x)
    monkeypatch.undo()
    assert copied == []
    assert found.is_contiguous()
    same(found, loops(SQUARE[name], x))


def test_operators_do_not_leave_vmap():
    """A Jacobian is refused as a result of vmap, by name."""
    with pytest.raises(ValueError, match=r"must only return Tensors, got type .*Jacobian"):
        vmap(jacobian(f))(torch.rand(5, 3))


def test_sparse_layouts_are_refused(beneath):
    """Vmap has no sparse tensors."""
    with pytest.raises(RuntimeError, match="have no tensors of layout"):
        vmap(jacrev(f, layout=torch.sparse_csr))(torch.rand(5, 3))
