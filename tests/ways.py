"""The ways to one dense Jacobian: what each public call gives, whatever order and layout it takes on the way."""

from collections.abc import Callable
from typing import Any

import torch

from torchjac import jacfwd, jacobian, jacrev

#: Of a function, what gives its Jacobian as a dense tensor
WAYS: dict[str, Callable[[Any], Callable[[torch.Tensor], Any]]] = {
    "rows": jacrev,
    "chunks": lambda f: jacrev(f, chunk_size=2),
    "jacfwd": jacfwd,
    "auto": lambda f: lambda x: jacobian(f)(x).to_dense(),
    "reverse": lambda f: lambda x: jacobian(f, mode="reverse")(x).to_dense(),
    "forward": lambda f: lambda x: jacobian(f, mode="forward")(x).to_dense(),
    "sparse": lambda f: lambda x: jacrev(f, layout=torch.sparse_coo)(x).to_dense(),
    "compressed": lambda f: lambda x: jacrev(f, layout=torch.sparse_csr)(x).to_dense(),
}
