"""Prepare a rehearsal inside its containers: phantom hospitals, their keys, their enrolment.

Runs beside the coordinator, in its network: only there does the coordinator's control interface answer. A
real hospital makes its own folder and key, and hands over the public half; here one program plays all parts.

    python prepare.py STUDY ADDRESS FOLDER [PORT_STEP]

STUDY is a packaged study or YAML, ADDRESS where the sites reach the coordinator, FOLDER holds one folder per
site. PORT_STEP separates the sites' loopback ports where they share one network.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import yaml

from semc.config import load_study
from semc.exit_codes import SemcError
from simulation.make_sites import make_sites
from simulation.study_run import phantom_request

RUNTIME_PORT = 9094
HEALTH_PORT = 9095


def prepare(study_reference: str, address: str, folder: Path, port_step: int) -> None:
    """Write the study's hospitals below `folder` and enrol them."""
    study = load_study(study_reference)
    certificate = Path(os.environ["SEMC_SERVER_HOME"]) / "ca.crt"
    with tempfile.TemporaryDirectory() as made:
        counts = make_sites(phantom_request(study), Path(made))
        for name in study.federation.sites:
            shutil.copytree(Path(made) / name, folder / name, dirs_exist_ok=True)
    for number, name in enumerate(study.federation.sites):
        site_file = folder / name / "site.yaml"
        content = yaml.safe_load(site_file.read_text(encoding="utf-8"))
        content |= {
            "coordinator": {"address": address, "root_certificates": "ca.crt"},
            "runtime_port": RUNTIME_PORT + number * port_step,
            "health_port": HEALTH_PORT + number * port_step,
            "poll_seconds": 0.1,
        }
        site_file.write_text(yaml.safe_dump(content, sort_keys=False), encoding="utf-8")
        shutil.copyfile(certificate, folder / name / "ca.crt")
        key = folder / name / content.get("private_key", "site.key")
        if not key.exists():
            subprocess.run(["semc-client", "--site", str(site_file), "keygen"], check=True)
        images = str(counts[name].num_train_images)
        public_key = str(key.with_name(f"{key.name}.pub"))
        subprocess.run(
            ["semc-server", "enrol", name, "--public-key", public_key, "--images", images], check=True
        )


if __name__ == "__main__":
    study, address, folder, *step = sys.argv[1:]
    try:
        prepare(study, address, Path(folder), int(step[0]) if step else 0)
    except SemcError as error:
        sys.exit(error.line())
