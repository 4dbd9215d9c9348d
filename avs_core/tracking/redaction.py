"""Take secrets out of what is logged: keys, tokens, passwords in URIs, signatures in queries.

Three nets: names that say what their value is, forms that only a secret has, and the very values that this process
was given in its environment. A value that was taken out reads `[redacted]`.
"""

import os
import re
from collections.abc import Mapping
from typing import Any

REDACTED = "[redacted]"
SHORTEST_SECRET = 8
"""Characters: shorter values of the environment would also take out innocent words."""

_SECRET_WORDS = (
    r"passw(?:or)?d|passphrase|secret|token|credentials?|api[_-]?key|apikey|access[_-]?key(?:[_-]?id)?|"
    r"accesskeyid|private[_-]?key|authorization|auth|signature|cookie"
)
_SECRET_NAME = re.compile(rf"(?:^|[^a-z])(?:{_SECRET_WORDS})(?:$|[^a-z])", re.IGNORECASE)
_ASSIGNED = re.compile(
    rf"""(?P<name>[\w.-]*(?:(?<![a-zA-Z])|(?=[A-Z]))(?i:{_SECRET_WORDS})(?![a-z])[\w.-]*["']?\s*[=:]\s*)"""
    r"""(?P<value>"[^"]*"|'[^']*'|[^\s,;&"'}\]]+)"""
)
_SCHEME = re.compile(r"\b(?P<scheme>bearer|basic)\s+[\w.~+/=-]{8,}", re.IGNORECASE)
_USER = re.compile(r"(?P<scheme>\b[a-z][a-z0-9+.-]*://)[^\s/@?#]+@", re.IGNORECASE)
_SIGNED_QUERY = re.compile(
    r"(?P<url>\b[a-z][a-z0-9+.-]*://[^\s?#\"'<>]+)"
    r"\?[^\s\"'<>]*\b(?:X-(?:Amz|Goog)-|AWSAccessKeyId|Signature|sig|Key-Pair-Id|token|access_token)[^\s\"'<>]*",
    re.IGNORECASE,
)
_FORMS = re.compile(
    r"\b(?:AKIA|ASIA|ABIA|ACCA)[A-Z0-9]{16}\b"  # AWS access keys
    r"|\bgh[pousr]_[A-Za-z0-9]{30,}\b|\bgithub_pat_\w{22,}\b|\bglpat-[\w-]{20,}"
    r"|\bhf_[A-Za-z0-9]{30,}\b|\bsk-[\w-]{20,}|\bxox[abprs]-[\w-]{10,}|\bAIza[\w-]{35}"
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"  # JSON web tokens
    r"|\bdapi[0-9a-f]{32}\b"
    r"|-----BEGIN [A-Z ]*PRIVATE KEY-----.*?(?:-----END [A-Z ]*PRIVATE KEY-----|\Z)",
    re.DOTALL,
)


def redact(value: Any) -> Any:
    """The same value without secrets: text, or mappings, lists and tuples of such. Numbers and the like pass."""
    if isinstance(value, str):
        return _redact_text(value)
    if isinstance(value, Mapping):
        return {_redact_text(str(name)): _redact_named(str(name), inner) for name, inner in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [redact(inner) for inner in value]
    return value


def _redact_named(name: str, value: Any) -> Any:
    # numbers and switches (token_count, use_auth) are not secrets, whatever they are called
    return REDACTED if value and isinstance(value, str | bytes) and _SECRET_NAME.search(_words(name)) else redact(value)


def _words(name: str) -> str:
    """`secretAccessKey` as `secret_Access_Key`."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name)


def _redact_text(text: str) -> str:
    for secret in _secrets_of_environment():
        text = text.replace(secret, REDACTED)
    text = _FORMS.sub(REDACTED, text)
    text = _SIGNED_QUERY.sub(rf"\g<url>?{REDACTED}", text)
    text = _USER.sub(rf"\g<scheme>{REDACTED}@", text)
    text = _SCHEME.sub(rf"\g<scheme> {REDACTED}", text)
    return _ASSIGNED.sub(_hide_assigned, text)


def _hide_assigned(match: re.Match[str]) -> str:
    value = match["value"]
    return match[0] if REDACTED in value or value.lower() in _SCHEMES else f"{match['name']}{REDACTED}"


_SCHEMES = ("bearer", "basic")
"""What follows them has been taken out already."""


def _secrets_of_environment() -> list[str]:
    """Values of variables that are named like secrets, longest first. Paths are not secrets, what they name is."""
    values = {
        value
        for name, value in os.environ.items()
        if len(value) >= SHORTEST_SECRET and not value.startswith("/") and _SECRET_NAME.search(name)
    }
    return sorted(values, key=len, reverse=True)
