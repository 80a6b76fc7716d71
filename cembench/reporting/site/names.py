"""Names of pages: folders and anchors that are safe on every system and in every address."""

from __future__ import annotations

import re
import unicodedata

from cembench.util.files import digest
from cembench.util.files.names import file_name

LONGEST = 60
DERIVED = re.compile(r"-[0-9a-f]{12}")


def page_name(text: str, *identity: object) -> str:
    """Return the name of a page, which depends on nothing but what is given.

    It has lower-case ASCII letters, digits and `._-`. Unless `text` is such a name already, and
    there is nothing else to tell it by, it ends with a digest, so unlike texts have unlike names,
    also where case or accents do not count.

    Args:
        text: for people to recognise; any text.
        identity: plain values that tell it from others of the same text.
    """
    plain = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    plain = re.sub(r"[^a-z0-9._]+", "-", plain)[:LONGEST].strip("-._")
    if plain == text and not identity and not DERIVED.search(plain) and _possible(plain):
        return plain
    return f"{plain or 'x'}-{digest([text, *map(str, identity)])}"


def _possible(name: str) -> bool:
    try:
        return bool(file_name(name))
    except ValueError:
        return False
