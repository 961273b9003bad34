"""`semc-client check`: what would stop this site, each with its fix, before a study depends on it."""

from client.doctor.report import Report, examine

__all__ = ["Report", "examine"]
