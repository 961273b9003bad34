"""The round loop: join, then train, check, aggregate and save round after round, and evaluate what came out.

It runs unchanged over Flower's deployed grid and its simulation's. Flower's own `Strategy.start` waits for
ever, asks whoever is online, holds every reply in memory, averages unchecked and saves nothing; here the
sites are named, every wait has an end, each reply is checked and spooled on arrival, a round below its quorum
stops the study, and the checkpoint is on disk before the next round is sent.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping

from flwr.app import MessageType, RecordDict
from flwr.serverapp import Grid
from torch import Tensor

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from semc.reporting import StudyResult
from semc.reporting.result import Outcome
from semc.wire import WireError, pack
from server.aggregation import build_aggregator
from server.events import Event, EventLog
from server.exchange import Absence, Arrival, Exchange
from server.gather import Gathering
from server.global_model import GlobalModel, initial_model, weights_sha256
from server.guarantee import guarantee_of
from server.history import History
from server.inbound import Expected, check_evaluation_reply
from server.ledger_heads import HEADS_FILE, LedgerHeads
from server.messages import weights_record, work_content
from server.pace import Pace
from server.receipts import RoundReceipt
from server.registry import Registry
from server.roster import Roster
from server.round_checkpoint import save_round
from server.run_folder import RunFolder
from server.site_weights import site_weights
from server.update_check import UpdateCheck


def run_study(
    grid: Grid,
    study: StudyConfig,
    registry: Registry,
    folder: RunFolder,
    *,
    model: GlobalModel | None = None,
    pace: Pace | None = None,
    heads: LedgerHeads | None = None,
) -> StudyResult:
    """Run a whole study and write its checkpoints, events and result.

    Args:
        grid: Flower's way to the nodes.
        study: The resolved study.
        registry: Enrolment of the study's sites.
        folder: Where everything is written.
        model: What every site starts from; by default the study's network from the study's seed.
        pace: Waits; by default those of a deployment.
        heads: What earlier runs saw of the sites' privacy ledgers; by default this run's folder starts anew.

    Returns:
        The result, also in the folder's `result.json`.

    Raises:
        SemcError: KEY_UNREGISTERED, BUDGET_REFUSED where the plan costs more than the study allows, QUORUM_LOST (the
            result up to there is written), RUN_FAILED where the model diverged, DISK.
    """
    check_plan(study)
    start = time.monotonic()
    events = EventLog(folder.events_file)
    heads = heads or LedgerHeads(folder.root / HEADS_FILE)
    model = model or initial_model(study, folder.trunk, _told_now_and_then(events))
    return _StudyRun(grid, study, registry, folder, model, pace or Pace(), heads, events, start).run()


def _told_now_and_then(events: EventLog) -> Callable[[int, int], None]:
    """Return what writes every twentieth part of the pretraining into the events."""

    def tell(done: int, total: int) -> None:
        if done % max(1, total // 20) == 0:
            events.write(Event.PRETRAINING, done=done, of=total)

    return tell


class _StudyRun:
    """The state of one run."""

    def __init__(
        self,
        grid: Grid,
        study: StudyConfig,
        registry: Registry,
        folder: RunFolder,
        model: GlobalModel,
        pace: Pace,
        heads: LedgerHeads,
        events: EventLog,
        start: float,
    ) -> None:
        self._start = start
        self._grid, self._study, self._folder, self._pace = grid, study, folder, pace
        self._federation = study.federation
        self._events = events
        self._model, self._heads, self._private = model, heads, study.privacy.private
        self._tensors: Mapping[str, Tensor] = model.tensors
        self._expected = Expected(
            model.update_shapes, study.federation.wire_dtype, len(study.data.classes), self._private
        )
        self._aggregator = build_aggregator(
            study.federation,
            folder.spool,
            site_weights(study.federation, registry),
            updated=model.update_shapes,
            batch_norm=model.batch_norm,
        )
        self._history = History(study, registry)
        self._guarantee = guarantee_of(study, model)
        self._roster = Roster(grid, study, registry, model.schema, self._events, pace)

    def run(self) -> StudyResult:
        """Join, train every round, evaluate the last model, write the result."""
        federation = self._federation
        self._events.write(
            Event.STARTED, sites=federation.sites, rounds=federation.rounds, digest=self._study.digest()
        )
        try:
            self._roster.join()
            self._save(0)
            for round_number in range(1, federation.rounds + 1):
                self._train_round(round_number)
            self._closing_evaluation()
        except SemcError as error:
            self._finish("quorum_lost" if error.code is ExitCode.QUORUM_LOST else "failed")
            raise
        return self._finish("complete" if self._history.complete else "complete_on_subset")

    def _train_round(self, round_number: int) -> None:
        """Send the model, gather and spool what is valid, aggregate, save."""
        start = time.monotonic()
        self._events.write(Event.ROUND, round=round_number, of=self._federation.rounds)
        self._aggregator.clear()
        payload = self._payload(round_number)
        check = UpdateCheck(self._heads, self._study.digest(), round_number, payload)
        gathering = Gathering(round_number, check, self._expected, self._events)
        for reply in gathering.valid(self._answers(round_number, payload, MessageType.TRAIN, gathering)):
            assert reply.payload is not None
            self._aggregator.take(reply.site, reply.payload)
            self._history.add_reply(round_number, reply)
        self._report_scores(round_number - 1)
        self._require_quorum(gathering.receipt(), start)
        self._tensors = self._aggregator.next_model(self._tensors)
        self._history.add_round(gathering.receipt(), time.monotonic() - start)
        self._save(round_number)
        self._aggregator.clear()
        self._events.write(Event.AGGREGATED, round=round_number, seconds=round(time.monotonic() - start, 3))

    def _closing_evaluation(self) -> None:
        """Have every site measure the final model."""
        last = self._federation.rounds
        self._events.write(Event.CLOSING)
        payload = self._payload(last + 1)
        gathering = Gathering(last + 1, check_evaluation_reply, self._expected, self._events)
        for reply in gathering.valid(self._answers(last + 1, payload, MessageType.EVALUATE, gathering)):
            self._history.add_closing(reply)
        self._history.note(gathering.receipt())
        self._report_scores(last)

    def _answers(
        self, round_number: int, payload: bytes, message_type: str, gathering: Gathering
    ) -> Iterator[Arrival | Absence]:
        """Ask every named site once."""
        self._roster.ask_again()
        weights = weights_record(payload)

        def content(site: str) -> RecordDict:
            head = self._heads.newest(site) if self._private else None
            return work_content(self._study, round_number, weights, head)

        return Exchange(
            self._grid,
            self._roster,
            content,
            message_type,
            group=str(round_number),
            deadline_seconds=self._federation.deadline_seconds,
            enough=lambda: gathering.receipt().num_in >= self._federation.effective_quorum,
            pace=self._pace,
        ).answers()

    def _require_quorum(self, receipt: RoundReceipt, start: float) -> None:
        """Stop the study where too few sites are in."""
        quorum = self._federation.effective_quorum
        if receipt.num_in >= quorum:
            return
        self._history.add_round(receipt, time.monotonic() - start)
        raise SemcError(
            ExitCode.QUORUM_LOST,
            f"Round {receipt.round_number} ended with {receipt.num_in} of the {quorum} sites needed: "
            f"{receipt.missing()}.",
            "mend or restart these sites and run the study again; the last checkpoint is kept",
        )

    def _payload(self, round_number: int) -> bytes:
        """Return the global weights as they are sent."""
        try:
            return pack(self._tensors, self._federation.wire_dtype)
        except WireError as error:
            raise SemcError(
                ExitCode.RUN_FAILED,
                f"After round {round_number - 1} the global model holds numbers that are not finite.",
                "lower training.learning_rate or federation.server_learning_rate",
            ) from error

    def _save(self, round_number: int) -> None:
        """Save the state from which a run could go on."""
        save_round(
            self._folder.checkpoints,
            round_number,
            self._tensors,
            self._aggregator.state_dict(),
            self._study.digest(),
            self._history.to_json(),
        )

    def _report_scores(self, round_number: int) -> None:
        """Tell how good a round's weights are, once its counts are in."""
        scores = self._history.scores(round_number)
        if scores is not None:
            self._events.write(
                Event.EVALUATED,
                round=round_number,
                measured_on="test patients" if self._private else "validation",
                mean_macro_f1=round(scores.mean, 4),
                worst_macro_f1=round(scores.worst, 4),
                worst_site=scores.worst_site,
            )

    def _finish(self, outcome: Outcome) -> StudyResult:
        """Write the result and return it."""
        seconds = time.monotonic() - self._start
        try:
            fingerprint = weights_sha256(self._tensors, self._federation.wire_dtype)
        except WireError:
            fingerprint = ""  # a diverged model has no weights to name
        result = self._history.result(outcome, fingerprint, seconds, self._guarantee)
        part = self._folder.result_file.with_suffix(".part")
        part.write_text(result.model_dump_json(indent=1), encoding="utf-8")
        part.replace(self._folder.result_file)
        self._events.write(Event.FINISHED, outcome=outcome, seconds=round(seconds, 3))
        return result
