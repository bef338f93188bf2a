"""Patterns of personal data that shoppers paste into a search box.

The expressions are read by both RE2 (in DuckDB) and Python, so they look neither ahead nor behind.
"""

from __future__ import annotations

import re

EMAIL = r"[A-Za-z0-9._%+-]+@[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)*\.[A-Za-z]{2,}"

CARD = r"\b(?:[0-9][ -]?){13,18}[0-9]\b"
"""What may be a payment card's number; ``has_card`` tells."""

PHONE = (
    r"\+[0-9][0-9 ().-]{7,16}[0-9]"
    r"|\b[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{4}\b"
    r"|\([0-9]{3}\) ?[0-9]{3}[ .-][0-9]{4}\b"
    r"|\b0[0-9]{2,4}[ /-][0-9]{5,8}\b"
)
"""International, North American, and national with a leading 0. Part numbers look alike."""

_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
IP = rf"\b(?:{_BYTE}\.){{3}}{_BYTE}\b|\b(?:[0-9a-fA-F]{{1,4}}:){{7}}[0-9a-fA-F]{{1,4}}\b"
"""IPv4, and IPv6 written out. Version numbers look alike."""

_ISSUERS = re.compile(
    r"4[0-9]{15}(?:[0-9]{3})?"  # Visa; its 13 digits of old look like a barcode
    r"|(?:5[1-5]|2[2-7])[0-9]{14}"  # Mastercard
    r"|3[47][0-9]{13}"  # American Express
    r"|3(?:0[0-5]|[68][0-9])[0-9]{11}"  # Diners Club
    r"|(?:6011|65[0-9]{2}|64[4-9][0-9]|35[2-8][0-9])[0-9]{12}"  # Discover, JCB
    r"|62[0-9]{14,17}"  # UnionPay
)


def has_card(text: str) -> bool:
    """Whether ``text`` holds a payment card's number: an issuer's prefix, and Luhn's sum right.

    Barcodes of 8 to 13 digits, which shoppers do search for, are no issuer's.

    >>> has_card("paid with 4111 1111 1111 1111")
    True
    >>> has_card("4111 1111 1111 1112")
    False
    >>> has_card("9780306406157")
    False
    """
    return any(map(_is_card, re.findall(CARD, text)))


def mask(text: str) -> str:
    """``text`` with what looks like personal data named instead of shown.

    >>> mask("write to shopper@example.com")
    'write to [e-mail]'
    """
    text = re.sub(EMAIL, "[e-mail]", text)
    text = re.sub(CARD, lambda match: "[card]" if _is_card(match[0]) else match[0], text)
    return re.sub(PHONE, "[phone]", re.sub(IP, "[ip]", text))


def _is_card(number: str) -> bool:
    digits = re.sub("[ -]", "", number)
    return _ISSUERS.fullmatch(digits) is not None and _luhn(digits) % 10 == 0


def _luhn(digits: str) -> int:
    """Luhn's sum: every second digit from the right counts double, its own digits added up."""
    doubled = [sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2]]
    return sum(doubled) + sum(map(int, digits[-1::-2]))
