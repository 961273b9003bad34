"""The handshake: what a site must answer before it is part of a study.

Names, versions and the fingerprint of the network are compared here, so that a mismatch costs a second and
not a round of training.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from importlib.metadata import version

from flwr.app import ConfigRecord, Message

import semc
from semc import protocol
from server.inbound import Question, UnacceptableError, check_sender
from server.receipts import Reason, Receipt, SiteState, Stage, receipt_of_error


@dataclass(frozen=True)
class Hello:
    """What came of asking a node who it is."""

    site: str
    """Its name; empty where a node without a key declined before it gave one."""
    receipt: Receipt
    """`in` where it may take part."""


def check_hello(reply: Message, question: Question, names: Collection[str], schema: str) -> Hello:
    """Check an answer to a QUERY.

    Args:
        reply: The answer.
        question: What was asked; its site is the name the node's key is enrolled under, empty without keys.
        names: Names the node may give.
        schema: Fingerprint of the shared tensors that the site must reproduce.
    """
    if reply.has_error():
        return Hello(question.site, receipt_of_error(reply.error.code, reply.error.reason or "", Stage.JOIN))
    try:
        check_sender(reply, question)
        return Hello(_name(reply, question, names, schema), Receipt(SiteState.IN))
    except UnacceptableError as error:
        return Hello(question.site, Receipt(SiteState.REFUSED, error.reason, Stage.JOIN))


def _name(reply: Message, question: Question, names: Collection[str], schema: str) -> str:
    """Return the site's name once everything it says fits the study."""
    record = reply.content.get(protocol.CONFIG)
    if not isinstance(record, ConfigRecord) or len(reply.content) != 1:
        raise UnacceptableError(Reason.RECORDS)
    name = record.get(protocol.SITE)
    if not isinstance(name, str) or name not in names or name != (question.site or name):
        raise UnacceptableError(Reason.NAME)
    versions = (record.get(protocol.FLOWER_INSTALLED), record.get(protocol.SOFTWARE_VERSION))
    if versions != (version("flwr"), semc.__version__):
        raise UnacceptableError(Reason.VERSION)
    if record.get(protocol.SHARED_SCHEMA) != schema:
        raise UnacceptableError(Reason.SCHEMA)
    return name
