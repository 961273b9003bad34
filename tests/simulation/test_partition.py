from __future__ import annotations

from pathlib import Path
from typing import get_args

import numpy as np
import pandas as pd
import pytest

from semc.exit_codes import ExitCode, SemcError
from simulation.partition import PartitionConfig, PartitionKind, partition_patients

KINDS = get_args(PartitionKind)
METADATA = Path(__file__).parents[2].parent / "shared" / "data" / "fetal_planes_metadata" / "metadata.csv"


def table(num_patients: int = 90) -> pd.DataFrame:
    """Patients of five classes at three centres."""
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "group": [f"p{number:03d}" for number in range(num_patients)],
            "label": rng.choice(list("abcde"), num_patients),
            "centre": rng.choice(["north", "south", "west"], num_patients, p=[0.6, 0.3, 0.1]),
            "num_images": rng.integers(1, 9, num_patients),
        }
    )


def labels_of(patients: pd.DataFrame, groups: tuple[str, ...]) -> pd.Series:
    return patients.set_index("group").loc[list(groups), "label"]


@pytest.mark.parametrize("kind", KINDS)
def test_every_patient_goes_to_one_site_whatever_the_row_order(kind: PartitionKind) -> None:
    patients = table()
    config = PartitionConfig(kind=kind, num_sites=4, seed=5)
    parts = partition_patients(patients, config)
    assert sorted(group for groups in parts.values() for group in groups) == list(patients["group"])
    assert parts == partition_patients(patients.sample(frac=1, random_state=1), config)


@pytest.mark.parametrize("kind", ["iid", "dirichlet", "quantity_skew"])
def test_the_seed_decides(kind: PartitionKind) -> None:
    first, other = (partition_patients(table(), PartitionConfig(kind=kind, seed=seed)) for seed in (1, 2))
    assert first != other


def test_centres_keep_their_patients() -> None:
    patients = table()
    parts = partition_patients(patients, PartitionConfig(kind="by_centre"))
    assert set(parts) == {"north", "south", "west"}
    centre = patients.set_index("group")["centre"]
    assert all((centre.loc[list(groups)] == name).all() for name, groups in parts.items())


def test_iid_is_even_in_size_and_class() -> None:
    patients = table(400)
    parts = partition_patients(patients, PartitionConfig(kind="iid", num_sites=4))
    assert {len(groups) for groups in parts.values()} == {100}
    for groups in parts.values():
        assert labels_of(patients, groups).value_counts(normalize=True).max() < 0.35


def test_dirichlet_skew_grows_as_alpha_falls() -> None:
    def spread(alpha: float) -> float:
        patients = table(400)
        parts = partition_patients(patients, PartitionConfig(kind="dirichlet", num_sites=3, alpha=alpha))
        shares = [labels_of(patients, groups).value_counts(normalize=True) for groups in parts.values()]
        return float(pd.DataFrame(shares).fillna(0).std().mean())

    assert spread(0.3) > 2 * spread(100)


def test_label_skew_gives_each_site_its_number_of_classes() -> None:
    patients = table()
    parts = partition_patients(patients, PartitionConfig(kind="label_skew", num_sites=5, classes_per_site=2))
    assert [labels_of(patients, groups).nunique() for groups in parts.values()] == [2] * 5


def test_quantity_skew_differs_in_size_above_a_minimum() -> None:
    config = PartitionConfig(kind="quantity_skew", num_sites=4, alpha=0.4, min_patients=5)
    sizes = sorted(len(groups) for groups in partition_patients(table(), config).values())
    assert sizes[0] >= 5
    assert sizes[-1] > 2 * sizes[0]


@pytest.mark.parametrize(
    "config",
    [
        PartitionConfig(kind="iid", num_sites=200),
        PartitionConfig(kind="quantity_skew", num_sites=60),
        PartitionConfig(kind="dirichlet", num_sites=60),
        PartitionConfig(kind="label_skew", num_sites=2, classes_per_site=2),
        PartitionConfig(kind="label_skew", num_sites=2, classes_per_site=9),
    ],
    ids=lambda config: f"{config.kind}-{config.num_sites}-{config.classes_per_site}",
)
def test_what_cannot_be_met_is_one_line(config: PartitionConfig, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SemcError) as caught:
        partition_patients(table(), config)
    assert caught.value.code is ExitCode.USAGE
    assert capsys.readouterr().err == ""


@pytest.mark.real_data
@pytest.mark.skipif(not METADATA.is_file(), reason="the table of fetal planes is not beside the checkout")
def test_the_real_table_of_fetal_planes_by_machine() -> None:
    """1,792 patients of FETAL_PLANES_DB; the class shares of its machines differ."""
    images = pd.read_csv(METADATA, dtype=str)
    by_patient = images.groupby("Patient_num")
    patients = pd.DataFrame(
        {
            "group": list(by_patient.groups),
            "label": by_patient["Plane"].agg(lambda planes: planes.value_counts().index[0]).tolist(),
            "centre": by_patient["US_Machine"].first().tolist(),
            "num_images": by_patient.size().tolist(),
        }
    )
    assert len(images) == 12_400
    assert len(patients) == 1792
    parts = partition_patients(patients, PartitionConfig(kind="by_centre"))
    assert set(parts) == {"Aloka", "Voluson E6", "Voluson S10", "Other"}
    assert sum(map(len, parts.values())) == 1792
