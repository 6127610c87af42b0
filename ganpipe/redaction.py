"""What must not be shown or kept: passwords and signatures in URLs, and what the environment calls a secret.

Settings end up in dvc.lock, in MLflow and in git, so they may not hold a secret at all (`check_settings`); everything
that is printed or logged goes through `redact`. Nothing here imports more than the standard library.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

from .errors import GanpipeError

HIDDEN = "***"
SHORTEST = 6
"""Characters. Shorter values, such as `true` or `token`, occur in too many texts that have nothing to do with them."""
_LONGEST_USER = 20
"""Characters. A user name without a password that is as long as this, or longer, is a token."""

_USER_INFO = re.compile(r"(?<=://)[^/@\s'\"<>]+(?=@)")
_QUERY = re.compile(
    r"(?<=[?&;])(?P<name>[\w.~-]*(?:signature|credential|token|secret|password|passwd|api[_-]?key|access[_-]?key(?:id)?)"
    r"|sig|sv|se|key|auth|pwd)=(?P<value>[^&;#\s'\"<>]+)",
    re.IGNORECASE,
)
_SECRET_NAME = re.compile(
    r"PASSWORD|PASSWD|SECRET|TOKEN|API_?KEY|ACCESS_?KEY|PRIVATE_?KEY|CREDENTIAL|AUTH_STRING|WEBHOOK|CONNECTION_STRING"
    r"|_DSN$|_PAT$"
)
_HARMLESS_NAME = re.compile(r"_(?:PATH|FILE|DIR|MODE|SOCK)$|PARALLELISM$")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


def secrets_in(environment: Mapping[str, str]) -> set[str]:
    """The values that may not be shown: of variables with names of secrets, and passwords in URLs of any variable."""
    found = set()
    for name, value in environment.items():
        if _SECRET_NAME.search(name.upper()) and not _HARMLESS_NAME.search(name.upper()):
            found.add(value)
        for user_info in _USER_INFO.findall(value):
            password = user_info.partition(":")[2] or user_info
            found |= {password, unquote(password)}
        found |= {match["value"] for match in _QUERY.finditer(value)}
    return {value for value in found if len(value) >= SHORTEST}


def redact(text: str, environment: Mapping[str, str] | None = None) -> str:
    """`text` as it may be shown and kept."""
    # The longest first: one secret may be part of another.
    for value in sorted(secrets_in(os.environ if environment is None else environment), key=len, reverse=True):
        text = text.replace(value, HIDDEN)
    return _QUERY.sub(rf"\g<name>={HIDDEN}", _USER_INFO.sub(HIDDEN, text))


def without_password(url: str) -> str:
    """`url` as it may be shown, with a sign that there is something hidden."""
    plain = without_user_info(url)
    return url if plain == url else plain.replace("://", f"://{HIDDEN}@", 1)


def without_user_info(url: str) -> str:
    """`url` with neither name nor password: for a browser, or for hosts that have their own."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2])) if "@" in parts.netloc else url


def secret_in_url(text: str) -> str | None:
    """What kind of secret a URL in `text` holds: one that is written out, not named as `$VARIABLE`."""
    if "://" not in text:
        return None
    for user_info in _USER_INFO.findall(text):
        user, _, password = user_info.partition(":")
        if (password and not _is_variable(password)) or (
            not password and len(user) >= _LONGEST_USER and not _is_variable(user)
        ):
            return "a password"
    if match := next((match for match in _QUERY.finditer(text) if not _is_variable(match["value"])), None):
        return f"a signature or key ({match['name']}=...)"
    return None


def _is_variable(part: str) -> bool:
    return _VARIABLE.fullmatch(part) is not None


def check_settings(values: Any, prefix: str = "") -> None:
    """Refuse settings that hold a secret: DVC copies them into dvc.lock, MLflow keeps them, git shows them.

    Raises:
        GanpipeError: names the key, not the value.
    """
    if isinstance(values, dict):
        for name, value in values.items():
            check_settings(value, f"{prefix}.{name}" if prefix else str(name))
    elif isinstance(values, list):
        for number, value in enumerate(values):
            check_settings(value, f"{prefix}.{number}")
    elif isinstance(values, str) and (kind := secret_in_url(values)):
        raise GanpipeError(
            f"{prefix}: the URL holds {kind}, and what stands in params.yaml is copied into dvc.lock and MLflow; keep "
            "it in the environment (docs/security.md)"
        )


def expand_variables(url: str, key: str) -> str:
    """A URL with the environment's values in place of `$NAME` and `${NAME}`.

    Raises:
        GanpipeError: there is no such variable; the message names `key`.
    """

    def value(match: re.Match[str]) -> str:
        name = match[1] or match[2]
        if name not in os.environ:
            raise GanpipeError(f"{key}: it names ${name}, which is not set in the environment")
        return os.environ[name]

    return _VARIABLE.sub(value, url)
