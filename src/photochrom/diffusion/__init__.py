"""The model itself: colour, network, noise, samplers, and the encoder that sees the gray photo."""
