"""Ways to solve sparse systems: what a matrix's pattern says is chosen, by SciPy's and LAPACK's own solvers.

`choose` picks the factorisation that a pattern allows; a solver that users name has its place in `named`.
"""
