"""Diagonals, traces, rows, selections and the blocks on the diagonal."""

import numpy
import pytest
import torch
from tests._answers.cases import PROGRAMS, program_jacobians, random_jacobians

from torchjac import Jacobian, jacobian, jacrev, vmap
from torchjac._accumulate.factors import ProgramKey
from torchjac._accumulate.planned import PROGRAMS as PLANNED
from torchjac.testing import loop_jacobian


def every_case():
    """Jacobians of random blocks, of random blocks with equal ends, and of programs."""
    yield from random_jacobians(80)
    yield from random_jacobians(80, square=True)
    yield from ((jac, dense) for _, jac, dense in program_jacobians())


def test_diagonal_and_trace() -> None:
    """The diagonal has the shape of both ends where they are equal, else it is that of the matrix."""
    for jac, dense in every_case():
        rows, columns = torch.Size(jac.out_shape).numel(), torch.Size(jac.in_shape).numel()
        expected = dense.reshape(rows, columns).diagonal()
        if jac.out_shape == jac.in_shape:
            expected = expected.reshape(jac.out_shape)
        torch.testing.assert_close(jac.diagonal(), expected)
        torch.testing.assert_close(jac.trace(), expected.sum())


def test_row() -> None:
    """Every row is that of the dense tensor, from the end too."""
    for jac, dense in every_case():
        for index in torch.ones(jac.out_shape).nonzero().tolist():
            torch.testing.assert_close(jac.row(tuple(index)), dense[tuple(index)])
            back = tuple(i - size for i, size in zip(index, jac.out_shape, strict=True))
            torch.testing.assert_close(jac.row(back), dense[tuple(index)])


KEYS = {
    1: [
        0, -1, slice(None), slice(1, None), slice(None, None, 2), slice(5, 5), ..., None, [0, 0], [],
        torch.tensor([-1, 0]), torch.tensor([[0, -1], [0, 0]]),
    ],
    2: [
        0, (0, -1), (slice(None), 0), (..., 0), (slice(None), slice(1, None)), (slice(None), None), None,
        (torch.tensor([0, 0]), torch.tensor([0, -1])), (..., [0]), ([0],), [0, -1, 0], torch.tensor(0),
        torch.tensor([[0], [-1]]),
    ],
}  # fmt: skip


def test_selections() -> None:
    """Any key that indexes a tensor indexes the output."""
    for jac, dense in every_case():
        if 0 in jac.out_shape:
            continue
        for key in KEYS.get(len(jac.out_shape), [...]):
            chosen = torch.arange(torch.Size(jac.out_shape).numel()).view(jac.out_shape)[key]
            expected = dense.reshape(-1, *jac.in_shape) if dense.numel() else dense.new_zeros(0)
            expected = expected[chosen.flatten()] if dense.numel() else expected
            expected = expected.reshape((*chosen.shape, *jac.in_shape))
            found = jac[key]
            assert isinstance(found, Jacobian)
            torch.testing.assert_close(found.to_dense(), expected)


def test_masks() -> None:
    """A boolean mask chooses rows."""
    jac = jacobian(torch.sin)(torch.zeros(2, 3, dtype=torch.float64))
    mask = torch.tensor([[True, False, True], [False, False, True]])
    assert torch.equal(jac[mask].to_dense(), jac.to_dense()[mask])
    for rows in (torch.tensor([False, True]), [True, False], numpy.array([1, 1, 0])):
        assert torch.equal(jac[rows].to_dense(), jac.to_dense()[rows])


def test_rows_of_a_batch_share_its_matrix() -> None:
    """Rows chosen by a tensor cost a table of rows; the other dims stay as they are."""
    weight = torch.randn(4, 3, dtype=torch.float64)
    jac = jacobian(lambda x: x @ weight)(torch.randn(100, 4, dtype=torch.float64))
    chosen = jac[torch.tensor([7, 7, 2])]
    assert chosen.shape == (3, 3, 100, 4)
    assert chosen.stored == 3 + weight.numel()


