"""Measures how good a model is: measures, intervals, verdicts, the report and the model card."""
