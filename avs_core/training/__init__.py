"""Training without an engine: plain functions that Ray Train, torchrun or a shell may call."""
