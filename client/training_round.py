"""One site's part of a study: (incoming weights, the site's own state of the round before) -> update.

Everything that decides the result comes from the message, from the state on disk and from seeds derived from
(study seed, site, round). Only what cannot differ stays warm between rounds: the network object, the
objective, decoded images. So a deployed, a simulated and a replayed round give the same weights, bit for bit.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import torch
from torch import Tensor, nn

import semc
from client.accepted_data import goes_on_with
from client.data_fingerprint import DataFingerprint, SiteDataWatch
from client.device import compute_device
from client.device_lock import gpu_for_a_round
from client.local_state import LocalState, SiteState
from client.outbox import Outbox
from client.partial_round import PartialRound
from client.progress import Progress, Report, silent
from client.refusal import local_line
from client.round_images import RoundImages
from client.round_log import record_round
from client.round_update import MetricValue, RoundUpdate, training_metrics
from client.site_judge import SiteJudge
from client.tensor_hash import tensors_sha256
from semc.config import SiteConfig, StudyConfig
from semc.datasets import SiteImages, build_site_data
from semc.exit_codes import ExitCode, SemcError
from semc.models import build_model
from semc.objectives import build_objective
from semc.parameter_exchange import (
    load_local,
    merge_shared,
    shared_schema,
    shared_shapes,
    split_parameters,
)
from semc.protocol import NUM_EXAMPLES
from semc.seed import derive_seed, seed_everything
from semc.training import RoundPoint, Trainer, TrainResult

_Trained = tuple[dict[str, MetricValue], TrainResult]
"""Counts of the incoming weights, and what training was like."""

log = logging.getLogger(__name__)


class SiteTrainer:
    """Trains and evaluates one study at one site.

    Args:
        site: The hospital: its data, device, threads and state directory.
        study: The study.
        data: The fingerprint of the site's data as they are now; None: it is taken here.

    Raises:
        SemcError: Where the site's data or device cannot serve the study.
    """

    def __init__(self, site: SiteConfig, study: StudyConfig, data: DataFingerprint | None = None) -> None:
        if study.privacy.private:
            raise ValueError("a study with patient-level privacy is trained by PrivateSiteTrainer alone")
        torch.set_num_threads(site.threads)
        self._site, self._study, self._bn = site, study, study.federation.bn
        self._device = compute_device(site.device)
        # Before the data are read: what changes in between is found by the next one that looks.
        self._fingerprint = SiteDataWatch(site).now() if data is None else data
        self._data = build_site_data(site.data, study.data, study.training.batch_size)
        images = SiteImages(study.data, site.data, study.model.weights)
        self._batches = RoundImages(site, study, self._data, images)
        self._judge = SiteJudge(site, study, self._data, images, self._device)
        self._state = LocalState(
            site.state_directory, site.site, study.digest(), study.federation.checkpoints_kept
        )
        self._outbox = Outbox(self._state.folder, private=False)
        self._build()
        self.shared_shapes = shared_shapes(self._network, self._bn)
        """Shape of every shared tensor by name."""
        self.update_shapes = self.shared_shapes
        """Shape of every tensor that is sent back by name: all of them."""
        self.shared_schema = shared_schema(self._network, self._bn)
        """SHA-256 of the shared tensors' names, shapes and dtypes."""

    def _build(self) -> None:
        """Make network, objective and optimiser as they are before the first round."""
        seed_everything(derive_seed(self._study.seed, self._site.site, 0))
        self._network = build_model(self._study, self._site.weights_directory).to(self._device)
        self._objective = build_objective(self._study, self._data.class_counts, len(self._data.train))
        self._trainer = Trainer(self._study, self._network, self._objective, self._device)
        self._untouched = True

    def run_round(
        self,
        round_number: int,
        shared: Mapping[str, Tensor],
        report: Report = silent,
        *,
        judge_incoming: bool = True,
    ) -> RoundUpdate:
        """Train one round and save the state it leaves; a round that was interrupted goes on where it was saved.

        Args:
            round_number: 1 to the study's rounds; one already trained is trained again from the state before.
            shared: The federation's weights, exactly the tensors of `shared_shapes`.
            report: Told each step.
            judge_incoming: Count the incoming weights' answers; without influence on the training.

        Returns:
            The trained shared tensors, and counts of the *incoming* weights on validation and test images
            (every `evaluate_every` rounds; initial weights are never judged: the site has no statistics yet).

        Raises:
            SemcError: STUDY_MISMATCH, DATA_UNREADABLE, DISK, ALREADY_RUNNING, CHECKPOINT_INVALID; RUN_FAILED
                where the training diverged.
        """
        incoming = tensors_sha256(shared)
        with self._state.lock():
            sent = self._sent_before(round_number, incoming)
            if sent is not None:
                log.info("round %d was finished before: its reply is sent again", round_number)
                return sent
            with gpu_for_a_round(self._site, self._device, round_number, report):
                judged = judge_incoming and self._is_evaluated(round_number - 1)
                begun = self._partial(round_number, incoming, judged)
                trained = self._go_on(round_number, shared, report, begun)
                if trained is None:
                    trained = self._begin(round_number, shared, report, begun, judged)
                metrics, result = trained
                split = split_parameters(self._network, self._bn)
                state = SiteState(
                    split.local,
                    self._objective.state_dict(),
                    self._trainer.state_dict(),
                    self._fingerprint.sha256,
                )
                self._state.save(round_number, state, incoming)
                record_round(self._state.folder, round_number, result.loss, result.terms)
                update = RoundUpdate(
                    shared=split.shared,
                    metrics={NUM_EXAMPLES: len(self._data.train), **metrics, **training_metrics(result)},
                )
                self._keep(round_number, incoming, update)
                begun.remove()  # last: a crash before it costs the steps since the last point, not the round
        report(Progress("training", round_number, result.steps, result.steps, loss=result.loss))
        return update

    def evaluate(
        self, shared: Mapping[str, Tensor], round_number: int, report: Report = silent
    ) -> dict[str, MetricValue]:
        """Count right and wrong answers of given weights with this site's own batch-norm statistics.

        Args:
            shared: The federation's weights.
            round_number: The statistics are those left after this round, or the newest before it.
            report: Told each step.

        Returns:
            Confusion counts on validation and test images; the site's state is not changed.
        """
        with self._state.lock(), gpu_for_a_round(self._site, self._device, round_number, report):
            self._start_from(self._state.newest(round_number), shared)
            report(Progress("evaluating", round_number))
            return {NUM_EXAMPLES: len(self._data.train), **self._judge.counts(self._network)}

    def model_in_use(self, shared: Mapping[str, Tensor], round_number: int) -> nn.Module:
        """Return the network as this site would use given weights: with its own statistics, ready to answer.

        Args:
            shared: The federation's weights.
            round_number: The local part is the one left after this round, or the newest before it.

        Returns:
            The site's one network on its device, valid until the next call of any method here.
        """
        with self._state.lock():
            self._start_from(self._state.newest(round_number), shared)
            self._judge.measure_statistics(self._network)
        return self._network

    def _start_from(self, state: SiteState | None, shared: Mapping[str, Tensor]) -> None:
        """Make network, objective and optimiser what they were after `state`, with the incoming weights.

        A site without a state starts from newly made ones, not from what an earlier task left in memory. Where the
        data changed and that was accepted, the objective does: its queue holds row numbers and embeddings of images
        that may be gone. Batch-norm statistics and momentum belong to the network and stay.

        Raises:
            SemcError: DATA_CHANGED where that was not accepted.
        """
        same_data = state is None or goes_on_with(self._site, self._fingerprint, state.data)
        if (state is None or not same_data) and not self._untouched:
            self._build()
        self._untouched = False
        if state is not None:
            load_local(self._network, state.network, self._bn)
            if same_data:
                self._objective.load_state_dict(state.objective)
            self._trainer.load_state_dict(state.optimiser)
        merge_shared(self._network, shared, self._bn)

    def _sent_before(self, round_number: int, incoming: str) -> RoundUpdate | None:
        """Return the reply to a message that came before, where it also left the state the site has of that round."""
        try:
            if self._state.answered(round_number) != incoming:
                return None
            return self._outbox.find(round_number, incoming)
        except SemcError as error:
            log.warning("the reply of round %d is made again: %s", round_number, error.line())
            return None

    def _keep(self, round_number: int, incoming: str, update: RoundUpdate) -> None:
        """Keep a reply for a message that comes twice; where that fails it is only sent, and made again if asked."""
        try:
            self._outbox.keep(round_number, incoming, update)
        except (SemcError, OSError) as error:
            log.warning("the reply of round %d is sent, but not kept: %s", round_number, local_line(error))

    def _partial(self, round_number: int, incoming: str, judged: bool) -> PartialRound:
        """Return the place of this round's saved point, known by all that its result depends on."""
        belongs_to: dict[str, str | int | bool] = {
            "site": self._site.site,
            "study": self._study.digest(),
            "software": semc.__version__,
            "round": round_number,
            "incoming_sha256": incoming,
            "data": self._fingerprint.sha256,
            "device": self._device.type,
            "judged": judged,
        }
        return PartialRound(self._state.folder, belongs_to, self._site.checkpoint_seconds)

    def _go_on(
        self, round_number: int, shared: Mapping[str, Tensor], report: Report, begun: PartialRound
    ) -> _Trained | None:
        """Finish a round that was begun before; None where there is nothing that can be gone on with."""
        found = begun.find()
        if found is None:
            return None
        self._start_from(self._state.newest(round_number - 1), shared)
        log.info("round %d goes on after step %d", round_number, found.point.steps)
        try:
            return found.metrics, self._train(round_number, report, begun, found.metrics, found.point)
        except SemcError as error:
            if error.code is not ExitCode.CHECKPOINT_INVALID:
                raise
            begun.discard()
            return None

    def _begin(
        self,
        round_number: int,
        shared: Mapping[str, Tensor],
        report: Report,
        begun: PartialRound,
        judged: bool,
    ) -> _Trained:
        """Judge the incoming weights and train the whole round."""
        self._start_from(self._state.newest(round_number - 1), shared)
        self._objective.new_global_weights(self._network, self._batches.of)
        metrics: dict[str, MetricValue] = {}
        if judged:
            report(Progress("evaluating", round_number))
            metrics = self._judge.counts(self._network)
        return metrics, self._train(round_number, report, begun, metrics)

    def _train(
        self,
        round_number: int,
        report: Report,
        begun: PartialRound,
        metrics: dict[str, MetricValue],
        point: RoundPoint | None = None,
    ) -> TrainResult:
        """Train from the network's present, incoming weights, or from a point of the same round.

        Raises:
            SemcError: CHECKPOINT_INVALID where the point does not fit, which leaves network and objective undefined.
        """
        first = 0 if point is None else point.steps
        steps = self._batches.steps
        seed_everything(derive_seed(self._study.seed, self._site.site, round_number))
        return self._trainer.train(
            self._batches.batches(round_number, first, report),
            global_step=(round_number - 1) * steps,
            total_steps=self._study.federation.rounds * steps,
            point=point,
            after_step=lambda take: begun.keep_if_due(metrics, take),
        )

    def _is_evaluated(self, finished_round: int) -> bool:
        """Tell whether the weights a round ended with are judged when they come in for the next one."""
        return finished_round > 0 and finished_round % self._study.federation.evaluate_every == 0
