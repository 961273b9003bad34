"""Patient-level differential privacy: the mechanism, its accounting, and the budget a hospital enforces itself."""
