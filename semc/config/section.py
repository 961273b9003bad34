"""Base of every configuration section: immutable, no unknown keys, errors as one readable line."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from semc.exit_codes import ExitCode, SemcError


class Section(BaseModel):
    """A frozen pydantic model that refuses unknown keys and non-finite numbers."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        use_attribute_docstrings=True,
        allow_inf_nan=False,
        protected_namespaces=(),
    )


SectionT = TypeVar("SectionT", bound=Section)


def read_yaml(path: Path, kind: str) -> dict[str, Any]:
    """Read a YAML mapping with the safe loader.

    Args:
        path: The file.
        kind: "study" or "site", for the message.

    Raises:
        SemcError: CONFIG_NOT_FOUND where the file is missing, CONFIG_INVALID where it is not a YAML mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise SemcError(
            ExitCode.CONFIG_NOT_FOUND,
            f"The {kind} file {path.name} cannot be read ({error.strerror}).",
            "check the path",
        ) from error
    return parse_yaml(text, kind)


def parse_yaml(text: str, kind: str) -> dict[str, Any]:
    """Parse a YAML mapping; the limits of :func:`read_yaml` apply."""
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f" at line {mark.line + 1}" if mark is not None else ""
        raise SemcError(
            ExitCode.CONFIG_INVALID, f"The {kind} file is not valid YAML{where}.", "correct the syntax"
        ) from error
    if not isinstance(content, dict):
        raise SemcError(
            ExitCode.CONFIG_INVALID,
            f"The {kind} file must be a YAML mapping.",
            "the README shows the shortest one",
        )
    return content


def validate(section: type[SectionT], content: dict[str, Any], kind: str) -> SectionT:
    """Build a section from parsed YAML, naming the first wrong key in one line.

    Raises:
        SemcError: CONFIG_INVALID with the dotted key, what is wrong and the keys that exist.
    """
    try:
        return section.model_validate(content)
    except ValidationError as error:
        # an unknown key explains a missing one, so it comes first
        unsorted = error.errors(include_url=False, include_input=False)
        first, *others = sorted(unsorted, key=lambda entry: entry["type"] != "extra_forbidden")
        key = _dotted(first["loc"]) or kind
        fix_of_a_value = f"correct '{key}'" if first["loc"] else "change one of the keys it names"
        names = list(dict.fromkeys(f"'{_dotted(entry['loc'])}'" for entry in others))
        more = f" (also wrong: {', '.join(names)})" if names else ""
        if first["type"] == "extra_forbidden":
            known = ", ".join(_keys_beside(section, first["loc"]))
            problem, fix = (
                f"Unknown key '{key}' in the {kind} file{more}.",
                f"remove it or use one of: {known}",
            )
        else:
            problem, fix = f"'{key}' in the {kind} file: {_message(first)}{more}.", fix_of_a_value
        raise SemcError(ExitCode.CONFIG_INVALID, problem, fix) from error


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn what a request's own model refuses into one line about the option."""
    try:
        yield
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        raise SemcError(
            ExitCode.USAGE, f"{_dotted(first['loc'])}: {_message(first)}.", "`--help` names the values"
        ) from error


def _dotted(location: tuple[int | str, ...]) -> str:
    """Return a key as people write it: `training.batch_size`."""
    return ".".join(str(part) for part in location)


def _message(error: ErrorDetails) -> str:
    """Return what pydantic found, without its own prefix."""
    return error["msg"].removeprefix("Value error, ")


def _keys_beside(section: type[Section], location: tuple[int | str, ...]) -> list[str]:
    """Return the keys that exist where an unknown one was found."""
    model: type[BaseModel] = section
    for part in location[:-1]:
        field = model.model_fields.get(str(part))
        if (
            field is None
            or not isinstance(field.annotation, type)
            or not issubclass(field.annotation, BaseModel)
        ):
            break
        model = field.annotation
    return sorted(model.model_fields)
