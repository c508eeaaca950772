"""The local Jacobian of each op; importing the package registers every rule.

A rule is a function with the name of its op: that of `torch.mm` is `mm` in `matmul`.
"""

# ruff: noqa: F401 (importing a file registers its rules)

from . import (
    angles,
    attention,
    average,
    complex_parts,
    conv,
    cross,
    determinant,
    embedding_bag,
    functions,
    gather,
    glu,
    grid_sample,
    independent_dims,
    index_backward,
    losses,
    lstm_backward,
    masked,
    matmul,
    norm_backward,
    normalise,
    pairwise,
    pixel_shuffle,
    pointwise,
    pool,
    probe,
    products,
    recurrent,
    reduce,
    reduce_by_index,
    resample,
    safe_backward,
    scan,
    scatter,
    slice_cat_pad,
    sparse,
    sparse_ops,
    views,
)
