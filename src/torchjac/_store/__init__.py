"""A Jacobian on disk: written piece by piece, resumed where it was cut short, read by rows."""
