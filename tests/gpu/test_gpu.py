"""On a GPU: the values are those of the CPU, answers stay on the device, and taking a Jacobian does not wait for it.

`make gpu` runs them. TORCHJAC_DEVICE=cpu runs the same on the CPU.
"""

import os

import pytest
import torch
from benchmarks.gpu import SMALL, check, waits

from torchjac import compile, hessian, jacfwd, jacobian, jacrev, vmap
from torchjac.testing import loop_jacobian

DEVICE = os.environ.get("TORCHJAC_DEVICE", "cuda")
pytestmark = pytest.mark.skipif(
    DEVICE == "cuda" and not torch.cuda.is_available(),
    reason="no GPU: torch.cuda.is_available() is False",
)

NAMES = [f"{case.name} {'x'.join(map(str, case.shape))}" for case in SMALL]
CASES = dict(zip(NAMES, SMALL, strict=True))


def ring(x):
    """A band with corners, diagonally dominant."""
    return 4 * x + x.roll(1).sin() + x.roll(-1)


def points(*shape, dtype=torch.float64):
    """The same numbers on either device."""
    made = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    return made.to(DEVICE, dtype)


@pytest.mark.parametrize("name", CASES)
def test_values(name):
    """Dense and structured answers agree with torch.func's, and with the loop of the CPU."""
    case = CASES[name]
    check(case, DEVICE, torch.float64)
    check(case, DEVICE, torch.float32)
    x = points(*case.shape)
    for transform in (jacrev, jacfwd):
        found = [transform(case.f)(x) for _ in range(3)]  # recorded, the other way, a program
        assert all(answer.device == x.device for answer in found)
        for answer in found:
            torch.testing.assert_close(answer.cpu(), loop_jacobian(case.f, x.cpu()), rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision(dtype):
    """The answer has the input's dtype and is as near as that allows."""
    x = points(6, 5, dtype=dtype)
    f = lambda x: (x @ x.mT).tanh()
    torch.testing.assert_close(jacrev(f)(x), torch.func.jacrev(f)(x), rtol=3e-2, atol=3e-2)


@pytest.mark.parametrize("layout", [torch.sparse_coo, torch.sparse_csr, torch.sparse_csc])
def test_sparse_layouts(layout):
    """Sparse answers are made on the device."""
    x = points(40)
    found = jacrev(ring, layout=layout)(x)
    assert (found.layout, found.device) == (layout, x.device)
    torch.testing.assert_close(found.to_dense().cpu(), loop_jacobian(ring, x.cpu()))


def test_hessian():
    """Of a loss, dense and as an operator."""
    x = points(4, 3)
    f = lambda x: (x.sin() @ x.mT).square().sum()
    expected = torch.func.hessian(f)(x)
    torch.testing.assert_close(hessian(f)(x), expected)
    operator = hessian(f, layout="operator")(x)
    assert operator.device == x.device
    torch.testing.assert_close(operator.to_dense(), expected)


def test_inside_vmap():
    """Per-sample Jacobians."""
    x = points(5, 4)
    torch.testing.assert_close(vmap(jacrev(ring))(x), torch.func.vmap(torch.func.jacrev(ring))(x))


def test_compiled():
    """A captured call replays on the device."""
    x = points(6)
    compiled = compile(jacrev(ring), backend="eager")
    for _ in range(2):
        torch.testing.assert_close(compiled(x), jacrev(ring)(x))


@pytest.mark.parametrize(
    "f, shape", [(torch.exp, (50,)), (torch.nn.Softplus(), (8, 3)), (ring, (20,)), (ring, (500,))]
)
def test_solve(f, shape):
    """Systems of each kind; the answer is on the device."""
    x = points(*shape)
    J = jacobian(f)(x)
    right = torch.ones_like(x)
    found = J.solve(right)
    assert found.device == x.device
    torch.testing.assert_close(J @ found, right)


@pytest.mark.parametrize("name", CASES)
def test_a_jacobian_does_not_wait(name):
    """Once it is recorded, no call asks the device for a number; what needs one, as `nnz`, is asked for by name."""
    case = CASES[name]
    x = points(*case.shape)
    for transform in (jacobian, jacrev):
        call = transform(case.f)
        for _ in range(3):
            call(x)
        assert waits(lambda call=call: call(x), DEVICE) == 0


def test_waits_are_counted():
    """Asking for a number is one."""
    x = points(3)
    assert waits(lambda: x.sum().item(), DEVICE) == (1 if DEVICE == "cuda" else 0)
