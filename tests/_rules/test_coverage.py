"""Every registered rule is named by a test, and every name is a node of PyTorch."""

import pytest
from docs.ops import OPAQUE_TWICE, is_twice
from tests._rules import (
    test_average,
    test_complex_parts,
    test_conv,
    test_cross,
    test_determinant,
    test_embedding_bag,
    test_gather,
    test_glu,
    test_grid_sample,
    test_independent_dims,
    test_losses,
    test_masked,
    test_matmul,
    test_normalise,
    test_pairwise,
    test_pixel_shuffle,
    test_pointwise,
    test_pool,
    test_probe,
    test_recurrent,
    test_reduce,
    test_reduce_by_index,
    test_resample,
    test_scan,
    test_scatter,
    test_slice_cat_pad,
    test_sparse,
    test_sparse_factor,
    test_sparse_ops,
    test_views,
)  # fmt: skip
from tests.versions import lacks

from torchjac._rules.registry import RULES, name_of, named

MODULES = (
    test_average, test_complex_parts, test_conv, test_cross, test_determinant, test_embedding_bag, test_gather,
    test_glu, test_grid_sample, test_independent_dims, test_losses, test_masked, test_matmul, test_normalise,
    test_pairwise, test_pixel_shuffle, test_pointwise, test_pool, test_probe, test_recurrent, test_reduce,
    test_reduce_by_index, test_resample, test_scan, test_scatter, test_slice_cat_pad, test_sparse,
    test_sparse_factor, test_sparse_ops, test_views,
)  # fmt: skip

#: Names no test reaches on CPU, each with its reason
UNREACHED = {
    "CudnnConvolutionBackward0": "CUDA",
    "MiopenConvolutionBackward0": "ROCm",
    "PinMemoryBackward0": "needs a GPU to pin memory for",
    "ScaledDotProductFlashAttentionBackward0": "CUDA",
    "ScaledDotProductEfficientAttentionBackward0": "CUDA",
    "ScaledDotProductCudnnAttentionBackward0": "CUDA",
    "FusedRmsNormBackward0": "the fused kernel is CUDA's; on CPU its pieces are recorded",
    "FillBackward2": "the in-place name of FillBackward0, whose formula it shares",
}

#: Made by PyTorch or by us outside the table of derivatives
OUTSIDE = {
    "WriteBackward",
    "CofactorsBackward",
    "torch::autograd::CopyBackwards",
    "torch::autograd::CopySlices",
}


def _tested() -> set[str]:
    cases = [one for module in MODULES for one in [*module.CASES, *getattr(module, "FORGETS", [])]]
    return {one.node.removesuffix("_copy") for one in cases} | {"WriteBackward"}


def _names() -> list[str]:
    # The pointwise table is registered for every overload number; a test of its own holds each stem.
    real = test_pointwise.node_names() | OUTSIDE
    named = ((name_of(op), found.rule.__name__) for op, found in RULES.items())
    return sorted(name for name, rule in named if name in real or rule != "pointwise")


@pytest.mark.parametrize("name", _names())
def test_every_rule_is_tested(name: str) -> None:
    """A rule without a test names the reason why it cannot be reached here."""
    assert (name in _tested()) != (name in UNREACHED | dict.fromkeys(test_pointwise.UNREACHED))


@pytest.mark.parametrize("name", _names())
def test_every_name_is_a_node(name: str) -> None:
    """A misspelled name would never be found."""
    if lacks(name):
        pytest.skip(f"this PyTorch lacks {name}")
    assert name in test_pointwise.node_names() | OUTSIDE


def test_nodes_of_second_derivatives():
    """Each node that PyTorch leaves where a gradient is differentiated again has a rule, or a reason for none."""
    twice = {name for name in test_pointwise.node_names() if is_twice(name)}
    assert len(twice) > 70
    ruled = {name for name in twice if named(name) is not None}
    assert twice - ruled == OPAQUE_TWICE.keys() & twice
    assert not OPAQUE_TWICE.keys() & ruled
    assert {
        "NllLossBackwardBackward0",
        "GridSampler3DBackwardBackward0",
        "SoftmaxBackwardDataBackward0",
    } <= ruled
