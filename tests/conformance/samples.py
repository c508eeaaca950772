"""The samples of PyTorch's op database: which ops, the same samples at every call, and parts of them."""

from __future__ import annotations

import random
import warnings
import zlib
from typing import Any
from unittest import mock

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db


def label(op: Any) -> str:
    """The op's name with its variant."""
    return f"{op.name}.{op.variant_test_name}" if op.variant_test_name else op.name


def differentiable_ops(dtype: torch.dtype = torch.float64) -> list[Any]:
    """The ops of the database with autograd support for a dtype on the CPU."""
    return [
        op
        for op in op_db
        if op.supports_autograd and dtype in op.supported_dtypes("cpu") & op.supported_backward_dtypes("cpu")
    ]


#: Seeds the CPU alone. `torch.manual_seed` also keeps a stack trace for each kind of GPU that is not there,
#: which took four fifths of the time of a sweep (torch 2.13).
_seed_cpu = torch.default_generator.manual_seed


def reseed() -> None:
    """Start every random stream anew, so that two calls of one random op draw the same numbers."""
    _seed_cpu(0)
    random.seed(0)
    np.random.seed(0)


def samples(op: Any, dtype: torch.dtype = torch.float64) -> list[Any]:
    """The op's samples, the same at every call."""
    reseed()
    with warnings.catch_warnings(), mock.patch("torch.manual_seed", _seed_cpu):
        warnings.simplefilter("ignore")
        return list(op.sample_inputs("cpu", dtype, requires_grad=True))


def in_fraction(name: str, index: int, part: int, parts: int, salt: str = "") -> bool:
    """Whether a sample belongs to one of ``parts`` equal parts; the same on every machine."""
    return zlib.crc32(f"{salt}{name}#{index}".encode()) % parts == part
