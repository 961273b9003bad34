"""The round loop: join, then train, check, aggregate and save round after round, and evaluate what came out.

It runs unchanged over Flower's deployed grid and its simulation's. Flower's own `Strategy.start` waits for
ever, asks whoever is online, holds every reply in memory, averages unchecked and saves nothing; here the
sites are named, every wait has an end, each reply is checked and on disk before the next is looked at, a round below
its quorum stops the study, and the checkpoint is on disk before the next round is sent. A run folder that holds a
checkpoint is gone on with, from there and with the replies that were kept, and ends with the weights it would have
had without the interruption.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from flwr.app import MessageType, RecordDict
from flwr.serverapp import Grid

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.privacy.limits import check_plan
from semc.reporting import StudyResult
from semc.reporting.result import Outcome
from server.deadlines import site_deadlines
from server.events import Event, EventLog
from server.exchange import Exchange
from server.gather import Check, Gathering
from server.global_model import GlobalModel, initial_model
from server.guarantee import guarantee_of
from server.history import Answer
from server.inbound import Expected, check_evaluation_reply, read_told
from server.ledger_heads import HEADS_FILE, LedgerHeads
from server.messages import weights_record, work_content
from server.pace import Pace
from server.receipt_signing import ReceiptSigner
from server.receipts import RoundReceipt, worth_repeating
from server.registry import Registry
from server.roster import Roster
from server.run_folder import RunFolder
from server.site_metrics import SiteMetrics
from server.spool import RoundQuestion, Spool
from server.study_state import StudyState
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
    signer: ReceiptSigner | None = None,
    transport: Callable[[], str] = str,
) -> StudyResult:
    """Run a study, or the rest of it, and write its checkpoints, events and result.

    Args:
        grid: Flower's way to the nodes.
        study: The resolved study.
        registry: Enrolment of the study's sites.
        folder: Where everything is written; a checkpoint in it is gone on from.
        model: What every site starts from; by default the study's network from the study's seed.
        pace: Waits; by default those of a deployment.
        heads: What earlier runs saw of the sites' privacy ledgers; by default this run's folder starts anew.
        signer: Signs the receipts; by default a key of this run alone.
        transport: Names the present start of the SuperLink; by default it never changes.

    Returns:
        The result, also in the folder's `result.json`.

    Raises:
        SemcError: KEY_UNREGISTERED, BUDGET_REFUSED where the plan costs more than the study allows, QUORUM_LOST (the
            result up to there is written), RUN_FAILED where the model diverged, DISK; CHECKPOINT_INVALID and
            STUDY_MISMATCH where the run cannot go on from what lies in the folder.
    """
    check_plan(study)
    start = time.monotonic()
    events, federation = EventLog(folder.events_file), study.federation
    events.write(Event.STARTED, sites=federation.sites, rounds=federation.rounds, digest=study.digest())
    heads = heads or LedgerHeads(folder.root / HEADS_FILE)
    model = model or initial_model(study, folder.trunk, _told_now_and_then(events))
    signer = signer or ReceiptSigner.load_or_make(folder.receipts_key)
    state = StudyState(study, registry, folder, model, signer)
    roster = Roster(grid, study, registry, model.schema, events, pace or Pace(), transport)
    return _StudyRun(grid, study, roster, folder, model, pace or Pace(), heads, events, state, start).run()


def _told_now_and_then(events: EventLog) -> Callable[[int, int], None]:
    """Return what writes every twentieth part of the pretraining into the events."""

    def tell(done: int, total: int) -> None:
        if done % max(1, total // 20) == 0:
            events.write(Event.PRETRAINING, done=done, of=total)

    return tell


class _StudyRun:
    """One process's part of a run."""

    def __init__(
        self,
        grid: Grid,
        study: StudyConfig,
        roster: Roster,
        folder: RunFolder,
        model: GlobalModel,
        pace: Pace,
        heads: LedgerHeads,
        events: EventLog,
        state: StudyState,
        start: float,
    ) -> None:
        self._start = start
        self._grid, self._study, self._folder, self._pace = grid, study, folder, pace
        self._federation = study.federation
        self._events, self._heads, self._state = events, heads, state
        self._private = study.privacy.private
        self._expected = Expected(
            model.update_shapes, study.federation.wire_dtype, len(study.data.classes), self._private
        )
        self._spool = Spool(folder.spool)
        self._gone_on_with: int | None = None
        """The round that an earlier process had begun."""
        self._guarantee = guarantee_of(study, model)
        self._roster = roster

    def run(self) -> StudyResult:
        """Join, train every round that is left, evaluate the last model, write the result."""
        federation, state = self._federation, self._state
        try:
            if state.resume(self._events):
                # Nobody is waited for here: a site may be in the middle of the round's message for an hour yet.
                self._gone_on_with = state.round + 1
            else:
                self._roster.join()
                state.save()
            while state.round < federation.rounds:
                self._train_round(state.round + 1)
            self._closing_evaluation()
        except SemcError as error:
            with suppress(SemcError):  # a full disk must not hide what stopped the study
                self._finish("quorum_lost" if error.code is ExitCode.QUORUM_LOST else "failed")
            raise
        result = self._finish("complete" if state.history.complete else "complete_on_subset")
        self._spool.clear()
        return result

    def _train_round(self, number: int) -> None:
        """Send the model, keep what is valid, aggregate, save."""
        start, state = time.monotonic(), self._state
        self._events.write(Event.ROUND, round=number, of=self._federation.rounds)
        question = self._question(number)
        receipt = self._exchange(question, UpdateCheck(self._heads, question), state.weights)
        enough = receipt.num_in >= self._federation.effective_quorum
        if enough:
            state.aggregate(self._spool)
        state.sign(receipt, "train", question.incoming_sha256, state.weights_sha256 if enough else "")
        state.history.add_round(receipt, self._said(), time.monotonic() - start)
        self._report_scores(number - 1)
        if not enough:
            raise self._below_quorum(receipt)
        state.save()
        self._spool.clear()
        self._events.write(Event.AGGREGATED, round=number, seconds=round(time.monotonic() - start, 3))

    def _closing_evaluation(self) -> None:
        """Have every site measure the final model."""
        last, state = self._federation.rounds, self._state
        self._events.write(Event.CLOSING)
        question = self._question(last + 1)
        receipt = self._exchange(question, check_evaluation_reply, {})
        state.history.add_closing(self._said())
        state.sign(receipt, "evaluate", question.incoming_sha256, "")
        state.prune()
        self._report_scores(last)

    def _question(self, number: int) -> RoundQuestion:
        return RoundQuestion(
            study_digest=self._study.digest(),
            round_number=number,
            kind="train" if number <= self._federation.rounds else "evaluate",
            incoming_sha256=self._state.weights_sha256,
        )

    def _exchange(self, question: RoundQuestion, check: Check, weights: Mapping[str, float]) -> RoundReceipt:
        """Ask every named site whose answer is not on disk yet; afterwards the spool holds all answers."""
        number = question.round_number
        for site in self._spool.begin(question):
            self._events.write(Event.REPLY_DAMAGED, round=number, site=site)
        timed = number != self._gone_on_with
        gathering = Gathering(number, check, self._expected, weights, self._spool, self._events, timed=timed)
        deadlines = site_deadlines(self._federation, self._state.history.receipts)
        record = weights_record(self._state.payload)
        self._roster.ask_again()

        def content(site: str) -> RecordDict:
            head = self._heads.newest(site) if self._private else None
            return work_content(self._study, number, record, head)

        exchange = Exchange(
            self._grid,
            self._roster,
            content,
            MessageType.TRAIN if question.kind == "train" else MessageType.EVALUATE,
            group=str(number),
            deadlines={
                site: seconds for site, seconds in deadlines.items() if site not in self._spool.replies
            },
            retries=self._federation.retries,
            count_restarts=self._private,  # there every attempt may cost budget
            repeat=lambda receipt: worth_repeating(receipt, private=self._private),
            enough=lambda: gathering.receipt().num_in >= self._federation.effective_quorum,
            pace=self._pace,
        )
        gathering.gather(exchange.answers())
        return gathering.receipt()

    def _said(self) -> dict[str, Answer]:
        """Return what the sites of the round in hand said, from disk: the same whichever process took it."""
        return {
            site: Answer(
                read_told(kept.told, self._expected) if kept.told else SiteMetrics(), kept.ledger_head
            )
            for site, kept in self._spool.replies.items()
        }

    def _below_quorum(self, receipt: RoundReceipt) -> SemcError:
        quorum = self._federation.effective_quorum
        return SemcError(
            ExitCode.QUORUM_LOST,
            f"Round {receipt.round_number} ended with {receipt.num_in} of the {quorum} sites needed: "
            f"{receipt.missing()}.",
            "mend or restart these sites, then `semc-server resume`: checkpoint and the round's replies are kept",
        )

    def _report_scores(self, round_number: int) -> None:
        """Tell how good a round's weights are, once its counts are in."""
        scores = self._state.history.scores(round_number)
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
        state = self._state
        seconds = state.history.seconds_before + time.monotonic() - self._start
        result = state.history.result(
            outcome, state.weights_sha256, seconds, self._guarantee, state.public_key
        )
        self._folder.write_result(result)
        self._events.write(Event.FINISHED, outcome=outcome, seconds=round(seconds, 3))
        return result
