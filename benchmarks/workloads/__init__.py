"""The problems, a file for each family; importing this registers them all, in the order of the table."""

from . import scalar, dense, batched, pde, hessians, vision, robotics, loops  # noqa: F401, I001
