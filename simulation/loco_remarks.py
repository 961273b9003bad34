"""What a reader of leave-one-centre-out tables must know beside them, found out from the study and the sites."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from semc.config import StudyConfig, load_site
from semc.datasets import SiteData, build_site_data
from semc.reporting.remarks import Remarks
from simulation.left_out import FINE_TUNED, labelled_rows
from simulation.site_folder import SITE_FILE

CURVES = (
    "A line is the mean over the federations that each left another centre out, as far as this centre was in them: "
    "federations of different members."
)


def remarks_on_left_out(
    study: StudyConfig, sites: Path, centres: Sequence[str], seeds: Sequence[int]
) -> Remarks:
    """Return the remarks of one federated arm.

    Args:
        study: The arm's study.
        sites: Folder made by `semc-sim sites`.
        centres: Those left out.
        seeds: Of the training; they decide which patients are labelled.
    """
    return Remarks(
        left_out=(*_on_statistics(study), _on_labelled(study, sites, centres, seeds)),
        curves=CURVES,
    )


def _on_statistics(study: StudyConfig) -> tuple[str, ...]:
    """Say so where "none" needs statistics that no federation of this kind could hand out."""
    if study.federation.bn == "average":
        return ()
    return (
        "none: with the mean of the training centres' batch-norm statistics. In this arm these never leave their "
        "centres, so the condition exists in a simulation only.",
    )


def _on_labelled(study: StudyConfig, sites: Path, centres: Sequence[str], seeds: Sequence[int]) -> str:
    """Say how much was labelled for fine-tuning."""
    shares = []
    for centre in centres:
        site = load_site(sites / centre / SITE_FILE)
        data = build_site_data(site.data, study.data, study.training.batch_size)
        shares.append(f"{centre} {_labelled_in_words(data, centre, seeds)}")
    return (
        f"{FINE_TUNED}: the classifiers after training on all images of a tenth of the centre's training patients, at "
        f"least one of every class: {', '.join(shares)}."
    )


def _labelled_in_words(data: SiteData, centre: str, seeds: Sequence[int]) -> str:
    """Return "12 to 15 images of 4 patients", the lowest and the highest seed."""
    chosen = [labelled_rows(data.train, seed, centre) for seed in seeds]
    images = _range([len(rows) for rows in chosen])
    patients = _range([len({row.group for row in rows}) for rows in chosen])
    return f"{images} images" if data.ungrouped else f"{images} images of {patients} patients"


def _range(numbers: Sequence[int]) -> str:
    low, high = min(numbers), max(numbers)
    return str(low) if low == high else f"{low} to {high}"
