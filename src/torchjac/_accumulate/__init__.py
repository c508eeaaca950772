"""From a tape to the blocks of the Jacobian.

`candidates` has the ways to a dense answer and their estimates, `planned` records them and runs the cheapest; `order`
picks the order of an operator's blocks, which `reverse`, `forward` and `by_order` find.
"""
