"""Who is who: which online node is which named site, and whether it would run this study.

A deployed node is known by the key it proved to the SuperLink; it must then give the name that key is
enrolled under. A simulated node has no key and is who it says. Before the first round every site is asked
(QUERY) for its name, its versions and the fingerprint of the network it builds from the study, so that a
mismatch shows before anyone trains. Nodes that are not of the study are never sent anything.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import httpx
from flwr.app import Message, MessageType
from flwr.serverapp import Grid

from semc.config import StudyConfig
from semc.exit_codes import ExitCode, SemcError
from server.events import Event, EventLog
from server.handshake import check_hello
from server.inbound import Question
from server.messages import hello_content
from server.pace import Pace
from server.pushes import pushed
from server.receipts import Reason, Receipt, RoundReceipt, SiteState, Stage, not_in
from server.registry import Registry


@dataclass(frozen=True)
class _Asked:
    """A handshake under way or answered."""

    question: Question
    activation: str
    """When the node last started; a restarted node has forgotten its message and is asked again."""


class Roster:
    """The study's sites and their nodes, kept up to date while the study runs.

    Args:
        grid: Flower's way to the nodes.
        study: Names the sites.
        registry: Their enrolment.
        schema: Fingerprint of the shared tensors, see :func:`semc.parameter_exchange.shared_schema`.
        events: Told who joined and who did not.
        pace: Waits.
        transport: Names the present start of the SuperLink; one that dies while it hands a message over has lost it.
    """

    def __init__(
        self,
        grid: Grid,
        study: StudyConfig,
        registry: Registry,
        schema: str,
        events: EventLog,
        pace: Pace,
        transport: Callable[[], str],
    ) -> None:
        self.sites = study.federation.sites
        self._grid, self._study, self._registry = grid, study, registry
        self._schema, self._events, self._pace = schema, events, pace
        self._transport = transport
        self._start = time.monotonic()
        self._next_look = 0.0
        self._last_online: dict[str, float] = {}
        self._online: dict[int, float] = {}
        self._activations: dict[int, str] = {}
        self._asked: dict[int, _Asked] = {}
        self._waiting: set[int] = set()
        self._joined: dict[str, int] = {}
        self._not_joined: dict[str, Receipt] = {}
        self._nameless: list[Receipt] = []

    def node(self, site: str) -> int | None:
        """Return the node of a site that joined, else None."""
        return self._joined.get(site)

    def is_online(self, site: str) -> bool:
        """Whether a site joined and may be asked for a reply now."""
        node_id = self._joined.get(site)
        return node_id is not None and self._node_is_online(node_id)

    def is_there(self, site: str) -> bool:
        """Whether a site is online, also where it has not joined: it may be busy with an earlier message."""
        asked = any(
            known.question.site == site and self._node_is_online(node_id)
            for node_id, known in self._asked.items()
            if node_id in self._waiting
        )
        return asked or self.is_online(site)

    def activation(self, site: str) -> str:
        """Return what changes when a site may have lost what it was sent: a start of its node, or of the SuperLink."""
        return self._activations.get(self._joined.get(site, 0), "")

    def offline_seconds(self, site: str) -> float:
        """Return how long a site has not been online; the study's age where it never was."""
        return time.monotonic() - self._last_online.get(site, self._start)

    def not_joined(self, site: str) -> Receipt | None:
        """Return why a site that answered the handshake may not take part, else None.

        A simulated site that declines before giving its name is counted once every other site is known.
        """
        unknown = len(self.sites) - len(self._joined) - len(self._not_joined)
        if site not in self._joined and site not in self._not_joined and 0 < unknown <= len(self._nameless):
            return self._nameless[0]
        return self._not_joined.get(site)

    def join(self) -> None:
        """Wait until every site has answered the handshake, or the join timeout ends.

        Raises:
            SemcError: QUORUM_LOST where fewer sites than the quorum joined.
        """
        federation = self._study.federation
        start = time.monotonic()
        while time.monotonic() - start < federation.join_timeout_seconds:
            self.refresh()
            answered = len(self._joined) + len(self._not_joined) + len(self._nameless)
            if answered >= len(self.sites):
                break
            time.sleep(self._pace.next_poll(time.monotonic() - start))
        if len(self._joined) < federation.effective_quorum:
            raise self._too_few()

    def ask_again(self) -> None:
        """Give every site that did not join another chance; its next answer counts."""
        self._not_joined.clear()
        self._nameless.clear()
        kept = self._waiting | set(self._joined.values())
        self._asked = {node_id: asked for node_id, asked in self._asked.items() if node_id in kept}

    def refresh(self) -> None:
        """Look who is online, greet new nodes and read their answers; at most every `pace.roster` seconds."""
        now = time.monotonic()
        if now < self._next_look:
            return
        self._next_look = now + (self._pace.roster if self._all_known() else self._pace.poll)
        nodes = list(self._grid.get_nodes())
        self._online = {
            node.node_id: node.online_until if node.HasField("online_until") else float("inf")
            for node in nodes
        }
        transport = self._transport()
        self._activations = {node.node_id: f"{node.last_activated_at} {transport}" for node in nodes}
        self._last_online |= {site: now for site in self._joined if self.is_online(site)}
        self._listen_to(self._waiting)
        before = set(self._waiting)
        for node in nodes:  # after the answers: whose was lost is greeted again at once
            if self._node_is_online(node.node_id):
                self._greet(node.node_id, node.public_key, self._activations[node.node_id])
        self._listen_to(self._waiting - before)

    def _listen_to(self, node_ids: Iterable[int]) -> None:
        for node_id in sorted(node_ids):
            if self._node_is_online(node_id):
                self._listen(node_id)

    def _listen(self, node_id: int) -> None:
        """Look for a node's answer; one that Flower cannot read is an answer too."""
        question = self._asked[node_id].question
        try:
            reply = next(iter(self._grid.pull_messages([question.message_id])), None)
        except httpx.HTTPError:
            raise
        except Exception:
            self._waiting.discard(node_id)
            self._refuse(question.site, Receipt(SiteState.REFUSED, Reason.RECORDS, Stage.JOIN))
            return
        if reply is not None:
            self._waiting.discard(node_id)
            self._judge(reply, question)

    def _all_known(self) -> bool:
        return not self._waiting and len(self._joined) + len(self._not_joined) >= len(self.sites)

    def _node_is_online(self, node_id: int) -> bool:
        return self._online.get(node_id, 0.0) > time.time() + self._pace.online_margin

    def _greet(self, node_id: int, public_key: bytes, activation: str) -> None:
        """Ask a node that is new, or that restarted before it answered."""
        known = self._asked.get(node_id)
        if known is not None and (known.activation == activation or node_id not in self._waiting):
            return
        site = ""
        if self._registry.has_keys:
            site = self._registry.site_of_key(public_key) or ""
            if site not in self.sites:
                return
        federation = self._study.federation
        message = Message(
            hello_content(self._study),
            node_id,
            MessageType.QUERY,
            ttl=federation.join_timeout_seconds,
            group_id="0",
        )
        identifiers = pushed(self._grid, [message])
        if identifiers and identifiers[0]:
            question = Question(site, node_id, identifiers[0], MessageType.QUERY)
            self._asked[node_id] = _Asked(question, activation)
            self._waiting.add(node_id)

    def _judge(self, reply: Message, question: Question) -> None:
        """Record that a site joined, or why it may not."""
        taken = {site for site, node_id in self._joined.items() if node_id != question.node_id}
        hello = check_hello(reply, question, set(self.sites) - taken, self._schema)
        if hello.receipt.state is SiteState.DROPPED:
            del self._asked[question.node_id]  # lost on the way: it is asked again
            return
        if hello.receipt.state is SiteState.IN:
            self._joined[hello.site] = question.node_id
            self._events.write(Event.JOINED, site=hello.site)
            return
        self._refuse(hello.site, hello.receipt)

    def _refuse(self, site: str, receipt: Receipt) -> None:
        """Record why a site may not take part."""
        if site:
            self._not_joined[site] = receipt
        else:
            self._nameless.append(receipt)
        self._events.write(Event.NOT_JOINED, site=site, state=receipt.state, reason=receipt.reason)

    def _too_few(self) -> SemcError:
        """Return the error that says who is missing and why."""
        absent = not_in(SiteState.DROPPED, Reason.ABSENT, Stage.JOIN)
        missing = RoundReceipt(
            0,
            {site: self._not_joined.get(site, absent) for site in self.sites if site not in self._joined},
        ).missing()
        nameless = "".join(f"; a site {receipt.state} ({receipt.reason})" for receipt in self._nameless)
        federation = self._study.federation
        return SemcError(
            ExitCode.QUORUM_LOST,
            f"{len(self._joined)} of the {federation.effective_quorum} sites needed joined: "
            f"{missing}{nameless}.",
            "start the missing sites (`semc-client --site X`) and read the log of those that declined",
        )
