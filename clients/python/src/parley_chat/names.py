"""Names of rooms and users, compared by the rules of the server. Pure."""

from __future__ import annotations

from typing import Final
from unicodedata import normalize

OLD_FORMS: Final = (ord("ς"), *range(0x1C80, 0x1C89))
"""Letters whose small form has a usual one."""
MAPPED: Final = {code: chr(code).upper().lower() for code in OLD_FORMS} | {0x200C: "", 0x200D: ""}
"""The usual letters, and no joiners."""


def fold(name: str) -> str:
    """Returns the key of a name. Names that differ only in case, width, joiners or old forms of letters are the same.

    `casefold` would map `ß` to `ss`, which the server keeps apart.
    """
    return normalize("NFKC", name.lower().translate(MAPPED))
