"""Imported by nobody but a function under test."""

SCALE = 2.0
