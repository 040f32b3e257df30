"""Card numbers never get in: what looks like one is refused in every text field, before anything is stored or logged.

The shape is that of ISO/IEC 7812: 13 to 19 digits that begin like a card's and pass the Luhn check, also when written with spaces
or dashes.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from google.protobuf.message import Message

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


def fields_with_card_numbers(message: Message, path: str = "") -> Iterator[str]:
    """Yield the path of each text field that holds what looks like a card number, map keys and values included."""
    for field, value in message.ListFields():
        place = f"{path}.{field.name}" if path else field.name
        is_map = field.message_type is not None and field.message_type.GetOptions().map_entry
        if is_map:
            for key, child in value.items():
                if isinstance(child, Message):
                    yield from fields_with_card_numbers(child, place)
                elif any(holds_card_number(str(text)) for text in (key, child)):
                    yield place
        elif field.message_type is not None:
            for child in value if field.is_repeated else (value,):
                yield from fields_with_card_numbers(child, place)
        elif field.type == field.TYPE_STRING and field.name not in _HASHED:
            texts = value if field.is_repeated else (value,)
            if any(holds_card_number(text) for text in texts):
                yield place
