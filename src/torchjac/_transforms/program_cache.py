"""program_cache: what is remembered of graphs that came before, and how much it may take."""

from __future__ import annotations

from typing import NamedTuple

from .._accumulate.planned import PROGRAMS


class ProgramCache(NamedTuple):
    """The contents of the cache of programs.

    Attributes:
        programs: how many programs are kept.
        bytes: about how many bytes they take.
        max_bytes: how many they may take; those used least recently go first.
    """

    programs: int
    bytes: int
    max_bytes: int


def program_cache(*, max_bytes: int | None = None, clear: bool = False) -> ProgramCache:
    """Tell what the cache of programs holds, after bounding or clearing it.

    A call of `jacrev`, `jacobian` or `hessian` runs the function anew, and then takes the tensor ops that its graph
    took when it came before. These programs hold tables and constants of their own, never a tensor of the caller's.
    They are shared by all threads of the process.

    Args:
        max_bytes: how many bytes programs may take from now on (64 MiB unless set); 0 keeps none.
        clear: whether to forget all programs first.

    Raises:
        ValueError: if ``max_bytes`` is negative or no int.

    Example:
        >>> import torch
        >>> from torchjac import jacrev, program_cache
        >>> _ = program_cache(clear=True)
        >>> for _ in range(6):  # what is called a few times leaves no program
        ...     J = jacrev(torch.sin)(torch.ones(3))
        >>> program_cache().programs
        1
    """
    if max_bytes is not None and (not isinstance(max_bytes, int) or max_bytes < 0):
        raise ValueError(f"program_cache: max_bytes must be an int of at least 0, got {max_bytes!r}")
    if clear:
        PROGRAMS.clear()
    if max_bytes is not None:
        PROGRAMS.bound(max_bytes)
    return ProgramCache(PROGRAMS.programs, PROGRAMS.bytes, PROGRAMS.most)
