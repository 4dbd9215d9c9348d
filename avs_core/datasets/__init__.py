"""Data sets: where training and evaluation clips come from."""
