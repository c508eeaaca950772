"""The form of the answer."""
