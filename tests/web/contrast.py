"""How well text stands out from what is behind it: https://www.w3.org/TR/WCAG22/#contrast-minimum"""

from __future__ import annotations

import re
from typing import Any

from chromium import Tab

MIN_RATIO = 4.5
TEXTS = """
[...document.querySelectorAll('body *')].filter((one) =>
    [...one.childNodes].some((node) => node.nodeType === 3 && node.textContent.trim()) &&
    one.getClientRects().length && !one.closest(':disabled, script, style, option') &&
    one.getBoundingClientRect().right > 0
).map((one) => {
    const behind = [];
    for (let each = one; each; each = each.parentElement) behind.push(getComputedStyle(each).backgroundColor);
    return {text: one.innerText.trim().slice(0, 40), what: `${one.tagName}.${one.className}`,
            color: getComputedStyle(one).color, behind};
})
"""

Rgb = tuple[float, float, float]


def too_faint(tab: Tab) -> list[str]:
    """Returns the texts of the page whose contrast is below what people with weak eyes can read."""
    found = {
        f"{entry['what']} {entry['text']!r}: {_ratio(entry):.2f}"
        for entry in tab.js(TEXTS)
        if _ratio(entry) < MIN_RATIO
    }
    return sorted(found)


def _ratio(entry: dict[str, Any]) -> float:
    ground: Rgb = (255, 255, 255)
    for layer in reversed(entry["behind"]):
        ground = _over(layer, ground)
    light, dark = sorted((_luminance(_over(entry["color"], ground)), _luminance(ground)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _over(color: str, ground: Rgb) -> Rgb:
    """Returns a colour as the browser writes it, seen on another."""
    red, green, blue, *alpha = map(float, re.findall(r"[\d.]+", color))
    share = alpha[0] if alpha else 1.0
    mixed = [share * top + (1 - share) * below for top, below in zip((red, green, blue), ground, strict=True)]
    return mixed[0], mixed[1], mixed[2]


def _luminance(color: Rgb) -> float:
    red, green, blue = (
        part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in (c / 255 for c in color)
    )
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue
