"""Text that others wrote (names of files and weights, messages), made safe to show: what would act becomes visible."""

from __future__ import annotations

import json
import re

# C0 and C1 controls but for the line feed, lone surrogates, and what turns the direction of text or hides in it
# (Unicode TR 36: bidirectional embeddings, overrides, isolates and marks; zero-width; line and paragraph separators)
_ACTING = re.compile(
    "[\x00-\x09\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff\ufff9-\ufffb\ud800-\udfff"
    "\U000e0000-\U000e007f]"
)


def shown_text(text: str) -> str:
    """Return the text with what would act on a terminal written out; line feeds stay, tabs become spaces."""
    return _ACTING.sub(_escaped, text.replace("\t", " "))


def shown_json(text: str) -> str:
    """Return a JSON document that means the same, with these characters as JSON's own escapes."""
    return _ACTING.sub(lambda match: json.dumps(match[0])[1:-1], text)


def _escaped(match: re.Match[str]) -> str:
    code = ord(match[0])
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"
