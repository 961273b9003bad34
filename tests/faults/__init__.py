"""Real processes under kills, cuts and full disks. What these modules assert is explained as in a test."""

import pytest

for _module in ("cut", "federation", "kill_cell", "plan", "schedules", "study_run"):
    pytest.register_assert_rewrite(f"tests.faults.{_module}")
