"""Photos: from folders and archives into packed data sets that training reads without decoding."""
