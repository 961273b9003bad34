"""The one door in: a message from the coordinator becomes an Instruction, or is refused.

The coordinator is not trusted to be careful: the study is parsed here and its digest computed here, settings
are compared with what the site's governance approved, and no value is used as a path: a file of pretrained weights
is a bare name, looked up in the folder the site itself chose.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

import yaml
from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict
from torch import Tensor

from client.privacy_gate import check_policy
from client.refusal import RefusalError, refuse
from semc.config import SiteConfig, StudyConfig, parse_study
from semc.exit_codes import ExitCode, SemcError
from semc.protocol import (
    ARRAYS,
    CONFIG,
    LEDGER_HEAD,
    SERVER_ROUND,
    SHARED_TENSORS,
    STUDY,
    STUDY_DIGEST,
    TENSOR_STYPE,
    RefusalCode,
)
from semc.wire import ITEM_BYTES, MAX_HEADER_BYTES, WireError, unpack

MAX_STUDY_CHARACTERS: Final = 65_536
_DIGEST_PREFIX: Final = 12
_HEAD: Final = re.compile(r"[0-9a-f]{64}")
_ASK_COORDINATOR: Final = "ask the coordinator which study and software version it runs"


@dataclass(frozen=True)
class Instruction:
    """What the coordinator asks, after every check that needs no network."""

    study: StudyConfig
    digest: str
    """The study's digest as computed at this site."""
    round_number: int
    """1 to the study's rounds, one more in the closing evaluation; 0 in a handshake."""
    payload: bytes | None
    """The shared tensors as sent; None in a handshake."""
    ledger_head: str | None = None
    """The newest head of this site's privacy ledger that the coordinator has seen, where it has seen one."""


def open_handshake(content: RecordDict, site: SiteConfig) -> Instruction:
    """Check a query: a study, no tensors, no round.

    Raises:
        RefusalError: STUDY, MODEL or INSTRUCTION.
    """
    _only(content, {CONFIG})
    config = _config(content)
    study, digest = _study(config, site)
    return Instruction(study=study, digest=digest, round_number=0, payload=None)


def open_work(content: RecordDict, site: SiteConfig, *, closing: bool) -> Instruction:
    """Check a train or evaluate message: a study, a round and one array of packed tensors.

    Args:
        content: What the message carries.
        site: What this site allows.
        closing: Whether this is an evaluation, which may follow the last round.

    Raises:
        RefusalError: STUDY, MODEL or INSTRUCTION.
    """
    _only(content, {CONFIG, ARRAYS})
    config = _config(content)
    study, digest = _study(config, site)
    round_number = config.get(SERVER_ROUND)
    last = study.federation.rounds + closing
    if type(round_number) is not int or not 1 <= round_number <= last:
        raise _malformed("The message names no round of the study.")
    head = config.get(LEDGER_HEAD)
    if head is not None and not (isinstance(head, str) and _HEAD.fullmatch(head)):
        raise _malformed("The message's ledger head is none.")
    return Instruction(study, digest, round_number, _payload(content), head)


