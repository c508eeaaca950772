"""Sums over data of what Jacobians give, one batch at a time: Σ JᵀWJ, Σ Jᵀr, diag(JᵀJ), and Σ JJᵀ by tiles."""

from ._distributed.sums import Sums, sums
from ._distributed.tiles import Tile, kernel_tiles

__all__ = ["Sums", "Tile", "kernel_tiles", "sums"]
