"""The laboratory: builds hospitals and runs the same client and server on one machine."""
