"""Class names to study-wide ids: a site lacking a class never shifts an index."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from semc.config.data import DataConfig
from semc.config.site import SiteDataConfig
from semc.exit_codes import ExitCode, SemcError


class Ontology:
    """The study's classes, seen through one site's naming.

    Args:
        classes: Study class names in the order of their ids.
        label_map: The site's name to the study's.
        ignored: Site names whose rows are left out on purpose.

    Raises:
        SemcError: LABEL_UNKNOWN where the map leads to a name the study does not have.
    """

    def __init__(
        self, classes: Sequence[str], label_map: Mapping[str, str] | None = None, ignored: Sequence[str] = ()
    ) -> None:
        self._ids = {name: number for number, name in enumerate(classes)}
        self._map = dict(label_map or {})
        self._ignored = frozenset(ignored)
        strangers = sorted(set(self._map.values()) - set(self._ids))
        if strangers:
            raise SemcError(
                ExitCode.LABEL_UNKNOWN,
                f"data.label_map leads to '{strangers[0]}', which is not a class of the study.",
                f"map to one of: {', '.join(self._ids)}",
            )

    @classmethod
    def of(cls, data: DataConfig, site: SiteDataConfig) -> Ontology:
        """Build the ontology of a study as one site names it."""
        return cls(data.classes, site.label_map, site.ignore_labels)

    @property
    def num_classes(self) -> int:
        """Number of study classes K."""
        return len(self._ids)

    def label_of(self, name: str, row: int) -> int | None:
        """Return the study id of a site's label, or None where the site ignores it.

        The name itself stays out of the message: a wrongly mapped column could hold a patient's identifier.

        Raises:
            SemcError: LABEL_UNKNOWN with the row number.
        """
        if name in self._ignored:
            return None
        label = self._ids.get(self._map.get(name, name))
        if label is not None:
            return label
        near = [known for known in self._ids if known.casefold() == name.casefold()]
        hint = f" (it differs from '{near[0]}' in upper and lower case)" if near else ""
        raise SemcError(
            ExitCode.LABEL_UNKNOWN,
            f"Row {row}: the label is not a class of the study{hint}.",
            f"use data.label_map or data.ignore_labels in the site file; classes: {', '.join(self._ids)}",
        )