def test_parts_at_scale() -> None:
    """Parts of a million rows are slices of what is stored."""
    n = 1_000_000
    x = torch.ones(n, dtype=torch.float64)
    jac = jacobian(lambda x: x.roll(1) * x)(x)
    assert jac[1:-1:3].stored <= 2 * n
    assert all(len(block.on) == 1 for block in jac[1:-1:3].blocks)
    assert jac.row(n // 2).nonzero().flatten().tolist() == [n // 2 - 1, n // 2]
    assert torch.equal(jac.diagonal(), x)
    assert jac.trace() == n


def test_block_diagonal_of_random_blocks() -> None:
    """The blocks on the diagonal are those of the dense tensor."""
    checked = 0
    for jac, dense in random_jacobians(400):
        if jac.out_shape and jac.in_shape and jac.out_shape[0] == jac.in_shape[0]:
            m = len(jac.out_shape)
            expected = dense.diagonal(0, 0, m).movedim(-1, 0)
            torch.testing.assert_close(jac.block_diagonal(), expected)
            checked += 1
    assert checked > 20


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_block_diagonal_of_a_network(batch) -> None:
    """For a batched network they are vmap of jacrev, read off without a copy for each other sample."""
    first, second = torch.randn(5, 7, dtype=torch.float64), torch.randn(7, 4, dtype=torch.float64)
    net = lambda x: torch.tanh(x @ first) @ second
    x = torch.randn(batch, 5, dtype=torch.float64)
    jac = jacobian(net)(x)
    torch.testing.assert_close(
        jac.block_diagonal(), vmap(jacrev(net))(x) if batch else torch.zeros(0, 4, 5).double()
    )
    assert jac.stored <= batch * 4 * 5


def test_block_diagonal_of_a_norm_in_eval_mode() -> None:
    """Per-sample Jacobians of a convolutional network with BatchNorm in eval mode."""
    torch.manual_seed(0)
    net = torch.nn.Sequential(
        torch.nn.Conv2d(2, 3, 3, padding=1), torch.nn.BatchNorm2d(3), torch.nn.ReLU(), torch.nn.Flatten(),
        torch.nn.Linear(3 * 4 * 4, 5),
    ).double().eval()  # fmt: skip
    x = torch.randn(6, 2, 4, 4, dtype=torch.float64)
    expected = vmap(jacrev(lambda one: net(one[None])[0]))(x)
    torch.testing.assert_close(jacobian(net)(x).block_diagonal(), expected)


def test_parts_are_differentiable() -> None:
    """Gradients reach the point through the diagonal, rows, selections and blocks."""
    f = lambda x: (x.cumsum(-1) * x).sin()
    x = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    for part in (
        lambda J: J.diagonal(), lambda J: J.row((0, 1)), lambda J: J[:, 1:].to_dense(),
        lambda J: J.block_diagonal(), lambda J: J[[1, 0]].to_dense(),
    ):  # fmt: skip
        assert torch.autograd.gradcheck(lambda x: part(jacobian(f)(x)), (x,))


def test_divergence_under_vmap() -> None:
    """The divergence of a field at each of several points."""
    f = lambda x: x.sin() * x.sum()
    x = torch.randn(4, 3, dtype=torch.float64)
    expected = vmap(jacrev(f))(x).diagonal(0, 1, 2).sum(-1)
    torch.testing.assert_close(vmap(lambda x: jacobian(f)(x).trace())(x), expected)


@pytest.mark.parametrize(
    "act, error, message",
    [
        (lambda J: J.row(3), IndexError, "index 3 is out of range for a dim of size 3"),
        (lambda J: J.row((0, 0)), IndexError, "one index for each of the 1 dims"),
        (lambda J: J.row(slice(2)), TypeError, "an int or a tuple of ints"),
        (lambda J: J[0, 0, 0], IndexError, r"does not fit an output of shape \(3,\)"),
        (lambda J: J[..., ...], IndexError, "does not fit"),
        (lambda J: J[torch.tensor([4])], IndexError, "out of bounds"),
        (lambda J: J["a"], IndexError, r"index 'a' does not fit an output of shape \(3,\)"),
        (lambda J: J[1.5], IndexError, r"index 1.5 does not fit an output of shape \(3,\)"),
        (lambda J: J.block_diagonal(), ValueError, r"begin with the same dim, the batch; got shapes \(3,\) and \(4,\)"),
    ],
)  # fmt: skip
def test_errors(act, error, message) -> None:
    """What does not fit is refused with what was given and what is needed."""
    with pytest.raises(error, match=message):
        act(jacobian(lambda x: x[1:])(torch.zeros(4)))


def test_numpy_ints() -> None:
    """An int of NumPy's is an int."""
    jac = jacobian(lambda x: x[1:] ** 2)(torch.ones(4))
    one = numpy.int64(1)
    assert torch.equal(jac.row(one), jac.row(1))
    assert torch.equal(jac[one].to_dense(), jac.row(1))


def test_rows_by_iteration() -> None:
    """A Jacobian of three rows is three Jacobians, one for each."""
    rows = [row.to_dense() for row in jacobian(lambda x: x[1:] ** 2)(torch.ones(4))]
    assert torch.equal(torch.stack(rows), 2 * torch.eye(4)[1:])


KEYS = {
    (5,): [(slice(1, 3), 2), (1, slice(None, None, 2)), (slice(None), torch.tensor([3, 0])),
           (slice(None), slice(2, None))],
    (7,): [(slice(None), torch.arange(7) > 3), (torch.tensor([0, 2]), 5)],
}  # fmt: skip


@pytest.mark.parametrize("name", ["slices", "strides"])
def test_columns(name) -> None:
    """A tuple with more than the output's dims chooses inputs too; slices stay affine."""
    f, shape = PROGRAMS[name]
    jac = jacobian(f)(torch.rand(shape, dtype=torch.float64))
    for key in KEYS[shape]:
        expected = (
            jac.to_dense()[key] if not isinstance(key[0], torch.Tensor) else jac.to_dense()[key[0]][:, key[1]]
        )
        torch.testing.assert_close(jac[key].to_dense(), expected)
    million = jacobian(torch.sin)(torch.zeros(1_000_000))[:, 10:]
    assert (million.shape, million.stored) == ((1_000_000, 999_990), 999_990)


def test_columns_of_several_dims() -> None:
    """The first dims of a key are the output's, masks of several dims counted."""
    jac = jacobian(lambda x: x.cumsum(0).sin())(torch.rand(3, 4, dtype=torch.float64))
    dense = jac.to_dense()
    torch.testing.assert_close(jac[1, 2, :, 1:].to_dense(), dense[1, 2, :, 1:])
    mask = torch.rand(3, 4) > 0.5
    torch.testing.assert_close(jac[mask, 2].to_dense(), dense[mask][:, 2])
    torch.testing.assert_close(
        jac[..., 1].to_dense(), dense[:, 1]
    )  # an ellipsis stands for the output's dims


FORMS = {
    "a chain": (lambda x, c: c * x.diff().square(), False),
    "a table": (lambda x, c: x[torch.tensor([4, 1, 1, 0])] ** 2 + c * x[:4].sum(), False),
    "samples": (lambda x, c: torch.stack([x * x.roll(1), c * x, x.sin()], -1).sum(-1), True),
    "a mean beside them": (lambda x, c: torch.cat([x[:3].mean()[None], c * x[1:]]), True),
    "one block": (lambda x, c: (torch.arange(15.0).to(x.dtype).view(3, 5) @ x).exp() * c, False),
}


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.complex128])
@pytest.mark.parametrize("name", FORMS)
def test_answers_by_programs(name, dtype, monkeypatch) -> None:
    """What is asked of operators by one program is a program too: new values, numbers and memory at each call."""
    monkeypatch.setattr("torchjac._accumulate.planned.RECORDED_AT", 3)
    (f, square), complex_part = FORMS[name], dtype.is_complex
    real = torch.float64 if complex_part else dtype

    def shown(x, c):
        return torch.view_as_real(f(torch.complex(x, x), c)).flatten() if complex_part else f(x, c)

    of, tolerance = jacobian(shown), {"rtol": 1e-9, "atol": 1e-12} if real is torch.float64 else {}
    for k in range(24):
        x, c = torch.rand(5, dtype=real), (2.0, 3.0, 1.0)[k % 3]
        expected = loop_jacobian(lambda x, c=c: shown(x, c), x)
        J = of(x, c)
        answers = [J.to_dense(), J.diagonal()]
        torch.testing.assert_close(answers[0], expected, **tolerance)
        torch.testing.assert_close(answers[1], expected.diagonal(), **tolerance)
        if square and not complex_part:
            answers.append(J.block_diagonal())
            torch.testing.assert_close(answers[2], expected.diagonal(), **tolerance)
        for each in answers:
            each.mul_(0)  # the caller's own
    known = [key[1] for key, entry in PLANNED.entries.items() if entry.program and type(key[0]) is ProgramKey]
    assert "dense" in known


