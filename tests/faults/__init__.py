"""Real processes under kills, cuts and full disks. What these modules assert is explained as in a test."""

import pytest

pytest.register_assert_rewrite("tests.faults.federation", "tests.faults.plan", "tests.faults.study_run")
