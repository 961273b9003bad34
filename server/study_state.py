"""What a study is between two rounds: weights, server optimiser, history, signed receipts; saved and taken up again."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from torch import Tensor

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from semc.reporting.receipt import Kind, SiteReceipt
from semc.wire import WireError, pack
from server.aggregation import build_aggregator
from server.events import Event, EventLog
from server.global_model import GlobalModel
from server.history import History
from server.receipt_signing import ReceiptSigner
from server.receipts import RoundReceipt
from server.registry import Registry
from server.round_checkpoint import RoundCheckpoints, SavedRound, software
from server.run_folder import RunFolder
from server.site_weights import site_weights
from server.spool import Spool


class StudyState:
    """The state after a number of rounds; begins with the untrained model.

    Args:
        study: The resolved study.
        registry: Enrolment of its sites.
        folder: Where checkpoints lie.
        model: What every site starts from.
        signer: Signs the receipts.
    """

    def __init__(
        self,
        study: StudyConfig,
        registry: Registry,
        folder: RunFolder,
        model: GlobalModel,
        signer: ReceiptSigner,
    ) -> None:
        self._study, self._run, self._signer = study, folder.root.name, signer
        self._checkpoints = RoundCheckpoints(folder.checkpoints, study, model.shapes)
        self.round = 0
        """Rounds aggregated so far."""
        self.history = History(study, registry)
        self.weights = site_weights(study.federation, registry)
        """Weight of each site in the mean."""
        self._aggregator = build_aggregator(
            study.federation, self.weights, updated=model.update_shapes, batch_norm=model.batch_norm
        )
        self._tensors = model.tensors
        self.payload = self._packed(model.tensors)
        """The weights as they are sent."""

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights as they are sent."""
        return hashlib.sha256(self.payload).hexdigest()

    @property
    def public_key(self) -> str:
        """Proves the receipts."""
        return self._signer.public_key

    def resume(self, events: EventLog) -> bool:
        """Go on from the newest whole checkpoint; False where there is none yet.

        Raises:
            SemcError: CHECKPOINT_INVALID where all are damaged, STUDY_MISMATCH where it is of another study or network.
        """
        saved, damaged = self._checkpoints.newest()
        for name in damaged:
            events.write(Event.CHECKPOINT_DAMAGED, checkpoint=name)
        if saved is None:
            return False
        self.round = saved.number
        self.history.restore(saved.history, saved.receipts)
        self._aggregator.load_state_dict(saved.optimizer)
        self._tensors = saved.model
        self.payload = self._packed(saved.model)
        now = software()
        others = {name: was for name, was in saved.software.items() if now.get(name) != was}
        events.write(Event.RESUMED, round=saved.number, software_before=others)
        return True

    def aggregate(self, spool: Spool) -> None:
        """Make the next weights of a round's replies.

        Raises:
            SemcError: RUN_FAILED where they are not finite.
        """
        following = self._aggregator.next_model(self._tensors, spool.payloads)
        self.payload = self._packed(following)
        self._tensors = following
        self.round += 1

    def sign(self, receipt: RoundReceipt, kind: Kind, incoming_sha256: str, outgoing_sha256: str) -> None:
        """Add a round's receipt to the signed ones."""
        signed = self._signer.sign(
            study_digest=self._study.digest(),
            run=self._run,
            round_number=receipt.round_number,
            kind=kind,
            sites={
                site: SiteReceipt(
                    state=entry.state.value,
                    stage=entry.stage,
                    reason=str(entry.reason),
                    weight=entry.weight,
                    payload_sha256=entry.payload_sha256,
                    seconds=entry.seconds,
                    attempts=entry.attempts,
                )
                for site, entry in receipt.sites.items()
            },
            incoming_sha256=incoming_sha256,
            outgoing_sha256=outgoing_sha256,
            before=self.history.receipts,
        )
        self.history.receipts.append(signed)

    def save(self) -> None:
        """Save the state, whole or not at all.

        Raises:
            SemcError: DISK.
        """
        saved = SavedRound(
            number=self.round,
            model=self._tensors,
            optimizer=self._aggregator.state_dict(),
            history=self.history.to_json(),
            receipts=tuple(self.history.receipts),
        )
        self._checkpoints.save(saved, self.history.best_round)

    def prune(self) -> None:
        """Keep the newest checkpoints and the best, now that the last round is judged too."""
        self._checkpoints.keep(self.history.best_round)

    def _packed(self, tensors: Mapping[str, Tensor]) -> bytes:
        try:
            return pack(tensors, self._study.federation.wire_dtype)
        except WireError as error:
            raise SemcError(
                ExitCode.RUN_FAILED,
                f"Round {self.round + 1} made a model whose numbers are not finite.",
                "lower training.learning_rate or federation.server_learning_rate",
            ) from error
