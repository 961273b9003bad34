"""SEMC: the science. Networks, losses, data, training; no networking (see CONTRIBUTING.md for the arrows)."""

__version__ = "0.1.0"
