"""The local Jacobian of each op."""
