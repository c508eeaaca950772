"""A function and its arguments → the tape of what autograd recorded."""
