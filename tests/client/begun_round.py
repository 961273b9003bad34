"""A process that trains one round and is slow after a step, so that a test can kill it there."""

from __future__ import annotations

import sys
import time
from pathlib import Path

from safetensors.torch import load_file

from client.progress import Progress
from client.training_round import SiteTrainer
from semc.config import SiteConfig, parse_study


def main() -> None:
    """Train: `python -m tests.client.begun_round <site JSON> <study YAML> <weights> <round> <slow step>`."""
    site, study, weights, round_number, slow_step = sys.argv[1:6]

    def report(progress: Progress) -> None:
        if progress.phase == "training":
            print(progress.done, flush=True)
            if progress.done == int(slow_step):
                time.sleep(60)

    trainer = SiteTrainer(
        SiteConfig.model_validate_json(Path(site).read_text(encoding="utf-8")),
        parse_study(Path(study).read_text(encoding="utf-8")),
    )
    trainer.run_round(int(round_number), load_file(weights), report)


if __name__ == "__main__":
    main()
