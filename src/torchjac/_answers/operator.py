"""The Jacobian as an operator; what can be asked of it has a room each."""

from __future__ import annotations

from .algebra import Algebra
from .conversion import Conversion
from .display import Display
from .entries import Entries
from .matrix_kind import kind, solved_as
from .systems import Systems


class Jacobian(Algebra, Entries, Systems, Conversion, Display):
    """∂output/∂input of shape ``output.shape + input.shape``, kept as the sum of its blocks or a product of factors.

    As a matrix it has a row for each entry of the output and a column for each of the input, both in
    row-major order. Nothing is written out until it is asked for; "stored" in a cost below means `stored`, and
    "named" the number of entries that the blocks name (`nnz`, where no two blocks name the same one). What is
    returned as a tensor is differentiable through the values of the blocks, unless said otherwise.

    Attributes:
        out_shape: shape of the output.
        in_shape: shape of the input.
        dtype: dtype of the input.
        device: device of the input.
        blocks: the terms of the sum; each holds a small value tensor and the maps that say where it stands.
            Of a product (see `factors`) they are multiplied out where they are looked at.
        report: how they were found, node by node.

    Example:
        >>> import torch
        >>> from torchjac import jacobian
        >>> x = torch.arange(1.0, 5.0)
        >>> J = jacobian(lambda x: x[1:] * x[:-1])(x)
        >>> J
        Jacobian(shape=(3,)+(4,), nnz=6 (0.5 of 12), blocks=2, stored=6, dtype=torch.float32)
        >>> J @ torch.ones(4)
        tensor([3., 5., 7.])
        >>> J[1:].to_dense()
        tensor([[0., 3., 2., 0.],
                [0., 0., 4., 3.]])
    """

    __array_ufunc__ = None  # NumPy leaves `array @ J` to us

    @property
    def kind(self) -> str:
        """The kind of matrix, by the maps of the blocks; no value is looked at, and no size.

        - "diagonal": every entry stands on the diagonal.
        - "block-diagonal": output and input agree along some dims, as a batch does.
        - "low-rank": a product through fewer numbers than it has rows and columns, so that it is singular.
        - "low-rank plus": one of low rank, as a product is, beside one of any other kind that was added to it.
        - "product": two factors that name far fewer entries than their product.
        - "sparse": none of these, and some entries are known to be zero.
        - "dense": anything else.

        How a system with it is solved is another question, and `solved_as` answers it.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> jacobian(torch.sin)(torch.zeros(5)).kind
            'diagonal'
            >>> jacobian(lambda x: x.softmax(-1))(torch.zeros(9, 5)).kind
            'block-diagonal'
        """
        return kind(self.form).name

    @property
    def solved_as(self) -> str:
        """The kind that `solve`, `slogdet` and `lstsq` take the matrix for: its `kind`, or what is faster at its size.

        A "sparse" one of at most 64 × 64 entries, or with more than one entry in four, is solved as "dense"; a
        "block-diagonal" one whose blocks are large and mostly zeros as "sparse". One that is full because each output
        meets a sum, as of ``x * x.mean()``, is solved as the "product" that its terms are, where it is large.

        Example:
            >>> import torch
            >>> from torchjac import jacobian
            >>> ring = lambda x: 4 * x + x.roll(1) + x.roll(-1)
            >>> [(J.kind, J.solved_as) for J in map(jacobian(ring), (torch.zeros(9), torch.zeros(999)))]
            [('sparse', 'dense'), ('sparse', 'sparse')]
        """
        return solved_as(self.form).name
