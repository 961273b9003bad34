"""The end-to-end tests' three hospitals serve here too."""

from tests.end_to_end.conftest import hospitals, study

__all__ = ["hospitals", "study"]
