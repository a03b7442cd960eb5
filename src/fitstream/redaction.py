"""Credentials out of text that people will read, keep and send around: messages, reprs, reports, states.

What is looked for is what URLs carry: a user and password before the host, and parameters whose names say that their
value is secret. Paths that were joined or normalised have lost a slash (`https:/user:pw@host`), so one will do. Text
that looks like a secret and is none is lost with them; that is the better mistake.
"""

from __future__ import annotations

import re

__all__ = ["redacted"]

_HIDDEN = "***"

# Compiled at first use, since importing must be quick. Lengths are bounded, so that long text takes no more than linear
# time.
# A password may hold "/" and "@", as cloud keys do: up to the last "@" all is secret. A port, and a path behind it,
# are told from a password by the digits.
_USER = (
    r"(?P<scheme>\b[a-z][a-z0-9+.\-]{1,30}:/{1,3})"
    r"(?:[^\s/?#@:'\"<>]{0,256}:(?!\d{1,5}[/\s?#'\"])[^\s?#'\"<>]{0,2048}|[^\s/?#'\"<>]{1,2048})@"
)
_PARAMETER = (
    r"(?P<name>[?&;#](?:[\w.~%\[\]\-]{0,64}"
    r"(?:token|secret|passw|pwd|signature|credential|auth|session|api[_\-]?key|access[_\-]?key)[\w.~%\[\]\-]{0,64}"
    r"|key|pass|sig|sas|code|jwt|user|username)=)[^&;#\s'\"<>]{0,4096}[^&;#\s'\"<>).,:\]}]"
)


def redacted(text: str) -> str:
    """The same text with the credentials of URLs in it replaced by `***`.

    Example:
        >>> redacted("https://me:secret@host/a.jpg?size=3&token=abc")
        'https://***@host/a.jpg?size=3&token=***'
    """
    if "@" in text and ":/" in text:
        text = re.sub(_USER, rf"\g<scheme>{_HIDDEN}@", text, flags=re.IGNORECASE)
    if "=" in text:
        text = re.sub(_PARAMETER, rf"\g<name>{_HIDDEN}", text, flags=re.IGNORECASE)
    return text
