"""Checks of the images: listed, labelled, split by patient, readable; pixels are looked at, never shown."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from client.doctor.data_change import data_change_row
from client.doctor.row import Row, checked, passed, skipped, warning, wrong
from client.privacy_gate import ledger_place, policy_of
from semc.config import DataConfig, SiteConfig, StudyConfig, load_study
from semc.config.site import SiteDataConfig
from semc.datasets import ManifestRow, SiteData, build_site_data, check_images
from semc.datasets.manifest import read_table, rename_columns
from semc.datasets.private_site_data import PrivateSiteData
from semc.datasets.study_data import build_study_data
from semc.exit_codes import ExitCode, SemcError

SAMPLE_PER_SPLIT: Final = 8
_SMALLEST_BATCH: Final = 2


def data_rows(site: SiteConfig, study_name: str | None, *, every_image: bool) -> Iterator[Row]:
    """Yield what the site's images are like.

    Args:
        site: The hospital.
        study_name: Study to check against; None: the classes the site file or the images name.
        every_image: Decode every image, not a sample of each split.
    """
    try:
        study = load_study(study_name) if study_name is not None else None
        config = study.data if study is not None else DataConfig(classes=_classes(site))
        data = _site_data(site, study, config)
    except SemcError as error:
        yield wrong("images", error)
        yield skipped("image pixels", "the list of images is wrong")
        return
    splits = {"train": data.train, "validation": data.validation, "test": data.test}
    counts = ", ".join(f"{len(rows)} {name}" for name, rows in splits.items())
    yield passed("images", f"{counts}{'' if study is None else f' (study {study.name})'}")
    yield _classes_present(config, splits)
    yield _patients(splits, ungrouped=isinstance(data, SiteData) and data.ungrouped)
    if isinstance(data, PrivateSiteData):
        yield _left_out(data)
        yield _policy_patients(site, data)
        yield _people_with_two_keys(site, config)
    else:
        yield _repeats(data)
    if study is None or not study.privacy.private:  # a private study goes on whatever changed
        yield data_change_row(site, study)
    yield checked("image pixels", lambda: _pixels(splits, config, site.data, every_image=every_image))
    if study is not None:
        yield checked("study", lambda: _agreed(study, site))


def _site_data(site: SiteConfig, study: StudyConfig | None, config: DataConfig) -> SiteData | PrivateSiteData:
    """Read the rows as the study would."""
    if study is not None:
        return build_study_data(site.data, study)
    return build_site_data(site.data, config, _SMALLEST_BATCH)


def _left_out(data: PrivateSiteData) -> Row:
    """Tell of rows that a private study leaves out in silence, since a refusal would tell the coordinator of them."""
    if not data.dropped_patients and not data.dropped_rows:
        return passed("rows left out", "none")
    found = f"{data.dropped_patients} patients with a row that cannot serve"
    found += f", {data.dropped_rows} rows that belong to no patient"
    if not data.faults:
        return warning("rows left out", found, "give every row a patient key")
    first = data.faults[0]
    return warning("rows left out", f"{found}; the first: {first.problem}", first.fix)


def _policy_patients(site: SiteConfig, data: PrivateSiteData) -> Row:
    """Hold the policy's public number of patients against those that train; the result stays here."""
    found = len({row.group for row in data.train})
    try:
        policy = policy_of(site)
    except SemcError as error:
        return wrong("policy's patients", error)
    if policy is None:
        return skipped("policy's patients", "no policy file")
    if found < policy.patients:
        fix = (
            "the ledger was made for the stated number: ask who signs for the patients"
            if ledger_place(site).exists()
            else "state a lower number in policy.yaml before `semc-client ledger init`"
        )
        return warning("policy's patients", f"the policy states {policy.patients}, {found} train", fix)
    return passed("policy's patients", f"{found} train, the policy states {policy.patients}")


