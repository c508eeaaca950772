"""From a tape to the blocks of the Jacobian."""
