"""The colours of drawings, for light and dark. Rules instead of variables, which some viewers of SVG do not know."""

from __future__ import annotations

from typing import TYPE_CHECKING

from cni.diag.drawing.figure import BAD, BRIDGE, CLUSTER, DIM, NODE, OTHER, PLAIN, POD, TITLE, TUNNEL, UPLINK

if TYPE_CHECKING:
    from collections.abc import Mapping

FONTS = "ui-monospace,'DejaVu Sans Mono',Menlo,Consolas,monospace"
LABEL = "label"  # the tone of a section's label
LIGHT = {
    "back": "#ffffff", "frame": "#f3f5f8", "line": "#8c959f", "card": "#ffffff", "broken": "#fff1f0",
    TITLE: "#0d1117", PLAIN: "#24292f", DIM: "#57606a", LABEL: "#57606a", BAD: "#b3261e",
    NODE: "#24292f", CLUSTER: "#6639ba", UPLINK: "#0a7d91", TUNNEL: "#bc4c00", BRIDGE: "#0969da", POD: "#1a7f37",
    OTHER: "#8c959f",
}  # fmt: skip
DARK = {
    "back": "#0d1117", "frame": "#161b22", "line": "#6e7681", "card": "#0d1117", "broken": "#2d1316",
    TITLE: "#f0f6fc", PLAIN: "#d1d7e0", DIM: "#9da7b1", LABEL: "#9da7b1", BAD: "#ff8a80",
    NODE: "#d1d7e0", CLUSTER: "#bc8cff", UPLINK: "#56d4dd", TUNNEL: "#ffa657", BRIDGE: "#79c0ff", POD: "#56d364",
    OTHER: "#6e7681",
}  # fmt: skip
TONES = (TITLE, PLAIN, DIM, LABEL, BAD)
KINDS = (NODE, CLUSTER, UPLINK, TUNNEL, BRIDGE, POD, OTHER)


def styles() -> str:
    """Returns the style sheet of SVG."""
    shapes = f".card,.link{{stroke-width:1.5}}.link{{fill:none}}.link.{TUNNEL}{{stroke-dasharray:6 4}}"
    fixed = f"{shapes}.{TITLE}{{font-weight:600}}"
    return f"{fixed}{_colours(LIGHT)}@media(prefers-color-scheme:dark){{{_colours(DARK)}}}"


def _colours(palette: Mapping[str, str]) -> str:
    rules = [f".back{{fill:{palette['back']}}}.frame{{fill:{palette['frame']}}}.link{{stroke:{palette['line']}}}"]
    rules += [f"text.{tone}{{fill:{palette[tone]}}}" for tone in TONES]
    rules += [f".card.{kind},.link.{kind}{{stroke:{palette[kind]}}}" for kind in KINDS]
    return "".join(
        [*rules, f".card{{fill:{palette['card']}}}.card.broken{{fill:{palette['broken']};stroke:{palette[BAD]}}}"]
    )
