"""The Flower app of a site: `inbound` opens a message, `SiteTrainer` answers, `outbound` lets the answer out.

======== ====================================== ==================================================
message  asks                                   answer
======== ====================================== ==================================================
query    who are you, does this study fit you?  name, versions, schema of the shared tensors
train    train round R from these weights       shared tensors, counts of the weights that arrived; with
                                                patient-level privacy noised tensors and the ledger's head
evaluate how good are these weights here?       counts; with patient-level privacy rates
======== ====================================== ==================================================

An error of any kind becomes a listed code; its text stays at the site. Importing this module reads no file.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TYPE_CHECKING

from flwr.app import Context, Message, RecordDict
from flwr.clientapp import ClientApp

from client import inbound, outbound
from client.privacy_gate import check_head, note_unprotected
from client.progress import Progress, Report, silent
from client.refusal import local_line, refusal_of
from client.site import SiteOf, WarmSite, deployed_site, warm_site

if TYPE_CHECKING:
    from client.inbound import Instruction
    from client.private_round import PrivateSiteTrainer
    from client.training_round import SiteTrainer

log = logging.getLogger(__name__)

_Answer = Callable[[RecordDict, WarmSite, Report], RecordDict]


def build_app(site_of: SiteOf = deployed_site, report: Report = silent) -> ClientApp:
    """Return the app of one deployed site, or of all sites of a simulation.

    Args:
        site_of: Finds the site file of a message's node; picklable for simulations.
        report: Told what the app is doing.

    Returns:
        An app whose answers hold nothing that `client.outbound` does not let out.
    """
    app = ClientApp()

    @app.query()
    def query(message: Message, context: Context) -> Message:
        return _reply(_handshake, message, context, site_of, report)

    @app.train()
    def train(message: Message, context: Context) -> Message:
        return _reply(_training, message, context, site_of, report)

    @app.evaluate()
    def evaluate(message: Message, context: Context) -> Message:
        return _reply(_evaluation, message, context, site_of, report)

    return app


def _reply(answer: _Answer, message: Message, context: Context, site_of: SiteOf, report: Report) -> Message:
    """Answer a message, or refuse it with a listed code."""
    try:
        return Message(answer(message.content, warm_site(site_of(context)), report), reply_to=message)
    except Exception as error:
        log.exception("%s: %s", refusal_of(error).value, local_line(error))
        report(Progress("refused", text=f"{refusal_of(error).value}: {local_line(error)}"))
        return outbound.refusal(message, error)


def _handshake(content: RecordDict, site: WarmSite, report: Report) -> RecordDict:
    instruction = inbound.open_handshake(content, site.config)
    report(Progress("loading"))
    trainer = _ready(instruction, site)
    return outbound.handshake_content(site.config.site, trainer.shared_schema)


def _training(content: RecordDict, site: WarmSite, report: Report) -> RecordDict:
    instruction = inbound.open_work(content, site.config, closing=False)
    trainer = _ready(instruction, site)
    shared = inbound.open_tensors(instruction, trainer.shared_shapes)
    update = trainer.run_round(instruction.round_number, shared, report)
    return outbound.update_content(update, instruction.study, trainer.update_shapes)


def _evaluation(content: RecordDict, site: WarmSite, report: Report) -> RecordDict:
    instruction = inbound.open_work(content, site.config, closing=True)
    trainer = _ready(instruction, site)
    shared = inbound.open_tensors(instruction, trainer.shared_shapes)
    metrics = trainer.evaluate(shared, instruction.round_number, report)
    return outbound.metrics_content(metrics, instruction.study)


def _ready(instruction: Instruction, site: WarmSite) -> SiteTrainer | PrivateSiteTrainer:
    """Return the study's trainer, once the ledger knows of a study of mode none, or is known to be no older copy."""
    if instruction.study.privacy.private:
        check_head(site.config, instruction.ledger_head)
    else:
        note_unprotected(instruction.study, site.config)
    return site.trainer(instruction.study)


app = build_app()
