"""A hospital's ledger for tests: small limits, no wait for the disk, which no test here can make lose power."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from semc.privacy import ledger_anchor, ledger_store
from semc.privacy.accounting import Mechanism
from semc.privacy.ledger import Ledger, LedgerPlace, Reservation
from semc.privacy.limits import Limits

STUDY_A, STUDY_B = "a" * 64, "b" * 64
INCOMING, OUTGOING = "1" * 64, "2" * 64
MECHANISM = Mechanism(2.0, 0.1, 100)


def limits(
    *,
    total: float = 8.0,
    study: float = 6.0,
    delta: float = 1e-5,
    accept_unprotected: bool = False,
    max_evaluations: int = 10,
) -> Limits:
    return Limits(
        epsilon_total=total,
        delta_total=1e-5,
        epsilon_study=study,
        delta=delta,
        min_noise_multiplier=0.5,
        max_patient_fraction=1.0,
        max_steps_per_round=1000,
        patients=400,
        min_patients=100,
        accept_unprotected_history=accept_unprotected,
        max_evaluations=max_evaluations,
    )


def place_in(folder: Path) -> LedgerPlace:
    return LedgerPlace(folder / "ledger", folder / "state" / "ledger.anchor")


def new_ledger(folder: Path, *, site: str = "north", total: float = 8.0) -> tuple[LedgerPlace, Ledger]:
    place = place_in(folder)
    return place, Ledger.create(place, site=site, patients=400, delta=1e-5, epsilon_total=total)


def round_of(study: str = STUDY_A, number: int = 1, mechanism: Mechanism = MECHANISM) -> Reservation:
    return Reservation(study, number, INCOMING, mechanism)


def without_waiting(patch: pytest.MonkeyPatch) -> None:
    """Leave out the waits for the disk: they matter where power fails, not where a process dies."""
    connected = ledger_store._connected

    def unsynchronised(database: Path) -> sqlite3.Connection:
        connection = connected(database)
        connection.execute("PRAGMA synchronous = OFF")
        return connection

    patch.setattr(ledger_store, "_connected", unsynchronised)
    patch.setattr(ledger_anchor.os, "fsync", lambda descriptor: None)
