"""The model: colour space, network, noise schedule, samplers, and the encoder that sees the gray photo."""
