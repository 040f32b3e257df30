"""Card numbers never get in: what looks like one is refused in every text field, before anything is stored or logged.

The shape is that of ISO/IEC 7812: 13 to 19 digits that begin like a card's and pass the Luhn check, also when written with spaces
or dashes. On the same way through a message NUL is refused, which Postgres cannot store in a text.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf.message import Message

LOOKS_LIKE_A_CARD: Final = "looks like a card number; this API takes Stripe payment method ids only"
HOLDS_NUL: Final = "must not hold the character NUL (U+0000)"
# Hashed before anything else happens, and never kept as text: a password may be any characters.
_HASHED: Final = frozenset({"password", "current_password", "new_password"})
_DIGITS: Final = re.compile(r"(?<![0-9A-Za-z])[2-6](?:[ -]?[0-9]){12,18}(?![0-9A-Za-z])")
# Request ids are UUIDs, and one in some thousands has groups of digits that would pass for a card.
_UUID: Final = re.compile(r"(?<![0-9A-Za-z])[0-9A-Fa-f]{8}-(?:[0-9A-Fa-f]{4}-){3}[0-9A-Fa-f]{12}(?![0-9A-Za-z])")


def holds_card_number(text: str) -> bool:
    """Tell whether a text holds what looks like a card number."""
    return any(_luhn(found[0]) for found in _DIGITS.finditer(_UUID.sub("|", text)))


def _luhn(text: str) -> bool:
    digits = [int(character) for character in text if character.isdigit()]
    doubled = [digit * 2 - 9 if digit > 4 else digit * 2 for digit in digits[-2::-2]]
    return (sum(doubled) + sum(digits[-1::-2])) % 10 == 0


def _unfit(text: str) -> str | None:
    if "\0" in text:
        return HOLDS_NUL
    return LOOKS_LIKE_A_CARD if holds_card_number(text) else None


def unfit_texts(message: Message, path: str = "") -> Iterator[tuple[str, str]]:
    """Yield (path, why) for each text field that holds what may not be in a text, map keys and values included."""
    for field, value in message.ListFields():
        place = f"{path}.{field.name}" if path else field.name
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            for key, child in value.items():
                if isinstance(child, Message):
                    yield from unfit_texts(child, place)
                elif why := _unfit(f"{key}\n{child}"):
                    yield place, why
        elif field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from unfit_texts(child, place)
        elif field.type == field.TYPE_STRING and field.name not in _HASHED:
            texts = value if field.is_repeated else (value,)
            if why := next(filter(None, map(_unfit, texts)), None):
                yield place, why
