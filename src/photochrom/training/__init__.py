"""Teaching a model: losses, the loop, checkpoints, and what a training refuses."""
