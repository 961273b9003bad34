"""The answers of the round in hand, on disk from the moment they were checked: no crash loses or doubles one.

Flower hands a reply over once and forgets it. Here its tensors are written and synced first, then the description
that names their hash: only what has a description counts. After a crash the round loop takes up what fits its
question (study, round, kind, weights that were sent) and asks only the other sites.

```
spool/round-0003/north.safetensors    tensors, as they were validated
spool/round-0003/north.json           what else the answer said, hashes, the question it answers
```
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

import semc
from semc.exit_codes import ExitCode, SemcError
from semc.whole_file import write_whole
from server.inbound import CheckedReply

_ROUND: Final = "round-"


class RoundQuestion(BaseModel):
    """The question of a round: an answer to another one is no answer."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    study_digest: str
    round_number: int = Field(ge=1)
    kind: Literal["train", "evaluate"]
    incoming_sha256: str
    """SHA-256 of the weights that were sent."""
    software: str = semc.__version__
    """Version that judged the answer."""


class SpooledReply(BaseModel):
    """One site's validated answer, without its tensors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    site: str
    asked: RoundQuestion
    told: dict[str, Any]
    """The metrics as they were told, by the names of the protocol."""
    ledger_head: str | None
    payload_sha256: str
    """SHA-256 of the tensors' file; empty in an evaluation."""
    seconds: float | None = Field(ge=0)
    """From the beginning of the round to this answer; None where the round had begun in an earlier process."""
    attempts: int = Field(ge=1)
    """How often the site had been sent the message."""


class Spool:
    """The answers to one question at a time.

    Args:
        folder: Made where missing.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._asked: RoundQuestion | None = None
        self._replies: dict[str, SpooledReply] = {}

    @property
    def replies(self) -> Mapping[str, SpooledReply]:
        """Answers so far, in the order of the sites' names."""
        return dict(sorted(self._replies.items()))

    @property
    def payloads(self) -> Mapping[str, Path]:
        """Site to its tensors' file, in the order of the sites' names."""
        return {site: self._tensors(site) for site in self.replies}

    def begin(self, asked: RoundQuestion) -> list[str]:
        """Take up what earlier processes kept of this question and remove everything else.

        Returns:
            Sites whose kept answer is damaged and was removed; they are asked again.

        Raises:
            SemcError: DISK.
        """
        self._asked, self._replies = asked, {}
        damaged: list[str] = []
        try:
            self._round.mkdir(parents=True, exist_ok=True)
            for other in self._folder.iterdir():
                if other != self._round:
                    shutil.rmtree(other) if other.is_dir() else other.unlink()
            for description in sorted(self._round.glob("*.json")):
                try:
                    kept = self._load(description)
                except (ValueError, OSError):
                    damaged.append(description.stem)
                    continue
                if kept.asked == asked:
                    self._replies[kept.site] = kept
            for path in self._round.iterdir():
                if path.stem not in self._replies:
                    path.unlink()
        except OSError as error:
            raise _disk_error(error) from error
        return damaged

    def keep(self, reply: CheckedReply, seconds: float | None, attempts: int) -> SpooledReply:
        """Write one validated answer; it counts once this returns.

        Args:
            reply: At most one of a site.
            seconds: From the beginning of the round to the answer, None where that was not seen.
            attempts: How often the site had been sent the message.

        Raises:
            SemcError: DISK where it cannot be written.
            ValueError: The site already has an answer to this question.
        """
        assert self._asked is not None
        if reply.site in self._replies:
            raise ValueError(f"site '{reply.site}' already has an answer in this round")
        kept = SpooledReply(
            site=reply.site,
            asked=self._asked,
            told=dict(reply.told),
            ledger_head=reply.ledger_head,
            payload_sha256="" if reply.payload is None else hashlib.sha256(reply.payload).hexdigest(),
            seconds=seconds,
            attempts=attempts,
        )
        content = kept.model_dump(mode="json")
        try:
            if reply.payload is not None:
                write_whole(self._tensors(reply.site), reply.payload)
            text = json.dumps({**content, "sha256": _sha256_of(content)}, indent=1)
            write_whole(self._round / f"{reply.site}.json", text.encode())
        except OSError as error:
            raise _disk_error(error) from error
        self._replies[reply.site] = kept
        return kept

    def clear(self) -> None:
        """Forget the round: its model is saved."""
        shutil.rmtree(self._folder, ignore_errors=True)
        self._asked, self._replies = None, {}

    @property
    def _round(self) -> Path:
        assert self._asked is not None
        return self._folder / f"{_ROUND}{self._asked.round_number:04d}"

    def _tensors(self, site: str) -> Path:
        return self._round / f"{site}.safetensors"

    def _load(self, description: Path) -> SpooledReply:
        """Read one answer.

        Raises:
            ValueError: It, or its tensors, are damaged.
            OSError: They cannot be read.
        """
        content = json.loads(description.read_bytes())
        if not isinstance(content, dict) or content.pop("sha256", None) != _sha256_of(content):
            raise ValueError("the description is damaged")
        try:
            kept = SpooledReply.model_validate(content)
        except ValidationError as error:
            raise ValueError("the description is damaged") from error
        if kept.site != description.stem:
            raise ValueError("the description is another site's")
        if kept.payload_sha256:
            with self._tensors(kept.site).open("rb") as stream:
                if hashlib.file_digest(stream, "sha256").hexdigest() != kept.payload_sha256:
                    raise ValueError("the tensors are damaged")
        return kept


def _sha256_of(content: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _disk_error(error: OSError) -> SemcError:
    return SemcError(
        ExitCode.DISK,
        f"The round's replies cannot be kept ({error.strerror}).",
        "free space on the coordinator's disk, then `semc-server resume`",
    )
