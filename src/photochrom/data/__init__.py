"""Imports photos from folders and archives into data sets that training reads without decoding."""
