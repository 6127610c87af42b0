"""Unicode's groups of emoji and blocks of characters by code point, and the names of emoji.

The groups are those of emoji-test.txt, Unicode 17.0 (https://www.unicode.org/reports/tr51/), the blocks those of
Blocks.txt. The code points of a group or block are written here as ranges. A sequence of code points belongs to the
group of its first code point, except for flags, keycaps and the sequences in `_SPECIAL`.

The ranges are data of Unicode, not of this project: copyright 1991-2025 Unicode, Inc., under the Unicode License V3
(https://www.unicode.org/license.txt), which allows to copy and change them with this notice.
"""

from __future__ import annotations

import unicodedata
from bisect import bisect_right

EXTRAS = "extras"
"""The group of drawings that are not emoji of Unicode: a designer's own code points, plain characters."""
_GROUP_RANGES = {
    "smileys-emotion": """
        2620 2639-263A 2763-2764 1F479-1F47B 1F47D-1F480 1F48B-1F48C 1F493-1F49F 1F4A2 1F4A4-1F4A6 1F4A8-1F4A9
        1F4AB-1F4AD 1F4AF 1F573 1F5A4 1F5E8-1F5EF 1F600-1F644 1F648-1F64A 1F90D-1F90E 1F910-1F917 1F920-1F925
        1F927-1F92F 1F970-1F976 1F978-1F97A 1F9D0 1F9E1 1FA75-1FA77 1FAE0-1FAE5 1FAE8-1FAEF
    """,
    "people-body": """
        261D 26F7 26F9 270A-270D 1F385 1F3C2-1F3C4 1F3C7 1F3CA-1F3CC 1F440-1F450 1F463-1F478 1F47C 1F481-1F483
        1F485-1F487 1F48F 1F491 1F4AA 1F574-1F575 1F57A 1F590-1F596 1F5E3 1F645-1F647 1F64B-1F64F 1F6A3 1F6B4-1F6B6
        1F6C0 1F6CC 1F90C 1F90F 1F918-1F91F 1F926 1F930-1F93E 1F977 1F9B4-1F9B9 1F9BB 1F9BE-1F9BF 1F9CC-1F9CF
        1F9D1-1F9E0 1FAC0-1FAC8 1FAE6 1FAF0-1FAF8
    """,
    "component": """
        1F3FB-1F3FF 1F9B0-1F9B3
    """,
    "animals-nature": """
        2618 1F331-1F335 1F337-1F33C 1F33E-1F344 1F3F5 1F400-1F43F 1F490 1F4AE 1F54A 1F577-1F578 1F940 1F980-1F9AE
        1FAB0-1FAB4 1FAB6-1FABF 1FACD-1FACF
    """,
    "food-drink": """
        2615 1F32D-1F330 1F336 1F33D 1F345-1F37F 1F382 1F3FA 1F52A 1F942-1F944 1F950-1F96F 1F9C0-1F9CB 1FAD0-1FADC
    """,
    "travel-places": """
        231A-231B 23F0-23F3 2600-2604 2614 2668 2693 26A1 26C4-26C8 26E9-26F2 26F4-26F5 26FA-26FD 2708 2744 2B50
        1F300-1F32C 1F3A0-1F3A2 1F3AA 1F3CD-1F3CE 1F3D4-1F3E6 1F3E8-1F3ED 1F3EF-1F3F0 1F488 1F492 1F4A7 1F4BA 1F525
        1F54B-1F54D 1F550-1F567 1F570 1F5FA-1F5FE 1F680-1F6A2 1F6A4-1F6A8 1F6B2 1F6CE 1F6D1 1F6D5-1F6D6 1F6D8
        1F6DD-1F6DF 1F6E2-1F6F6 1F6F8-1F6FC 1F9BC-1F9BD 1F9ED 1F9F1 1F9F3 1FA82 1FA90 1FAA8 1FAB5
    """,
    "activities": """
        265F-2666 26BD-26BE 26F3 26F8 2728 1F004-1F0CF 1F380-1F381 1F383-1F384 1F386-1F38B 1F38D-1F391 1F396-1F397
        1F39F 1F3A3 1F3A8 1F3AB 1F3AD-1F3B4 1F3BD-1F3C0 1F3C5-1F3C6 1F3C8-1F3C9 1F3CF-1F3D3 1F3F8 1F52B 1F52E 1F579
        1F5BC 1F6F7 1F93F 1F945-1F94F 1F9E7-1F9E9 1F9F5-1F9F6 1F9F8 1FA80-1FA81 1FA84-1FA86 1FAA1-1FAA2 1FAA9
    """,
    "objects": """
        2328 260E 2692 2694 2696-2699 26B0-26B1 26CF-26D3 2702 2709 270F-2712 1F392-1F393 1F399-1F39E 1F3A4-1F3A5
        1F3A7 1F3A9 1F3AC 1F3B5-1F3BC 1F3EE 1F3F7 1F3F9 1F451-1F462 1F484 1F489-1F48A 1F48D-1F48E 1F4A1 1F4A3 1F4B0
        1F4B3-1F4B9 1F4BB-1F4DA 1F4DC-1F4F2 1F4F7-1F4FF 1F507-1F517 1F526-1F529 1F52C-1F52D 1F56F 1F576 1F587-1F58D
        1F5A5-1F5B2 1F5C2-1F5E1 1F5F3 1F5FF 1F6AA 1F6AC 1F6BD 1F6BF 1F6C1 1F6CB 1F6CD 1F6CF 1F6D2 1F6D7 1F6E0-1F6E1
        1F941 1F97B-1F97F 1F9AF 1F9BA 1F9E2-1F9E6 1F9EA-1F9EC 1F9EE-1F9F0 1F9F2 1F9F4 1F9F7 1F9F9-1FA74 1FA78-1FA7C
        1FA83 1FA87-1FA8F 1FA91-1FAA0 1FAA3-1FAA7 1FAAA-1FAAE 1FAE7
    """,
    "symbols": """
        A9-2049 2122-21AA 23CF-23EF 23F8-23FA 24C2 25AA-25AB 25B6-25C0 25FB-25FE 2611 2622-2638 2640-2653 267B-267F
        2695 269B-26A0 26A7-26AB 26CE 26D4 2705 2714-2721 2733-2734 2747-2757 2795-2B07 2B1B-2B1C 2B55 3030-3299
        1F170-1F19A 1F201-1F251 1F3A6 1F3E7 1F4A0 1F4B1-1F4B2 1F4DB 1F4F3-1F4F6 1F500-1F506 1F518-1F524 1F52F-1F549
        1F54E 1F6AB 1F6AD-1F6B1 1F6B3 1F6B7-1F6BC 1F6BE 1F6C2-1F6C5 1F6D0 1F6DC 1F7E0-1F7F0 1FAAF 1FADF
    """,
    "flags": """
        1F38C 1F3C1 1F3F3-1F3F4 1F6A9
    """,
}
GROUPS = (*_GROUP_RANGES, EXTRAS)
_BLOCK_RANGES = """
    0 7F Basic Latin
    80 FF Latin-1 Supplement
    2000 206F General Punctuation
    20D0 20FF Combining Diacritical Marks for Symbols
    2100 214F Letterlike Symbols
    2190 21FF Arrows
    2200 22FF Mathematical Operators
    2300 23FF Miscellaneous Technical
    2460 24FF Enclosed Alphanumerics
    25A0 25FF Geometric Shapes
    2600 26FF Miscellaneous Symbols
    2700 27BF Dingbats
    2900 297F Supplemental Arrows-B
    2B00 2BFF Miscellaneous Symbols and Arrows
    3000 303F CJK Symbols and Punctuation
    3200 32FF Enclosed CJK Letters and Months
    E000 F8FF Private Use Area
    1F000 1F02F Mahjong Tiles
    1F0A0 1F0FF Playing Cards
    1F100 1F1FF Enclosed Alphanumeric Supplement
    1F200 1F2FF Enclosed Ideographic Supplement
    1F300 1F5FF Miscellaneous Symbols and Pictographs
    1F600 1F64F Emoticons
    1F680 1F6FF Transport and Map Symbols
    1F780 1F7FF Geometric Shapes Extended
    1F900 1F9FF Supplemental Symbols and Pictographs
    1FA70 1FAFF Symbols and Pictographs Extended-A
    1FB00 1FBFF Symbols for Legacy Computing
"""
OTHER_BLOCKS = "other blocks"
_SKIN_TONES = {
    0x1F3FB: "light skin tone",
    0x1F3FC: "medium-light skin tone",
    0x1F3FD: "medium skin tone",
    0x1F3FE: "medium-dark skin tone",
    0x1F3FF: "dark skin tone",
}
SKIN_TONES = ("none", *(name.removesuffix(" skin tone") for name in _SKIN_TONES.values()))
"""No skin tone, then Unicode's five, from light to dark."""
_VARIATION, _JOINER, _KEYCAP, _CANCEL_TAG = 0xFE0F, 0x200D, 0x20E3, 0xE007F
_FLAG_STARTS = (0x1F3F3, 0x1F3F4)  # white and black flag
_SPECIAL = {  # sequences that belong to another group than their first code point
    (0x1F441, _JOINER, 0x1F5E8): "smileys-emotion",
    (0x1F344, _JOINER, 0x1F7EB): "food-drink",
}

