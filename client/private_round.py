"""One site's part of a study with patient-level privacy: the ledger first, then the data, then noise, then the door.

A round is not a function of its inputs: noise and the choice of patients come from the operating system and are
forgotten. So a round that comes twice is answered from the outbox; where that answer is gone, training again is a new
release and a new charge.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import torch
from torch import Tensor

from client.device import compute_device
from client.local_state import LocalState, SiteState
from client.outbox import Outbox
from client.privacy_gate import private_limits, require_ledger
from client.progress import Progress, Report, silent
from client.refusal import RefusalError
from client.round_update import MetricValue, RoundUpdate
from client.tensor_hash import tensors_sha256
from semc.config import SiteConfig, StudyConfig
from semc.datasets import SiteImages, evaluation_batches
from semc.datasets.patient_pool import PatientPool
from semc.datasets.private_site_data import build_private_site_data
from semc.datasets.sample import SiteData
from semc.exit_codes import ExitCode, SemcError
from semc.models import SEMCNet, build_model
from semc.objectives import SemcDpObjective
from semc.parameter_exchange import (
    load_local,
    merge_shared,
    shared_schema,
    shared_shapes,
    split_parameters,
    update_shapes,
)
from semc.privacy.disclosure import disclose
from semc.privacy.ledger import Reservation
from semc.privacy.limits import check_plan, mechanism_of
from semc.protocol import (
    SUPPRESSED,
    TEST_ACCURACY,
    TEST_BALANCED_ACCURACY,
    TEST_MACRO_F1,
    TEST_RECALL,
    RefusalCode,
)
from semc.training import evaluate
from semc.training.private_trainer import PrivateTrainer

log = logging.getLogger(__name__)

_ANSWER: Final = "evaluation.json"


class PrivateSiteTrainer:
    """Trains and evaluates one study of mode patient_dp at one site; offers the app what `SiteTrainer` does.

    Until a reservation stands in the ledger, no row and no image of the site is opened.

    Args:
        site: The hospital: its data, policy, ledger, device and state directory.
        study: The study.

    Raises:
        SemcError: POLICY_REFUSED, BUDGET_REFUSED (the study's own plan), LEDGER_INVALID, WEIGHTS_INVALID, DEVICE.
    """

    def __init__(self, site: SiteConfig, study: StudyConfig) -> None:
        torch.set_num_threads(site.threads)
        self._site, self._study = site, study
        self._policy, self._limits = private_limits(study, site)
        check_plan(study)
        require_ledger(site)
        self._device = compute_device(site.device)
        network = build_model(study, site.weights_directory)
        assert isinstance(network, SEMCNet)
        self._network = network.to(self._device)
        self._bn = study.federation.bn
        self._trainer = PrivateTrainer(
            study,
            self._network,
            SemcDpObjective(study),
            self._device,
            public_patients=self._policy.patients,
        )
        self._state = LocalState(site.state_directory, site.site, study.digest())
        self._outbox = Outbox(self._state.folder)
        self._images = SiteImages(study.data, site.data, study.model.weights)
        self._opened: SiteData | None = None
        self._first = (split_parameters(self._network, self._bn).local, self._trainer.state_dict())
        self.shared_shapes = shared_shapes(self._network, self._bn)
        """Shape of every tensor of the global model by name."""
        self.update_shapes = update_shapes(self._network, self._bn)
        """Shape of every tensor that is sent back by name."""
        self.shared_schema = shared_schema(self._network, self._bn)
        """SHA-256 of the global tensors' names, shapes and dtypes."""

    def run_round(
        self, round_number: int, shared: Mapping[str, Tensor], report: Report = silent
    ) -> RoundUpdate:
        """Reserve, train one round with noise, keep the reply, commit.

        Args:
            round_number: 1 to the study's rounds.
            shared: The federation's weights, exactly the tensors of `shared_shapes`.
            report: Told each step.

        Returns:
            The trained tensors and the ledger's head; no metrics.

        Raises:
            SemcError: BUDGET_REFUSED or LEDGER_INVALID, before any of the site's data are opened; ALREADY_RUNNING.
            RefusalError: INTERNAL for everything that goes wrong once they are, so that the answer tells nothing.
        """
        incoming = tensors_sha256(shared)
        with self._state.lock():
            kept = self._outbox.find(round_number, incoming)
            if kept is not None:
                return kept
            ledger = require_ledger(self._site)
            proposal = Reservation(self._study.digest(), round_number, incoming, mechanism_of(self._study))
            reserved = ledger.reserve(proposal, self._limits)
            with _telling_nothing():
                trained = self._train(round_number, shared, report)
                local = split_parameters(self._network, self._bn).local
                self._state.save(round_number, SiteState(local, {}, self._trainer.state_dict()), incoming)
                ledger.commit(reserved.seq, tensors_sha256(trained))
                head = ledger.head().hash
                self._outbox.keep(round_number, incoming, trained, head)
        report(Progress("training", round_number, self._steps, self._steps))
        return RoundUpdate(shared=trained, metrics={}, ledger_head=head)

    def evaluate(
        self, shared: Mapping[str, Tensor], round_number: int, report: Report = silent
    ) -> dict[str, MetricValue]:
        """Measure the last weights on the site's test patients, once, under the policy's small-cell rules.

        Args:
            shared: The federation's weights.
            round_number: One more than the study's rounds.
            report: Told that it is measured.

        Returns:
            Rates by the names of the protocol; none where too few patients stand behind them, or other weights of
            this study were measured before: answers to a second question about the same patients could be compared.

        Raises:
            SemcError: BUDGET_REFUSED where this site refused a round of this study.
            RefusalError: INTERNAL for everything that goes wrong with the data.
        """
        incoming = tensors_sha256(shared)
        with self._state.lock():
            if require_ledger(self._site).refused(self._study.digest()):
                raise SemcError(
                    ExitCode.BUDGET_REFUSED,
                    "This site refused a round of this study, so it answers nothing about it.",
                    "`semc-client ledger show` tells what is spent",
                )
            answered = self._answer_given()
            if answered is not None:
                return answered[1] if answered[0] == incoming else {}
            report(Progress("evaluating", round_number))
            with _telling_nothing():
                merge_shared(self._network, shared, self._bn)
                metrics = self._disclosed()
                self._keep_answer(incoming, metrics)
        return metrics

    @property
    def _steps(self) -> int:
        steps = self._study.training.local_steps
        assert steps is not None  # the study refuses epochs in this mode
        return steps

    def _data(self) -> SiteData:
        """Open the site's rows; called behind a reservation only, and by the closing evaluation."""
        if self._opened is None:
            self._opened = build_private_site_data(self._site.data, self._study.data)
        return self._opened

    def _train(self, round_number: int, shared: Mapping[str, Tensor], report: Report) -> dict[str, Tensor]:
        before = self._state.newest(round_number - 1)
        local, optimiser = self._first if before is None else (before.network, before.optimiser)
        load_local(self._network, local, self._bn)
        self._trainer.load_state_dict(optimiser)
        merge_shared(self._network, shared, self._bn)
        report(Progress("loading", round_number))
        pool = PatientPool(self._data().train, self._images, self._study.privacy.frames_per_patient)
        self._trainer.train(
            pool,
            global_step=(round_number - 1) * self._steps,
            total_steps=self._study.federation.rounds * self._steps,
            report=lambda done, total: report(Progress("training", round_number, done, total)),
        )
        state = self._network.state_dict()
        return {name: state[name].to("cpu", copy=True) for name in self.update_shapes}

    def _disclosed(self) -> dict[str, MetricValue]:
        rows = self._data().test
        num_classes = len(self._study.data.classes)
        found = evaluate(self._network, evaluation_batches(rows, self._images), num_classes, self._device)
        scores = disclose(
            [row.label for row in rows],
            found.probabilities_BK.argmax(axis=1).tolist(),
            [row.group for row in rows],
            num_classes,
            self._policy.disclosure,
        )
        if scores is None:
            return {}
        return {
            TEST_ACCURACY: scores.accuracy,
            TEST_BALANCED_ACCURACY: scores.balanced_accuracy,
            TEST_MACRO_F1: scores.macro_f1,
            TEST_RECALL: [SUPPRESSED if recall is None else recall for recall in scores.recall],
        }

    def _answer_given(self) -> tuple[str, dict[str, MetricValue]] | None:
        """Return the weights and the answer of the one evaluation this study had here, None before it."""
        try:
            kept = json.loads((self._state.folder / _ANSWER).read_text(encoding="utf-8"))
            return str(kept["incoming_sha256"]), dict(kept["metrics"])
        except FileNotFoundError:
            return None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise SemcError(
                ExitCode.CHECKPOINT_INVALID,
                "The kept answer of this study's evaluation is damaged.",
                "restore it from a backup; it cannot be measured a second time",
            ) from error

    def _keep_answer(self, incoming: str, metrics: Mapping[str, MetricValue]) -> None:
        """Keep the answer before it is sent."""
        self._state.folder.mkdir(parents=True, exist_ok=True)
        temporary = self._state.folder / f".{_ANSWER}-{os.getpid()}.part"
        content = {"incoming_sha256": incoming, "metrics": dict(metrics)}
        _write_synced(temporary, json.dumps(content))
        temporary.replace(self._state.folder / _ANSWER)


def _write_synced(path: Path, text: str) -> None:
    with path.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())


@contextmanager
def _telling_nothing() -> Iterator[None]:
    """Answer with one and the same code for whatever fails once data are open; the site's own log has the reason."""
    try:
        yield
    except Exception as error:
        problem = (
            error
            if isinstance(error, SemcError)
            else SemcError(
                ExitCode.INTERNAL,
                f"Unexpected {type(error).__name__}.",
                "read worker.log in the site's logs folder",
            )
        )
        raise RefusalError(RefusalCode.INTERNAL, problem) from error
