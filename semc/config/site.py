"""One site = one YAML, owned by the hospital; nothing of it is ever sent."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field

from semc.config.section import Section, read_yaml, validate

SiteName = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9_-]{0,39}$")]
"""Name of a hospital in the federation; also a part of folder names."""


class SplitConfig(Section):
    """How a site's images are divided where its manifest has no split column; whole patients only."""

    validation_fraction: float = Field(default=0.15, ge=0, lt=1)
    """Share of the images, by whole patients, that is scored every round beside the test images."""
    test_fraction: float = Field(default=0.2, ge=0, lt=1)
    """Share of the images, by whole patients, behind the reported figures."""
    seed: int = Field(default=0, ge=0)
    """Seed of the division; a site's own, so that its split never changes with the study."""


class SiteDataConfig(Section):
    """Where the site's images are and how to read them."""

    format: Literal["manifest", "lp2025"] = "manifest"
    """manifest = CSV with file, label, group; lp2025 = {train,test}/<class>/<file> folders."""
    root: Path
    """Folder of the images; relative paths start at the site file's folder."""
    manifest: str = "manifest.csv"
    """The CSV, relative to root (format manifest)."""
    column_map: dict[str, str] = Field(default_factory=dict)
    """Our column name to the CSV's, e.g. {label: Plane}."""
    label_map: dict[str, str] = Field(default_factory=dict)
    """The site's label to the study's class name, e.g. {TV: Trans-ventricular}; unmapped names must match exactly."""
    ignore_labels: tuple[str, ...] = ()
    """Labels whose rows are left out on purpose."""
    allow_ungrouped: bool = False
    """Accept rows without a patient or stream key; reports then say "not patient-disjoint"."""
    split: SplitConfig = SplitConfig()
    cache_mb: int = Field(default=1024, ge=0)
    """Most memory kept for decoded images, MiB."""
    max_pixels: int = Field(default=25_000_000, ge=1024)
    """Largest image accepted, pixels (decompression bombs)."""


class ExpectedModelConfig(Section):
    """What the site's governance approved; a study with other settings is refused."""

    preset: str | None = None
    backbone: str | None = None
    image_size: int | None = None
    classes: tuple[str, ...] | None = None


class CoordinatorConfig(Section):
    """How to reach the coordinator."""

    address: str = Field(default="127.0.0.1:8000", pattern=r"^[^\s/]+:\d{1,5}$")
    """host:port of the coordinator's fleet endpoint."""
    root_certificates: Path
    """CA certificate handed over by the coordinator."""
    health_address: str | None = Field(default=None, pattern=r"^[^\s/]+:\d{1,5}$")
    """host:port of the coordinator's gRPC health service, where it is published."""


class SiteConfig(Section):
    """Everything a hospital decides for itself."""

    site: SiteName
    """Name of the hospital in the federation."""
    data: SiteDataConfig
    coordinator: CoordinatorConfig | None = None
    """Absent in simulations."""
    policy: Path = Path("policy.yaml")
    """What this hospital allows studies to do, and its privacy budget (see client/policy.example.yaml). A study with
    patient-level privacy is refused without it."""
    ledger: Path = Path("ledger")
    """Folder of the privacy ledger; kept for ever, beside no study's state. Made by `semc-client ledger init`."""
    private_key: Path = Path("site.key")
    """The site's ECDSA key (made by `semc-client keygen`); never leaves the site."""
    state_directory: Path = Path("state")
    """Batch-norm statistics, queue, optimiser state and logs."""
    weights_directory: Path | None = None
    """The site's own folder of approved pretrained weights; a study can name a file of it, never a path. Absent:
    the folder the environment variable SEMC_WEIGHTS_DIRECTORY names, if any."""
    device: str = Field(default="auto", pattern=r"^(auto|cpu|cuda(:\d+)?)$")
    """auto = the first GPU, else CPU."""
    exclusive_device: bool = True
    """Train on a GPU only while no other site of this machine does; simulated sites share theirs on purpose."""
    threads: int = Field(default=1, ge=1, le=256)
    """CPU threads of the training process; cores divided by sites on a shared machine."""
    loader_workers: int = Field(default=0, ge=0, le=64)
    """Extra processes that decode images."""
    checkpoint_seconds: float = Field(default=300, ge=0)
    """Least time between two saved points within a round, seconds: what a crash costs at most, beside the time one
    saving takes; 0 = after every step. Rounds with patient-level privacy keep none."""
    allowed_studies: tuple[str, ...] | None = None
    """Digests (or their first 12 digits) of the studies this site takes part in; absent: any."""
    expected_model: ExpectedModelConfig = ExpectedModelConfig()
    runtime_port: int = Field(default=9094, ge=1024, le=65535)
    """Loopback port between SuperNode and worker."""
    health_port: int | None = Field(default=None, ge=1024, le=65535)
    """Loopback port of this site's own gRPC health service."""
    poll_seconds: float = Field(default=1.0, gt=0, le=60)
    """Longest wait between two requests for work, seconds; after recent work the waits are shorter."""


def load_site(path: Path) -> SiteConfig:
    """Load a site file; relative paths are resolved against its folder.

    Raises:
        SemcError: CONFIG_NOT_FOUND or CONFIG_INVALID.
    """
    site = validate(SiteConfig, read_yaml(path, "site"), "site")
    base = path.resolve().parent
    data = site.data.model_copy(update={"root": base / site.data.root})
    changes: dict[str, object] = {
        "data": data,
        "policy": base / site.policy,
        "ledger": base / site.ledger,
        "private_key": base / site.private_key,
        "state_directory": base / site.state_directory,
    }
    if site.weights_directory is not None:
        changes["weights_directory"] = base / site.weights_directory
    if site.coordinator is not None:
        certificate = base / site.coordinator.root_certificates
        changes["coordinator"] = site.coordinator.model_copy(update={"root_certificates": certificate})
    return site.model_copy(update=changes)