Ranges = list[tuple[int, int, str]]
"""(first code point, last code point, name), sorted by the first."""


def _group_ranges() -> Ranges:
    found: Ranges = []
    for group, text in _GROUP_RANGES.items():
        for part in text.split():
            first, _, last = part.partition("-")
            found.append((int(first, 16), int(last or first, 16), group))
    return sorted(found)


def _block_ranges() -> Ranges:
    rows = [line.split(maxsplit=2) for line in _BLOCK_RANGES.strip().splitlines()]
    return [(int(first, 16), int(last, 16), name) for first, last, name in rows]


_GROUP_OF, _BLOCK_OF = _group_ranges(), _block_ranges()


def _lookup(ranges: Ranges, code_point: int, otherwise: str) -> str:
    place = bisect_right(ranges, code_point, key=lambda entry: entry[0]) - 1
    return ranges[place][2] if place >= 0 and code_point <= ranges[place][1] else otherwise


def blocks() -> tuple[str, ...]:
    """Names of the known blocks in the order of their code points, and one name for all other blocks."""
    return (*(name for _, _, name in _BLOCK_OF), OTHER_BLOCKS)


def block_of(code_points: tuple[int, ...]) -> str:
    """The block of a sequence's first code point."""
    return _lookup(_BLOCK_OF, code_points[0], OTHER_BLOCKS)


