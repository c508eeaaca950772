"""Fixtures for whole files or folders, which take them in by importing them."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from tests.forced import force


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Every test runs in float64 unless it says otherwise, from the same random numbers."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(0)
    yield
    torch.set_default_dtype(before)


@pytest.fixture(autouse=True)
def structured(monkeypatch: pytest.MonkeyPatch) -> None:
    """The structured walk inside and outside, however small the function: otherwise no rule would be asked."""
    force(monkeypatch, "structure")
