"""What looks like a password, key or token in a text: settings and command lines must hold none. Runs anywhere."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from mlspark.errors import ConfigError

_PAIR = re.compile(
    r"(?<![\w.\-])(?P<name>[\w.\-]+)\s*=\s*(?P<value>\"[^\"]*\"|'[^']*'|\{[^}]*\}|[^\s;&,:()|/?#\"'{}]*)", re.ASCII
)
_CAMEL = re.compile(r"(?<=[a-z0-9])(?=[A-Z])")
_PASSWORD_NAME = re.compile(r"(?:password|passwd|passphrase|pwd|(?:^|[._-])pass)$", re.IGNORECASE)
# How names end: sslpassword, trustStorePassword, X-Amz-Signature; not passwordEncoding, maxTokens, compass.
_SECRET_NAME = re.compile(
    r"(?:secret|token|(?:api|auth|shared|access|secret|account|private|pvt)_?key|secret_?key_?id|private_?key_?base64"
    r"|access_?signature|(?:^|[._-])(?:signature|sig|credentials?|authorization))$|account\.key\b",
    re.IGNORECASE,
)
_USER_NAME = re.compile(r"user|user_?name|user_?id|uid|log_?on_?id", re.IGNORECASE)
_HARMLESS_VALUE = re.compile(r"true|false|yes|no|on|off|null|none|\d{1,4}", re.IGNORECASE)
# A port stands after a colon too, as in hdfs://host:8020/a@b; what separates it from the rest tells them apart.
_PASSWORD_IN_URL = re.compile(r"://(?!\[)[^/@\s:]*:(?!\d{1,5}[/?#,;])[^@\s]+@")
_IN_URL = (
    (_PASSWORD_IN_URL, "user:password@"),
    (
        re.compile(r"\bjdbc:oracle:\w+:(?:\"[^\"]*\"|[^/@\s\"]+)/(?:\"[^\"]*\"|[^@\s]+)@", re.IGNORECASE),
        "user/password@",
    ),
)
_USER_IN_JDBC = re.compile(r"//[^/?;@\s]+@")
_TOKENS = (
    (re.compile(r"-----BEGIN [A-Z ]*PRIVATE KEY-----"), "a private key"),
    (re.compile(r"\beyJ[\w-]{8,}\.[\w-]{8,}\.[\w-]*"), "a JSON web token"),
    (re.compile(r"\b(?:gh[opsur]_\w{20,}|github_pat_\w{20,}|glpat-[\w-]{20,}|xox[abprs]-[\w-]{10,}|dapi[0-9a-f]{32}"
                r"|hf_[A-Za-z]{30,}|sk-[\w-]{20,})\b"), "an access token"),
    (re.compile(r"\b(?:bearer|basic)\s+(?=[\w+/=.~-]*\d)[\w+/=.~-]{16,}", re.IGNORECASE), "an authorization"),
)  # fmt: skip
_SQL = frozenset({"filter", "query", "expression"})
"""Settings that are SQL, where name = 'value' is a comparison: only the texts in quotes are looked at."""
_MOST_SHOWN = 200
ENVIRONMENT = (
    "set environment variables: MLSPARK_JDBC_USER and MLSPARK_JDBC_PASSWORD (or what user_variable and password_variable "
    "name), MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or MLFLOW_TRACKING_TOKEN), AWS_*"
)
"""Where credentials are taken from."""


def secret_in(text: str) -> str | None:
    """Return the form of the first secret in `text`, without the secret: "password=..."; None where there is none.

    In a JDBC URL the user's name counts too.
    """
    for pattern, form in _IN_URL:
        if pattern.search(text):
            return form
    is_jdbc = "jdbc:" in text.lower()
    for name, value in _pairs(text):
        if _is_secret(name, value) or (is_jdbc and value and _USER_NAME.fullmatch(name)):
            return f"{name}=..."
    if is_jdbc and _USER_IN_JDBC.search(text):
        return "user@"
    return next((form for pattern, form in _TOKENS if pattern.search(text)), None)


def is_secret_name(name: str) -> bool:
    """Return whether a setting of this name would hold a secret: password, token, sslpassword, account_key, ..."""
    return _is_secret(name, "x" * 8)


def refuse(values: Any, *, at: str = "") -> None:
    """Refuse settings that hold what looks like a secret.

    Args:
        values: a text, or a list or mapping of such, nested.
        at: key of `values`, as messages name it.

    Raises:
        ConfigError: names the key, the form of the secret and where it belongs; never the secret.
    """
    for key, text in _texts(values, at):
        last = re.split(r"[ .]", key)[-1]
        parts = re.findall(r"'((?:[^']|'')*)'|\"([^\"]*)\"", text) if last in _SQL else [(text, "")]
        form = next((form for pair in parts for part in pair if (form := secret_in(part))), None)
        if form is not None:
            raise ConfigError(
                f"{f'{key}: ' if key else ''}holds what looks like a secret ({form}), and settings are kept with runs; "
                f"take it out, and {ENVIRONMENT}"
            )


def shown(key: str, value: Any) -> str:
    """Return a value of setting `key` that is refused, as a message may repeat it: cut, and nothing that may be a secret."""
    if re.search("password|secret|token", key, re.IGNORECASE):
        return "another"
    if isinstance(value, Mapping):
        return f"a section of {', '.join(map(repr, value)) or 'no keys'}"[:_MOST_SHOWN]
    if isinstance(value, list) and any(isinstance(item, Mapping | list) for item in value):
        return f"a list of {len(value)}"
    return repr(value)[:_MOST_SHOWN]


def refuse_in_uri(uri: str) -> None:
    """Refuse a URI with user:password@ in it, whatever else its path looks like.

    Raises:
        ConfigError: names the URI without the two.
    """
    if "@" in uri and _PASSWORD_IN_URL.search(uri):
        raise ConfigError(f"{masked(uri)}: holds user:password@; take it out, and {ENVIRONMENT}")


def masked(url: str) -> str:
    """Return a URL as it may be shown: without user and password."""
    return re.sub(r"://[^/@\s]*@", "://", _PASSWORD_IN_URL.sub("://", url))


def _texts(values: Any, at: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, str):
        yield at, values
    elif isinstance(values, Mapping):
        for key, value in values.items():
            yield from _texts(value, f"{at}.{key}" if at else str(key))
    elif isinstance(values, list | tuple):
        for place, value in enumerate(values):
            yield from _texts(value, f"{at}.{place}" if at else str(place))


def _pairs(text: str) -> Iterator[tuple[str, str]]:
    for pair in _PAIR.finditer(text):
        yield pair["name"], pair["value"].strip("\"'{}")


def _is_secret(name: str, value: str) -> bool:
    words = _CAMEL.sub("_", name)
    if not value:
        return False
    if _PASSWORD_NAME.search(words):
        return True
    return bool(_SECRET_NAME.search(words)) and not _HARMLESS_VALUE.fullmatch(value)
