"""What a piece of a Jacobian is: labels, index maps, blocks, and the one law that composes them."""