def _people_with_two_keys(site: SiteConfig, config: DataConfig) -> Row:
    """Tell of patients that share a file: a person under two keys is protected as two patients, not as one."""
    try:
        merged = build_site_data(site.data, config, _SMALLEST_BATCH).num_merged_groups
    except SemcError:
        return skipped("identical files", "not looked for: the site's own split has no use for these rows")
    if merged:
        found = f"patients that share a file with another one: {merged}"
        return warning("identical files", found, "one person under two keys is protected only as two")
    return passed("identical files", "no two patients share one")


def _classes(site: SiteConfig) -> tuple[str, ...]:
    """Return the classes the site's governance expects, or those its images carry."""
    if site.expected_model.classes is not None:
        return site.expected_model.classes
    names = _labels(site.data) - set(site.data.ignore_labels)
    classes = sorted({site.data.label_map.get(name, name) for name in names})
    if not classes:
        raise SemcError(ExitCode.SPLIT_EMPTY, "The manifest has no images.", "list the images in it")
    if len(classes) < 2:
        raise SemcError(
            ExitCode.CLASSES_TOO_FEW,
            "The images carry a single label.",
            "correct the label column or folders",
        )
    return tuple(classes)


def _labels(data: SiteDataConfig) -> set[str]:
    if data.format == "manifest":
        table = rename_columns(read_table(data.root / data.manifest), data.column_map)
        return {str(label) for label in table["label"]}
    return {folder.name for folder in data.root.glob("*/*") if folder.is_dir() and folder.name[0] != "."}


def _classes_present(config: DataConfig, splits: dict[str, tuple[ManifestRow, ...]]) -> Row:
    missing = {
        name: [
            label for number, label in enumerate(config.classes) if number not in {row.label for row in rows}
        ]
        for name, rows in splits.items()
    }
    found = "; ".join(f"{name} lacks {', '.join(labels)}" for name, labels in missing.items() if labels)
    if found:
        return warning("classes", found, "scores leave a class out where the site has no image of it")
    return passed("classes", f"all {len(config.classes)} in every split")


def _patients(splits: dict[str, tuple[ManifestRow, ...]], *, ungrouped: bool) -> Row:
    groups = {name: {row.group for row in rows} for name, rows in splits.items()}
    if ungrouped:
        return warning(
            "patients", "some images have no patient key", "reports will say: not patient-disjoint"
        )
    shared = sum(map(len, groups.values())) - len(set().union(*groups.values()))
    if shared:
        fix = "give all rows of a patient one split"
        return Row("patients", "wrong", f"{shared} stand in two splits", fix, ExitCode.SPLIT_LEAK)
    counts = ", ".join(f"{len(found)} {name}" for name, found in groups.items())
    return passed("patients", f"{counts}; none in two splits")


def _repeats(data: SiteData) -> Row:
    """Tell what the search for identical files changed."""
    if data.num_quarantined:
        found = f"{data.num_quarantined} images left out: identical files with other labels or splits"
        return warning("identical files", found, "correct the labels of repeated images")
    if data.num_merged_groups:
        found = f"{data.num_merged_groups} patients share a file and are kept in one split"
        return warning("identical files", found, "correct the patient keys")
    return passed("identical files", "none that matter")


def _pixels(
    splits: dict[str, tuple[ManifestRow, ...]], config: DataConfig, data: SiteDataConfig, *, every_image: bool
) -> str:
    """Decode a sample, spread over each split, as training would."""
    strides = {
        name: 1 if every_image else max(1, len(rows) // SAMPLE_PER_SPLIT) for name, rows in splits.items()
    }
    found = check_images(
        [row for name, rows in splits.items() for row in rows[:: strides[name]]], config, data
    )
    if found.errors:
        first = found.errors[0]
        more = f" ({len(found.errors)} of {found.num_checked} images fail)" if len(found.errors) > 1 else ""
        raise SemcError(first.code, f"{first.problem}{more}", first.fix)
    return f"{found.num_checked} images decoded"


def _agreed(study: StudyConfig, site: SiteConfig) -> str:
    """Ask the door in whether the site would take part in the study."""
    from client.inbound import check_study
    from client.refusal import RefusalError

    try:
        check_study(study, study.digest(), site)
    except RefusalError as refusal:
        raise refusal.problem from refusal
    return f"'{study.name}' ({study.digest()[:12]}) would be accepted"
