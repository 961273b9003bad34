"""One site's part of a study with patient-level privacy: the ledger first, then the data, then noise, then the door.

A round is not a function of its inputs: noise and the choice of patients come from the operating system and are
forgotten. So a round that comes twice is answered from the outbox; where that answer is gone, training again is a new
release and a new charge.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor

from client.device import compute_device
from client.device_lock import gpu_for_a_round
from client.local_state import LocalState, SiteState
from client.outbox import Outbox
from client.privacy_gate import private_limits, require_ledger
from client.private_evaluation import KeptAnswer, disclosed_metrics
from client.progress import Progress, Report, silent
from client.refusal import RefusalError, problem_of
from client.round_update import MetricValue, RoundUpdate
from client.tensor_hash import tensors_sha256
from semc.config import SiteConfig, StudyConfig
from semc.datasets import SiteImages, evaluation_batches
from semc.datasets.patient_pool import PatientPool
from semc.datasets.private_site_data import PrivateSiteData, build_private_site_data
from semc.datasets.whole_patients import whole_patients
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
from semc.privacy.ledger import Reservation
from semc.privacy.limits import check_plan, mechanism_of
from semc.protocol import RefusalCode
from semc.training import evaluate
from semc.training.private_trainer import PrivateTrainer


class PrivateSiteTrainer:
    """Trains and evaluates one study of mode patient_dp at one site; offers the app what `SiteTrainer` does.

    No row and no image of the site is opened before the ledger has an entry for it: a reservation for a round, a note
    for the evaluation of a study that was trained here. The policy is that of the moment this is made; `WarmSite` makes
    a new one where the policy file has changed.

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
        self._ledger = require_ledger(site)
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
        self._state = LocalState(
            site.state_directory, site.site, study.digest(), study.federation.checkpoints_kept
        )
        self._outbox = Outbox(self._state.folder, private=True)
        self._images = SiteImages(study.data, site.data, study.model.weights)
        self._opened: PrivateSiteData | None = None
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
            SemcError: BUDGET_REFUSED, LEDGER_INVALID or CHECKPOINT_INVALID, before any of the site's data are opened;
                ALREADY_RUNNING.
            RefusalError: INTERNAL for everything that goes wrong once they are, so that the answer tells nothing.
        """
        incoming = tensors_sha256(shared)
        with self._state.lock():
            kept = self._outbox.find(round_number, incoming)
            if kept is not None:
                return kept
            before = self._state.newest(round_number - 1)  # may refuse: nothing is reserved yet
            # The GPU first: whoever is stopped while waiting for it has reserved nothing.
            with gpu_for_a_round(self._site, self._device, round_number, report):
                update = self._release(round_number, incoming, shared, before, report)
        report(Progress("training", round_number, self._steps, self._steps))
        return update

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
            this study were measured before.

        Raises:
            SemcError: BUDGET_REFUSED where this site trained no round of this study, refused one, or has given all the
                answers its policy allows; POLICY_REFUSED or LEDGER_INVALID; all before data are opened.
            RefusalError: INTERNAL for everything that goes wrong once they are.
        """
        incoming = tensors_sha256(shared)
        with self._state.lock():
            if not self._ledger.evaluate(self._study.digest(), incoming, self._limits):
                return {}
            with gpu_for_a_round(self._site, self._device, round_number, report), _telling_nothing():
                report(Progress("evaluating", round_number))
                merge_shared(self._network, shared, self._bn)
                return KeptAnswer(self._state.folder).get(incoming, self._measured)

    @property
    def _steps(self) -> int:
        steps = self._study.training.local_steps
        assert steps is not None  # the study refuses epochs in this mode
        return steps

    def _data(self) -> PrivateSiteData:
        """Open the site's rows; called behind a reservation only, and by the closing evaluation."""
        if self._opened is None:
            self._opened = build_private_site_data(self._site.data, self._study.data)
        return self._opened

    def _release(
        self,
        round_number: int,
        incoming: str,
        shared: Mapping[str, Tensor],
        before: SiteState | None,
        report: Report,
    ) -> RoundUpdate:
        """Reserve, train, commit, keep the reply."""
        proposal = Reservation(self._study.digest(), round_number, incoming, mechanism_of(self._study))
        reserved = self._ledger.reserve(proposal, self._limits)
        with _telling_nothing():
            trained = self._train(round_number, shared, before, report)
            local = split_parameters(self._network, self._bn).local
            self._state.save(round_number, SiteState(local, {}, self._trainer.state_dict()), incoming)
            head = self._ledger.commit(reserved.seq, tensors_sha256(trained))
            update = RoundUpdate(shared=trained, metrics={}, ledger_head=head)
            self._outbox.keep(round_number, incoming, update)
        return update

    def _train(
        self,
        round_number: int,
        shared: Mapping[str, Tensor],
        before: SiteState | None,
        report: Report,
    ) -> dict[str, Tensor]:
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

    def _measured(self) -> dict[str, MetricValue]:
        """Measure the network's present weights on the test patients."""
        rows = whole_patients(self._data().test, self._images)
        num_classes = len(self._study.data.classes)
        found = evaluate(self._network, evaluation_batches(rows, self._images), num_classes, self._device)
        return disclosed_metrics(rows, found.probabilities_BK, num_classes, self._policy.disclosure)


@contextmanager
def _telling_nothing() -> Iterator[None]:
    """Answer with one and the same code for whatever fails once data are open; the site's own log has the reason."""
    try:
        yield
    except Exception as error:
        raise RefusalError(RefusalCode.INTERNAL, problem_of(error)) from error
