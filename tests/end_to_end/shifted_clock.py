"""A machine whose time of day can be set while programs run: a small library between them and the C library.

Only the time of day moves, as when an administrator or a time service sets it; the monotonic clock goes on. Programs
started with the library read the shift, in seconds, from a file at every look at the clock.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

_SOURCE = r"""
#define _GNU_SOURCE
#include <dlfcn.h>
#include <fcntl.h>
#include <stdlib.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

static long shift(void) {
    char text[32] = {0};
    const char *path = getenv("SHIFTED_CLOCK");
    int file = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    if (file < 0) return 0;
    ssize_t size = read(file, text, sizeof text - 1);
    close(file);
    return size > 0 ? atol(text) : 0;
}
int clock_gettime(clockid_t id, struct timespec *now) {
    static int (*real)(clockid_t, struct timespec *);
    if (!real) real = (int (*)(clockid_t, struct timespec *))dlsym(RTLD_NEXT, "clock_gettime");
    int result = real(id, now);
    if (!result && (id == CLOCK_REALTIME || id == CLOCK_REALTIME_COARSE)) now->tv_sec += shift();
    return result;
}
time_t time(time_t *store) {
    struct timespec now;
    clock_gettime(CLOCK_REALTIME, &now);
    if (store) *store = now.tv_sec;
    return now.tv_sec;
}
int gettimeofday(struct timeval *restrict store, void *restrict zone) {
    struct timespec now;
    (void)zone;
    clock_gettime(CLOCK_REALTIME, &now);
    store->tv_sec = now.tv_sec;
    store->tv_usec = now.tv_nsec / 1000;
    return 0;
}
"""


class ShiftedClock:
    """A clock of a test.

    Args:
        folder: Where the library and the file with the shift are made.
    """

    def __init__(self, folder: Path) -> None:
        source, self._library, self._file = folder / "clock.c", folder / "clock.so", folder / "shift"
        source.write_text(_SOURCE)
        command = ["cc", "-shared", "-fPIC", "-O1", "-o", str(self._library), str(source), "-ldl"]
        subprocess.run(command, check=True)
        self.shift(0)

    @staticmethod
    def is_possible() -> bool:
        """Whether this machine has a C compiler."""
        return shutil.which("cc") is not None

    def environment(self) -> dict[str, str]:
        """Return what programs are started with."""
        return {"LD_PRELOAD": str(self._library), "SHIFTED_CLOCK": str(self._file)}

    def shift(self, seconds: int) -> None:
        """Set the clock so far ahead of the true time."""
        new = self._file.with_suffix(".new")
        new.write_text(str(seconds))
        new.replace(self._file)
