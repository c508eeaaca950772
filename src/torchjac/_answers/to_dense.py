"""A form written as a dense tensor that the caller may keep and write into."""

from __future__ import annotations

from torch import Tensor

from .._blocks.write import written
from .forms import Form, repeated


def to_dense(form: Form) -> Tensor:
    """Return a form as a dense tensor of shape ``out_shape + in_shape``."""
    return repeated(form, "dense", lambda form: written(*form.ends))
