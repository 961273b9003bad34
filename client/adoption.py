"""What `semc-client adopt` found, as a table for people and JSON for scripts; counts and drifts, no pixels."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from semc.metrics import Confusion
from semc.training import AdaptationReport

KIND: Final = "adapted statistics"
"""Marks the saved model: its weights are the federation's, its batch-norm statistics this site's."""
DRIFT_WARNING: Final = 0.03
"""Mean drift over layers, against the federation, from which the site is told to look closer. A small network trained
on one phantom scanner, 64 images of another: 0.01 where the scanners are alike, 0.03 at severity 0.2 (accuracy still
100 %), 0.04-0.06 from severity 0.3 on (accuracy 71 % and less, without adaptation)."""
HALVES_WARNING: Final = 0.1
"""The same between two halves of a site's patients, where there is nothing else to compare with. The phantom: 0.02-0.05
with 32 to 40 images in each half."""
FEWEST_PATIENTS: Final = 8
_LAYERS_SHOWN: Final = 8


@dataclass(frozen=True)
class Scores:
    """How the model does on the site's labelled test images."""

    num_images: int
    accuracy: float | None
    macro_f1: float | None
    """Over the classes with test images."""

    @classmethod
    def of(cls, confusion: Confusion) -> Scores:
        """Read them off a confusion matrix."""
        return cls(confusion.num_examples, confusion.accuracy, confusion.macro_f1)


@dataclass(frozen=True)
class Adoption:
    """A model fitted to a site."""

    site: str
    study: str
    classes: tuple[str, ...]
    round_number: int
    num_patients: int
    """Patients (or folders of unlabelled images) behind the statistics."""
    report: AdaptationReport
    predicted_before: tuple[int, ...]
    """Images called each class before adaptation; without a prior, under statistics nobody measured."""
    predicted_after: tuple[int, ...]
    test_before: Scores | None
    test_after: Scores | None
    num_passed_over: int = 0
    """Files in the folder of unlabelled images that are in no format a site reads."""
    folder: Path | None = None

    def saved_in(self, folder: Path) -> Adoption:
        """Return the same with the place of the saved model."""
        return replace(self, folder=folder)

    @property
    def warning_above(self) -> float:
        """Mean drift from which there is a warning."""
        return HALVES_WARNING if self.report.reference == "halves" else DRIFT_WARNING

    @property
    def warnings(self) -> tuple[str, ...]:
        """What somebody should look at before the model is used."""
        found = []
        drift = self.report.mean_drift
        if drift is not None and drift > self.warning_above:
            found.append(
                f"this site's images lie {drift:.3f} standard deviations from the federation's: look at the "
                "predictions before the model is used"
                if self.report.reference == "prior"
                else f"two halves of this site's patients differ by {drift:.3f} standard deviations: add patients"
            )
        if self.num_passed_over:
            found.append(
                f"{self.num_passed_over} files of the folder were not read: a site reads PNG, JPEG, BMP, TIFF and "
                "WebP, so DICOM and video have to be exported first"
            )
        if self.num_patients < FEWEST_PATIENTS:
            found.append(
                f"the images are of {self.num_patients} patients: statistics may be those of a few exams"
            )
        if sum(count > 0 for count in self.predicted_after) == 1:
            found.append("every image is called the same class")
        if self.round_number == 0:
            found.append("the weights are those before the first round: nobody trained them")
        return tuple(found)

    def content(self) -> dict[str, Any]:
        """Return everything but the place as what JSON can hold."""
        report = self.report
        return {
            "statistics": KIND,
            "site": self.site,
            "study_name": self.study,
            "round": self.round_number,
            "images": report.num_images,
            "patients": self.num_patients,
            "files_passed_over": self.num_passed_over,
            "passes": report.passes,
            "prior_count": report.prior_count,
            "statistics_before": "federation" if report.reference == "prior" else "initial",
            "drift": {
                "reference": {"prior": "federation", "halves": "halves of this site's patients"}.get(
                    report.reference
                ),
                "warning_above": self.warning_above,
                "mean": report.mean_drift,
                "layers": {entry.layer: entry.drift for entry in report.layers},
            },
            "predicted_before": dict(zip(self.classes, self.predicted_before, strict=True)),
            "predicted_after": dict(zip(self.classes, self.predicted_after, strict=True)),
            "test_before": None if self.test_before is None else vars(self.test_before),
            "test_after": None if self.test_after is None else vars(self.test_after),
            "warnings": list(self.warnings),
        }

    def metadata(self, study_digest: str, model_digest: str) -> dict[str, Any]:
        """Return what is saved beside the tensors."""
        return {"kind": KIND, "study": study_digest, "model": model_digest, **self.content()}

    def to_json(self) -> str:
        """Return the report as one JSON object."""
        return json.dumps({**self.content(), "folder": str(self.folder)}, indent=2)

    def print_table(self) -> None:
        """Print the report as tables."""
        from rich.console import Console
        from rich.table import Table

        console = Console()
        report = self.report
        title = f"{self.study}, round {self.round_number}: {KIND} of {report.num_images} images"
        console.print(f"{title}, {self.num_patients} patients", markup=False, highlight=False)
        classes = Table("predicted class", box=None, pad_edge=False)
        classes.add_column("before", justify="right")
        classes.add_column("after", justify="right")
        for name, before, after in zip(
            self.classes, self.predicted_before, self.predicted_after, strict=True
        ):
            classes.add_row(name, str(before), str(after))
        console.print(classes)
        if report.layers:
            against = "the federation" if report.reference == "prior" else "the other half of the patients"
            layers = Table("layer (largest drift first)", box=None, pad_edge=False)
            layers.add_column("standard deviations", justify="right")
            for entry in sorted(report.layers, key=lambda entry: -entry.drift)[:_LAYERS_SHOWN]:
                layers.add_row(entry.layer, f"{entry.drift:.3f}")
            layers.add_row(
                f"mean of {len(report.layers)} layers, against {against}", f"{report.mean_drift:.3f}"
            )
            console.print(layers)
        for name, scores in (("before", self.test_before), ("after", self.test_after)):
            if scores is not None and scores.macro_f1 is not None:
                text = f"test images {name}: macro F1 {scores.macro_f1:.3f} ({scores.num_images} images)"
                console.print(text, highlight=False)
        for warning in self.warnings:
            console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
        console.print(f"saved in {self.folder}", markup=False, highlight=False)
