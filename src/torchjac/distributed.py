"""Jacobians over the ranks of a process group: rows shared out, products that exchange halos, solvers on top.

Under ``torchrun``, each process is a rank of a `DeviceMesh` of one dim. Needs ``torch.distributed``.
"""

# Its functions have the group of the moment when they are imported as a default, which outlives its end: gloo's threads
# then meet an interpreter that ends, and the process may abort. The first DTensor imports them (torch 2.9-2.14).
import torch.distributed.nn.functional  # noqa: F401

from ._distributed.find import jacobian, local_jacobian, value_and_local_jacobian
from ._distributed.group import RankError, together
from ._distributed.halo import Halo
from ._distributed.layout import local_rows
from ._distributed.operator import ShardedOperator
from ._distributed.sharded import ShardedJacobian
from ._distributed.tasks import row_tasks

__all__ = [
    "Halo",
    "RankError",
    "ShardedJacobian",
    "ShardedOperator",
    "jacobian",
    "local_jacobian",
    "local_rows",
    "row_tasks",
    "together",
    "value_and_local_jacobian",
]
