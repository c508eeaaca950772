"""A piece of a Jacobian: labels, index maps, blocks, and the one law that composes them."""
