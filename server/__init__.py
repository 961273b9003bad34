"""What the coordinating centre runs: rounds, aggregation, checkpoints."""