def open_tensors(instruction: Instruction, expected: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    """Read the shared tensors, which must be exactly those of the site's own network.

    Args:
        instruction: A round's instruction.
        expected: Shape of every shared tensor by name.

    Raises:
        RefusalError: MODEL where they are not what the study's network has, or not finite.
    """
    dtype = instruction.study.federation.wire_dtype
    payload = instruction.payload or b""
    numbers = sum(math.prod(shape) for shape in expected.values())
    if len(payload) > numbers * ITEM_BYTES[dtype] + MAX_HEADER_BYTES:
        raise _malformed("The message is larger than the study's tensors.")
    try:
        return unpack(payload, expected, dtype)
    except WireError as error:
        raise refuse(
            RefusalCode.MODEL,
            ExitCode.STUDY_MISMATCH,
            f"The received weights do not fit the study's network: {error}.",
            _ASK_COORDINATOR,
        ) from error


def _only(content: RecordDict, records: set[str]) -> None:
    """Refuse records beyond the expected ones."""
    if set(content) != records:
        raise _malformed("The message does not hold exactly the expected records.")


def _config(content: RecordDict) -> ConfigRecord:
    config = content[CONFIG]
    if not isinstance(config, ConfigRecord):
        raise _malformed("The message's settings are of another kind.")
    return config


def _study(config: ConfigRecord, site: SiteConfig) -> tuple[StudyConfig, str]:
    """Parse the study, compute its digest here, and compare it with what the site allows."""
    text = config.get(STUDY)
    if not isinstance(text, str) or len(text) > MAX_STUDY_CHARACTERS:
        raise refuse(
            RefusalCode.STUDY, ExitCode.CONFIG_INVALID, "The message carries no study.", _ASK_COORDINATOR
        )
    study, digest = _parse(text)
    if config.get(STUDY_DIGEST) != digest:
        raise refuse(
            RefusalCode.STUDY,
            ExitCode.STUDY_MISMATCH,
            f"The study's digest here is {digest[:_DIGEST_PREFIX]}, the coordinator states another one.",
            "install the same version of this software as the coordinator",
        )
    check_study(study, digest, site)
    return study, digest


def check_study(study: StudyConfig, digest: str, site: SiteConfig, *, member: bool = True) -> None:
    """Compare a study with what this site allows.

    Args:
        study: The study.
        digest: Its digest.
        site: What this site allows.
        member: The study must name this site; not so for one that only takes over its finished model.

    Raises:
        RefusalError: STUDY where it is not allowed or does not name this site, MODEL where settings differ.
        SemcError: POLICY_REFUSED where the hospital's policy does not allow its privacy mode.
    """
    if site.allowed_studies is not None and not {digest, digest[:_DIGEST_PREFIX]} & set(site.allowed_studies):
        raise refuse(
            RefusalCode.STUDY,
            ExitCode.STUDY_MISMATCH,
            f"Study '{study.name}' ({digest[:_DIGEST_PREFIX]}) is not among this site's allowed studies.",
            "add the digest to allowed_studies in the site file if the study is approved",
        )
    if member and site.site not in study.federation.sites:
        raise refuse(
            RefusalCode.STUDY,
            ExitCode.STUDY_MISMATCH,
            f"Study '{study.name}' does not name this site.",
            "ask the coordinator to add it to federation.sites, or correct `site` in the site file",
        )
    _check_model(study, site)
    if member:  # whoever only takes over a finished model sends nothing
        check_policy(study, site)


@lru_cache(maxsize=4)
def _parse(text: str) -> tuple[StudyConfig, str]:
    """Parse a study's YAML without aliases, which can make a short text expand without limit."""
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(text, Loader=yaml.SafeLoader)):
            raise SemcError(ExitCode.CONFIG_INVALID, "The study uses YAML aliases.", "write the values out")
        study = parse_study(text)
    except yaml.YAMLError as error:
        raise refuse(
            RefusalCode.STUDY, ExitCode.CONFIG_INVALID, "The study is not valid YAML.", _ASK_COORDINATOR
        ) from error
    except SemcError as error:
        raise RefusalError(RefusalCode.STUDY, error) from error
    return study, study.digest()


def _check_model(study: StudyConfig, site: SiteConfig) -> None:
    """Compare the study's model settings with those the site's governance approved."""
    proposed = {
        "preset": study.preset,
        "backbone": study.model.backbone,
        "image_size": study.data.image_size,
        "classes": study.data.classes,
    }
    for name, value in proposed.items():
        approved = getattr(site.expected_model, name)
        if approved is not None and approved != value:
            raise refuse(
                RefusalCode.MODEL,
                ExitCode.STUDY_MISMATCH,
                f"The study's {name} is {_shown(value)}, this site approved {_shown(approved)}.",
                f"agree on one value; the site's stands in expected_model.{name} of the site file",
            )


def _payload(content: RecordDict) -> bytes:
    """Return the bytes of the one array a round's message holds."""
    arrays = content[ARRAYS]
    if not isinstance(arrays, ArrayRecord) or set(arrays) != {SHARED_TENSORS}:
        raise _malformed("The message does not hold exactly one array of shared tensors.")
    array: Array = arrays[SHARED_TENSORS]
    data = bytes(array.data)
    if array.stype != TENSOR_STYPE or array.dtype != "uint8" or tuple(array.shape) != (len(data),):
        raise _malformed("The message's array is not a packed tensor file.")
    return data


def _malformed(problem: str) -> RefusalError:
    return refuse(RefusalCode.INSTRUCTION, ExitCode.STUDY_MISMATCH, problem, _ASK_COORDINATOR)


def _shown(value: object) -> str:
    return ", ".join(value) if isinstance(value, tuple) else str(value)
