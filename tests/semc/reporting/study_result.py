"""Results for the tests of this folder, small enough to check by hand."""

import base64
import io

import numpy as np
from PIL import Image, PngImagePlugin

from semc.reporting import RoundResult, SiteResult, StudyResult

CLASSES = ["head", "abdomen", "femur"]
SITES = ["north", "south", "west"]


def counts(right: int, wrong: int) -> list[int]:
    """Return a 3x3 confusion: `right` per class on the diagonal, `wrong` of each class called the next."""
    matrix = np.eye(3, dtype=int) * right + np.roll(np.eye(3, dtype=int), 1, axis=1) * wrong
    return [int(count) for count in matrix.reshape(-1)]


def sample_image(shade: int, note: str = "") -> str:
    """Return a base64 PNG; `note` is hidden in its metadata."""
    info = PngImagePlugin.PngInfo()
    info.add_text("PatientID", note)
    stream = io.BytesIO()
    Image.fromarray(np.full((300, 400), shade, dtype=np.uint8)).save(stream, "PNG", pnginfo=info)
    return base64.b64encode(stream.getvalue()).decode()


def study_result(
    federation: tuple[int, int] = (18, 2), alone: tuple[int, int] | None = (12, 8), rounds: int = 3
) -> StudyResult:
    """Return a study of three sites; each arm is (right, wrong) images per class at every site."""
    return StudyResult(
        study_name="three_sites",
        description="Three hospitals <together> & apart.",
        digest="d" * 64,
        seed=5,
        classes=CLASSES,
        settings={"training": {"learning_rate": 0.01, "gradient_clip": None}, "federation": {"sites": SITES}},
        privacy="none",
        outcome="complete",
        bn="silo",
        what_is_local=["images, labels, file names", "batch-norm running statistics"],
        rounds=[
            RoundResult(
                round=number,
                seconds=1.5,
                receipts=dict.fromkeys(SITES, "in"),
                validation={site: counts(number + 1, 3) for site in SITES},
                test={site: counts(2 * number + index, 5) for index, site in enumerate(SITES)},
                train_loss={site: (2.0 + index) / number for index, site in enumerate(SITES)},
            )
            for number in range(1, rounds + 1)
        ],
        sites=[
            SiteResult(
                site=site,
                num_train_examples=100 + index,
                test_confusion=counts(*federation),
                local_only_confusion=counts(*alone) if alone is not None else None,
            )
            for index, site in enumerate(SITES)
        ],
        final_weights_sha256="e" * 64,
        seconds=61.4,
        software={"semc": "0.1.0", "torch": "2.9"},
    )
