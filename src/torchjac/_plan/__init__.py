"""Programs: what a computation does to tensors, recorded once as a straight line and run again on others."""
