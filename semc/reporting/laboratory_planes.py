"""Tables of how many images of each plane are found: over all centres, at each, and where it was never trained on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semc.reporting.groups import Groups, sites_in_every_group
from semc.reporting.planes import PlaneRecall, plane_recalls, rank_among
from semc.reporting.predictions import Predictions
from semc.reporting.site_counts import SiteCounts
from semc.reporting.text_table import ABSENT, TextTable
from semc.reporting.thin_sites import MIN_RANKED_PATIENTS


def planes_table(groups: Groups, classes: Sequence[str], what: str) -> TextTable:
    """Return the recall of every plane over all sites, group by group."""
    shared = sites_in_every_group(groups)
    recalls = {
        name: plane_recalls([record for record in records if record.test_site in shared], classes)
        for name, records in groups.items()
    }
    support = [max(rows[k].num_images for rows in recalls.values()) for k in range(len(classes))]
    return TextTable(
        title=f"Recall of every plane, {what} by {what}",
        caption="Share of the images of a plane that were found, over all centres' test images (n), small centres "
        "included, mean over seeds. "
        "In brackets: Wilson's 95 % interval, which takes images as independent; frames of one patient make the true "
        "one wider.",
        columns=("plane", "n", *recalls),
        rows=tuple(
            (plane, str(support[k]), *(_recall(rows[k]) for rows in recalls.values()))
            for k, plane in enumerate(classes)
        ),
    )


def plane_sites_table(name: str, records: Sequence[Predictions], classes: Sequence[str]) -> TextTable:
    """Return one group's recall of every plane at every site, with the site's rank where enough patients allow one."""
    sites = tuple(dict.fromkeys(record.test_site for record in records))
    recalls = {
        site: plane_recalls([record for record in records if record.test_site == site], classes)
        for site in sites
    }
    rows = []
    for k, plane in enumerate(classes):
        row = [recalls[site][k] for site in sites]
        ranks = rank_among([(item.recall, item.num_patients) for item in row])
        rows.append((plane, *(_ranked(item, rank) for item, rank in zip(row, ranks, strict=True))))
    return TextTable(
        title=f"Recall of every plane at every centre: {name}",
        caption="Share found (Wilson's 95 % interval), test images n and their patients, rank among centres; no rank "
        f"below {MIN_RANKED_PATIENTS} patients, where any order is chance. Where patients are not known, every image "
        "counts as one.",
        columns=("plane", *sites),
        rows=tuple(rows),
    )


def untrained_table(
    groups: Groups, site_counts: Mapping[str, SiteCounts], classes: Sequence[str]
) -> TextTable | None:
    """Return the recall, where a centre's own images hold a class it never trained on, arm by arm; None without any."""
    missing = [
        (site, k)
        for site, counts in site_counts.items()
        for k, name in enumerate(classes)
        if counts.train_class_counts and not counts.train_class_counts.get(name, 0)
    ]
    rows = []
    for site, k in missing:
        found = {
            name: plane_recalls([record for record in records if record.test_site == site], classes)[k]
            for name, records in groups.items()
        }
        support = max(row.num_images for row in found.values())
        if support:
            rows.append((site, classes[k], str(support), *map(_recall, found.values())))
    if not rows:
        return None
    return TextTable(
        title="Classes a centre never trained on",
        caption="Share of the centre's test images of the class that were found (Wilson's 95 % interval), mean over "
        "seeds: what the other centres' images teach.",
        columns=("centre", "class", "n", *groups),
        rows=tuple(rows),
    )


def _recall(row: PlaneRecall) -> str:
    if row.recall is None or row.interval is None:
        return ABSENT
    return f"{row.recall:.2f} ({row.interval[0]:.2f} to {row.interval[1]:.2f})"


def _ranked(row: PlaneRecall, rank: int | None) -> str:
    patients = f"{row.num_patients} patient{'s' * (row.num_patients != 1)}"
    place = f"rank {rank}" if rank is not None else "not ranked"
    return f"{_recall(row)}, n = {row.num_images} of {patients}, {place}"
