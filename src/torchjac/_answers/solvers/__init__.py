"""Ways to solve sparse systems: what a matrix's pattern says is chosen, by SciPy's and LAPACK's own solvers."""
