"""Why a site does not answer: a listed code for the coordinator, the full story for the site's own log."""

from __future__ import annotations

import errno

from semc.exit_codes import ExitCode, SemcError
from semc.protocol import RefusalCode

_BY_EXIT_CODE = {
    ExitCode.CONFIG_INVALID: RefusalCode.STUDY,
    ExitCode.VERSION_MISMATCH: RefusalCode.STUDY,
    ExitCode.STUDY_MISMATCH: RefusalCode.MODEL,
    ExitCode.WEIGHTS_INVALID: RefusalCode.MODEL,
    ExitCode.DATA_NOT_FOUND: RefusalCode.DATA,
    ExitCode.DATA_UNREADABLE: RefusalCode.DATA,
    ExitCode.LABEL_UNKNOWN: RefusalCode.DATA,
    ExitCode.SPLIT_EMPTY: RefusalCode.DATA,
    ExitCode.SPLIT_LEAK: RefusalCode.DATA,
    ExitCode.CLASSES_TOO_FEW: RefusalCode.DATA,
    ExitCode.IMAGES_TOO_FEW: RefusalCode.DATA,
    ExitCode.IMAGE_MODE: RefusalCode.DATA,
    ExitCode.MANIFEST_INVALID: RefusalCode.DATA,
    ExitCode.DATA_CHANGED: RefusalCode.DATA_CHANGED,
    ExitCode.DEVICE: RefusalCode.DEVICE,
    ExitCode.DISK: RefusalCode.DISK,
    ExitCode.CHECKPOINT_INVALID: RefusalCode.DISK,
    ExitCode.RUN_FAILED: RefusalCode.DIVERGED,
    ExitCode.BUDGET_REFUSED: RefusalCode.BUDGET,
    ExitCode.LEDGER_INVALID: RefusalCode.LEDGER,
    ExitCode.POLICY_REFUSED: RefusalCode.POLICY,
}


class RefusalError(Exception):
    """An instruction the site does not follow.

    Args:
        code: The only word of this that leaves the site.
        problem: What the site's operator reads.
    """

    def __init__(self, code: RefusalCode, problem: SemcError) -> None:
        super().__init__(problem.line())
        self.code = code
        self.problem = problem


def refuse(code: RefusalCode, exit_code: ExitCode, problem: str, fix: str) -> RefusalError:
    """Return the refusal of one instruction, to be raised."""
    return RefusalError(code, SemcError(exit_code, problem, fix))


def refusal_of(error: BaseException) -> RefusalCode:
    """Return the code that may leave the site for an exception; its text never does."""
    if isinstance(error, RefusalError):
        return error.code
    if isinstance(error, SemcError):
        return _BY_EXIT_CODE.get(error.code, RefusalCode.INTERNAL)
    if isinstance(error, MemoryError) or "CUDA" in str(error) or "out of memory" in str(error):
        return RefusalCode.DEVICE
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EROFS, errno.EDQUOT):
        return RefusalCode.DISK
    return RefusalCode.INTERNAL


def local_line(error: BaseException) -> str:
    """Return the line the site's operator sees for an exception."""
    return problem_of(error).line()


def problem_of(error: BaseException) -> SemcError:
    """Return an exception as the problem that is told at the site; one nobody foresaw is told by its type alone."""
    if isinstance(error, RefusalError):
        return error.problem
    if isinstance(error, SemcError):
        return error
    return SemcError(
        ExitCode.INTERNAL, f"Unexpected {type(error).__name__}.", "read worker.log in the site's logs folder"
    )
