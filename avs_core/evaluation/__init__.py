"""How well masks agree with the truth, and whether a model listens."""
