"""A terminal's output as SVG, by rich: with colours for light and dark, and fonts of the viewer alone."""

from __future__ import annotations

import io
import re

from rich.console import Console
from rich.terminal_theme import DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME, TerminalTheme
from rich.text import Text

from cni.diag.drawing.palette import DARK, FONTS, LIGHT

NAME = "terminal"  # before the names of rich's classes
CHARACTER = 0.602  # of a monospaced font: its width by its height
# rich's own format loads a font from the network.
FORMAT = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{{width}}" height="{{height}}" viewBox="0 0 {{width}} {{height}}">
<style>.{{unique_id}}-matrix{{{{font:{{char_height}}px {fonts}}}}}{rules}</style>
<rect class="back" width="100%" height="100%" rx="8"/>
<g class="button"><circle cx="22" cy="20" r="6"/><circle cx="42" cy="20" r="6"/><circle cx="62" cy="20" r="6"/></g>
<g transform="translate({{terminal_x}}, {{terminal_y}})">
{{backgrounds}}<g class="{{unique_id}}-matrix">{{matrix}}</g>
</g>
</svg>
"""


def terminal_svg(output: str) -> str:
    """Returns a picture of text with escape sequences, as wide as its longest line."""
    text = Text.from_ansi(output.rstrip("\n"))
    width = max([line.cell_len for line in text.split("\n")]) + 1
    light, dark = (_exported(text, width, theme) for theme in (DEFAULT_TERMINAL_THEME, SVG_EXPORT_THEME))
    light_rules, dark_rules = _rules(light), _rules(dark)
    if light_rules.keys() != dark_rules.keys():
        raise ValueError("a colour of one theme is two of the other")
    rules = f"{_window(LIGHT)}{''.join(light_rules.values())}"
    rules += f"@media(prefers-color-scheme:dark){{{_window(DARK)}{''.join(dark_rules.values())}}}"
    return _exported(text, width, DEFAULT_TERMINAL_THEME, rules)


def _exported(text: Text, width: int, theme: TerminalTheme, rules: str = "{styles}") -> str:
    console = Console(record=True, width=width, file=io.StringIO(), force_terminal=True, color_system="standard")
    console.print(text, no_wrap=True)
    escaped = rules if rules == "{styles}" else rules.replace("{", "{{").replace("}", "}}")
    code_format = FORMAT.format(fonts=FONTS, rules=escaped)
    svg = console.export_svg(theme=theme, code_format=code_format, font_aspect_ratio=CHARACTER, unique_id=NAME)
    svg = re.sub(r' clip-path="[^"]*"', "", svg)  # nothing is wider than the terminal
    svg = re.sub(r'="(\d+\.\d{3,})"', lambda number: f'="{float(number[1]):.1f}"', svg)
    return re.sub(r"\s*\n\s*", "\n", svg)


def _rules(svg: str) -> dict[str, str]:
    """Returns the rules of classes by class."""
    return {match[1]: match[0] for match in re.finditer(rf"\.({NAME}-r\d+) {{[^}}]*}}", svg)}


def _window(palette: dict[str, str]) -> str:
    return f".back{{fill:{palette['frame']}}}.button{{fill:{palette['line']}}}"
