"""Normalisations: weight and bias explicit, the input by seeds along what is normalised."""

import pytest
import torch
from tests._rules.cases import Case, Sampler, case, check, over_cases

from torchjac import jacobian
from torchjac.testing import finite_differences

s = Sampler()
F = torch.nn.functional
aten = torch.ops.aten
mean, var = s(3), s.positive(3)


def independent(node, op, *args, **claims):
    """A case of a node that needs seeds."""
    return case(node, op, *args, note="independent", **claims)


CASES = [
    independent(
        "NativeLayerNormBackward0",
        lambda x, w, b: F.layer_norm(x, (3,), w, b),
        s(2, 3),
        s(3),
        s(3),
        stored=[18, 6, 0],
    ),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (3, 2)), s(4, 3, 2), stored=[144]),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (3,)), s(3), stored=[9]),
    independent("NativeLayerNormBackward0", lambda x: F.layer_norm(x, (1,)), s(2, 1), stored=[2]),
    case(
        "NativeLayerNormBackward0",
        lambda w, b: F.layer_norm(torch.arange(6.0, dtype=w.dtype).view(2, 3), (3,), w, b),
        s(3),
        s(3),
        stored=[6, 0],
    ),
    case(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean, var, w, b),
        s(4, 3),
        s(3),
        s(3),
        stored=[12, 12, 0],
    ),
    case(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean, var, w, b),
        s(2, 3, 1, 2),
        s(3),
        s(3),
        stored=[12, 12, 0],
    ),
    independent(
        "NativeBatchNormBackward0",
        lambda x, w, b: F.batch_norm(x, mean.clone(), var.clone(), w, b, True),
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent(
        "NativeBatchNormBackward0",
        lambda x: F.batch_norm(x, None, None, training=True),
        s(2, 3, 2),
        stored=[48],
    ),
    independent(
        "NativeBatchNormLegitBackward0",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, mean.clone(), var.clone(), True, 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    case(
        "NativeBatchNormLegitBackward0",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, mean, var, False, 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[12, 12, 0],
    ),
    independent(
        "NativeBatchNormLegitBackward1",
        lambda x, w, b: aten._native_batch_norm_legit(x, w, b, True, 0.1, 1e-5)[0],
        s(2, 3, 2),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent(
        "BatchNormWithUpdateBackward0",
        lambda x, w, b: aten._batch_norm_with_update(x, w, b, mean.clone(), var.clone(), 0.1, 1e-5)[0],
        s(4, 3),
        s(3),
        s(3),
        stored=[48, 12, 0],
    ),
    independent("NativeBatchNormBackward0", F.instance_norm, s(2, 3, 4), stored=[96]),
    independent(
        "NativeGroupNormBackward0",
        lambda x, w, b: F.group_norm(x, 2, w, b),
        s(3, 4, 2),
        s(4),
        s(4),
        stored=[192, 24, 0],
    ),
    independent("NativeGroupNormBackward0", lambda x: F.group_norm(x, 3), s(2, 3, 2, 1), stored=[72]),
    independent("NativeGroupNormBackward0", lambda x: F.group_norm(x, 1), s(2, 3), stored=[18]),
]


@pytest.mark.parametrize("slot", [1, 2])
def test_group_norm_statistics(slot: int) -> None:
    """Mean and deviation depend on x too, also where the output itself is not used (PyTorch drops that)."""
    f = lambda x: torch.native_group_norm(x, None, None, 2, 4, 3, 2, 1e-5)[slot]
    x = s(2, 4, 3)
    found = jacobian(f)(x)
    torch.testing.assert_close(found.to_dense(), finite_differences(f, x), rtol=1e-6, atol=1e-6)
    assert found.to_dense().abs().sum() > 0.5


@over_cases(CASES)
def test_normalisation(one: Case) -> None:
    """The batch multiplies what is stored once, not twice; weight and bias cost no seeds."""
    check(one)
