"""Numbers that prove themselves: what only looks like an account or an identity number is not taken for one."""

from __future__ import annotations

import string

_IBAN_COUNTRIES = {
    15: "NO",
    16: "BE",
    18: "DK FI FK FO GL NL SD",
    19: "MK SI",
    20: "AT BA EE KZ LT LU MN XK",
    21: "CH HR LI LV",
    22: "BG BH CR DE GB GE IE ME RS VA",
    23: "AE GI IL IQ OM SO TL",
    24: "AD CZ ES MD PK RO SA SE SK TN VG",
    25: "LY PT ST",
    26: "IS TR",
    27: "BI DJ FR GR IT MC MR SM",
    28: "AL AZ BY CY DO GT HN HU LB NI PL SV",
    29: "BR EG PS QA UA",
    30: "JO KW MU YE",
    31: "MT SC",
    32: "LC",
    33: "RU",
}
"""By the length of their account numbers: SWIFT, IBAN Registry."""
_IBAN_LENGTHS = {country: length for length, countries in _IBAN_COUNTRIES.items() for country in countries.split()}
_ODD_WORTHS = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21) * 2 + (2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
_ODD = dict(zip(string.digits + string.ascii_uppercase, _ODD_WORTHS, strict=True))
"""Worth of a character at an odd place of a codice fiscale (D.M. 23.12.1976)."""
_DNI_LETTERS = "TRWAGMYFPDXBNJZSQVHLCKE"


def iban_length(country: str) -> int | None:
    return _IBAN_LENGTHS.get(country)


def is_iban(number: str) -> bool:
    """ISO 13616: `number` without spaces, upper case."""
    if len(number) != iban_length(number[:2]) or not number[2:4].isdecimal():
        return False
    return int("".join(str(int(char, 36)) for char in number[4:] + number[:4])) % 97 == 1


def is_card(digits: str) -> bool:
    """A payment card: a network's first digits and length, and the check digit of ISO/IEC 7812."""
    return _has_network(digits) and _luhn(digits)


def _has_network(digits: str) -> bool:
    two, four = int(digits[:2]), int(digits[:4])
    match len(digits):
        case 15:
            return two in (34, 37)
        case 16:
            is_mastercard = 51 <= two <= 55 or 2221 <= four <= 2720
            return digits[0] == "4" or is_mastercard or two in (35, 65) or four == 6011
        case 19:
            return digits[0] == "4" or two in (62, 65)
        case _:
            return False


def _luhn(digits: str) -> bool:
    doubled = (sum(divmod(2 * int(digit), 10)) for digit in digits[-2::-2])
    return (sum(map(int, digits[-1::-2])) + sum(doubled)) % 10 == 0


def is_codice_fiscale(code: str) -> bool:
    """Italy: sixteen characters, upper case, the last one the check."""
    even = (int(char) if char.isdecimal() else ord(char) - ord("A") for char in code[1:15:2])
    worth = sum(_ODD[char] for char in code[0:15:2]) + sum(even)
    return code[15] == chr(ord("A") + worth % 26)


def is_cpf(digits: str) -> bool:
    """Brazil: eleven digits, the last two the checks."""
    if len(set(digits)) == 1:
        return False
    return all(
        int(digits[end]) == 10 * sum(int(digits[i]) * (end + 1 - i) for i in range(end)) % 11 % 10 for end in (9, 10)
    )


def is_dni(number: str) -> bool:
    """Spain, DNI and NIE: eight digits, or X, Y, Z and seven, and a letter."""
    digits = str("XYZ".index(number[0])) + number[1:-1] if number[0] in "XYZ" else number[:-1]
    return number[-1] == _DNI_LETTERS[int(digits) % 23]
