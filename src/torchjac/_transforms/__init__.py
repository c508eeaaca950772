"""The transforms that users call."""
