"""Data sets: names to labels, files to batches, and the procedural phantom."""
