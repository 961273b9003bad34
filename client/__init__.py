"""What a hospital runs: joins a federation, trains on its own data, keeps its state."""