def is_regional_indicator(code_point: int) -> bool:
    """Whether it is one of the letters that spell flags."""
    return 0x1F1E6 <= code_point <= 0x1F1FF


def group_of(code_points: tuple[int, ...]) -> str:
    """The group that a sequence belongs to: one of GROUPS."""
    essential = tuple(point for point in code_points if point != _VARIATION)
    if essential in _SPECIAL:
        return _SPECIAL[essential]
    if len(essential) > 1:
        if all(map(is_regional_indicator, essential)) or essential[0] in _FLAG_STARTS:
            return "flags"
        if essential[-1] == _KEYCAP:
            return "symbols"
    return _lookup(_GROUP_OF, essential[0], EXTRAS)


def has_skin_tone(code_points: tuple[int, ...]) -> bool:
    """Whether the emoji is a variant in a skin tone; the sample of a skin tone itself is not."""
    return len(code_points) > 1 and any(point in _SKIN_TONES for point in code_points)


def skin_tone_of(code_points: tuple[int, ...]) -> int | None:
    """Position in `SKIN_TONES`: 0 without a skin tone. None for several people of different skin tones."""
    found = [list(_SKIN_TONES).index(point) + 1 for point in code_points if point in _SKIN_TONES]
    return found[0] if len(found) == 1 else None if found else 0


def without_skin_tone(code_points: tuple[int, ...]) -> tuple[int, ...]:
    """Whom an emoji shows, the same in all skin tones."""
    return tuple(point for point in code_points if point not in (*_SKIN_TONES, _VARIATION))


def name_of(code_points: tuple[int, ...]) -> str:
    """A sequence's name in lower case, made of the names of its characters in this Python's `unicodedata`.

    A code point without a name (a designer's own, or newer than `unicodedata.unidata_version`) is written as U+....
    """
    essential = [point for point in code_points if point not in (_VARIATION, _JOINER)]
    if len(essential) > 1 and all(map(is_regional_indicator, essential)):
        return "flag " + "".join(chr(point - 0x1F1E6 + ord("A")) for point in essential)
    if essential[-1] == _CANCEL_TAG:
        return "flag " + "".join(chr(point - 0xE0000) for point in essential[1:-1]).upper()
    if len(essential) > 1 and essential[-1] == _KEYCAP:
        return "keycap " + "".join(map(chr, essential[:-1]))
    names = [
        _SKIN_TONES.get(point) or unicodedata.name(chr(point), "").lower() or f"U+{point:04X}" for point in essential
    ]
    return ", ".join(names)
