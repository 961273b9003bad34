"""What people read about a study: result, tables, curves, one self-contained page."""

from semc.reporting.result import RoundResult, SiteResult, StudyResult

__all__ = ["RoundResult", "SiteResult", "StudyResult"]
