"""Training a model: losses, the loop, checkpoints, and the checks before it starts."""
