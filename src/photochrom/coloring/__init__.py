"""From a photo to its colours: options, reading, the model's work, and writing."""
