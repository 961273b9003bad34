"""Which patients go to which site: Flower's partitioners on a table of patients, never on images.

A patient's label is the class of most of its images; a site's images are all images of its patients, so no
patient ever stands at two sites.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr
from io import StringIO
from typing import Literal

import datasets
import numpy as np
import pandas as pd
from flwr_datasets.partitioner import (
    DirichletPartitioner,
    IidPartitioner,
    NaturalIdPartitioner,
    Partitioner,
    PathologicalPartitioner,
    SizePartitioner,
)
from pydantic import Field

from semc.config.section import Section
from semc.exit_codes import ExitCode, SemcError
from semc.seed import derive_seed

PartitionKind = Literal["by_centre", "iid", "dirichlet", "label_skew", "quantity_skew"]
PATIENT_COLUMNS = ("group", "label", "centre", "num_images")
"""Columns of the table of patients."""


class PartitionConfig(Section):
    """A rule that gives every patient to one site."""

    kind: PartitionKind = "by_centre"
    """by_centre = one site per centre; iid = random, equal sizes; dirichlet = Dirichlet shares of each class;
    label_skew = few classes per site; quantity_skew = sizes in Dirichlet shares."""
    num_sites: int = Field(default=3, ge=1, le=1000)
    """Number of sites; by_centre takes as many as there are centres."""
    alpha: float = Field(default=0.5, gt=0)
    """Dirichlet concentration of dirichlet and quantity_skew; small = more skew."""
    classes_per_site: int = Field(default=2, ge=1)
    """Classes per site of label_skew, counted by patients' labels."""
    min_patients: int = Field(default=3, ge=1)
    """Fewest patients of a site (dirichlet and quantity_skew)."""
    seed: int = Field(default=0, ge=0)
    """Seed of everything random here."""


def partition_patients(patients: pd.DataFrame, config: PartitionConfig) -> dict[str, tuple[str, ...]]:
    """Divide patients among sites.

    Args:
        patients: One row per patient with the columns PATIENT_COLUMNS, in any order.
        config: The rule.

    Returns:
        Site to its patients' groups; sites are the centres' names for by_centre, else `site_1`, `site_2`, ...

    Raises:
        SemcError: USAGE where the rule cannot be met with these patients.
    """
    ordered = patients.sort_values("group", ignore_index=True)[list(PATIENT_COLUMNS)]
    table = datasets.Dataset.from_pandas(ordered, preserve_index=False)
    seed = derive_seed(config.seed, "partition", config.kind) % 2**32
    if config.kind in ("iid", "quantity_skew"):
        table = table.shuffle(seed=seed)
    partitioner = _partitioner(config, len(ordered), seed)
    try:
        with _quiet():
            partitioner.dataset = table
            parts = [
                tuple(sorted(partitioner.load_partition(number)["group"]))
                for number in range(partitioner.num_partitions)
            ]
    except (ValueError, IndexError) as error:
        raise _impossible(config, len(ordered)) from error
    if sum(map(len, parts)) != len(ordered) or not all(parts):
        raise _impossible(config, len(ordered))
    names = [f"site_{number}" for number in range(1, len(parts) + 1)]
    if isinstance(partitioner, NaturalIdPartitioner):
        names = [str(partitioner.partition_id_to_natural_id[number]) for number in range(len(parts))]
    return dict(zip(names, parts, strict=True))


def _partitioner(config: PartitionConfig, num_patients: int, seed: int) -> Partitioner:
    if config.kind == "by_centre":
        return NaturalIdPartitioner(partition_by="centre")
    if config.kind == "iid":
        return IidPartitioner(config.num_sites)
    if config.kind == "dirichlet":
        return DirichletPartitioner(
            config.num_sites, "label", config.alpha, min_partition_size=config.min_patients, seed=seed
        )
    if config.kind == "label_skew":
        return PathologicalPartitioner(
            config.num_sites,
            "label",
            config.classes_per_site,
            class_assignment_mode="deterministic",
            seed=seed,
        )
    return SizePartitioner(_skewed_sizes(num_patients, config, seed))


def _skewed_sizes(num_patients: int, config: PartitionConfig, seed: int) -> list[int]:
    """Return site sizes: the minimum each, the rest in Dirichlet shares by largest remainder."""
    spare = max(0, num_patients - config.num_sites * config.min_patients)
    shares = np.random.default_rng(seed).dirichlet(np.full(config.num_sites, config.alpha)) * spare
    sizes = np.floor(shares).astype(int)
    sizes[np.argsort(sizes - shares, kind="stable")[: spare - int(sizes.sum())]] += 1
    return [int(size) + config.min_patients for size in sizes]


@contextmanager
def _quiet() -> Iterator[None]:
    """Silence the partitioners' progress bars and warnings; what matters ends as an error here."""
    with warnings.catch_warnings(), redirect_stderr(StringIO()):
        warnings.simplefilter("ignore", UserWarning)
        yield


def _impossible(config: PartitionConfig, num_patients: int) -> SemcError:
    return SemcError(
        ExitCode.USAGE,
        f"{num_patients} patients cannot be divided by {config.kind} into {config.num_sites} sites.",
        "ask for fewer sites, less skew or more classes per site",
    )
