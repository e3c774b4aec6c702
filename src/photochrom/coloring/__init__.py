"""Colours photos and films: options, reading, the model's work, writing."""