def test_answers_by_programs_have_gradients() -> None:
    """Whether values require grad may change from call to call, and gradients follow them."""
    for k in range(20):
        x, w = (
            torch.rand(3, 4, dtype=torch.float64),
            torch.rand(4, dtype=torch.float64, requires_grad=k % 3 > 0),
        )
        f = lambda x, w=w: torch.cat([x[:, 1:] * w[1:], x.sin()], 1).cumsum(1)
        J = jacobian(f)(x)
        expected = torch.stack([loop_jacobian(lambda x, w=w: f(x[None], w)[0], row) for row in x])
        found = J.block_diagonal()
        torch.testing.assert_close(found.detach(), expected.detach())
        assert found.requires_grad == w.requires_grad
        if w.requires_grad:
            (grad,) = torch.autograd.grad(found.square().sum(), w)
            again = jacrev(lambda w: vmap(jacrev(lambda x: f(x[None], w)[0]))(x).square().sum())(w.detach())
            torch.testing.assert_close(grad, again)


def test_a_number_read_once_is_no_number_of_another_program() -> None:
    """The operator of the call that is recorded holds numbers that its recorder knows, which others must not."""
    x = torch.rand(3, 4, dtype=torch.float64)
    f = lambda x: torch.cat([0.01 * x[:, 1:] + x[:, :-1], x[:, :2].square()], 1)
    for k in range(6):
        made = [jacobian(f)(x + k) for _ in range(3)]
        for J in made:
            torch.testing.assert_close(J.to_dense(), loop_jacobian(f, x + k))
