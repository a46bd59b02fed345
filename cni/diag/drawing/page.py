"""A figure as a page for a browser: self-contained, without scripts; members of a section fill the window's width."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from cni.diag.drawing.figure import TITLE
from cni.diag.drawing.palette import DARK, FONTS, KINDS, LIGHT, TONES

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from cni.diag.drawing.figure import Card, Figure, Section

STYLE = f"""
body{{margin:0;padding:1.5rem;background:var(--back);color:var(--plain);font:13px/1.5 {FONTS}}}
.root{{display:inline-block}}h1,h2,p{{margin:0;font-size:inherit}}h1{{font-size:1.1rem}}
section{{display:grid;grid-template-columns:minmax(12rem,19rem) 1fr;align-items:start;border-left:2px solid var(--line);
margin-left:1rem;padding:.6rem 0 .6rem 1.2rem;gap:1.2rem}}
section:last-child{{border-image:linear-gradient(var(--line) 2rem,transparent 0) 1}}
ul{{list-style:none;margin:0;padding:.6rem;display:grid;gap:.6rem;background:var(--frame);border-radius:6px;
grid-template-columns:repeat(auto-fill,minmax(min(100%,19rem),1fr))}}
.card{{background:var(--card);border:1.5px solid var(--kind);border-radius:6px;padding:.4rem .7rem;
overflow-wrap:anywhere;unicode-bidi:isolate}}
section>*{{position:relative}}section>*::before{{content:"";position:absolute;right:100%;top:1.3rem;width:1.2rem;
border-top:2px solid var(--line)}}
.card.broken{{background:var(--broken);border-color:var(--bad)}}.title{{font-weight:600}}
@media(max-width:50rem){{section{{grid-template-columns:1fr;margin-left:0}}}}
"""


def page(figure: Figure) -> str:
    """Returns the drawing as an HTML document."""
    title = f"Network of {escape(figure.root.lines[0].text)}"
    parts = [
        f'<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8"><title>{title}</title>',
        f'<meta name="viewport" content="width=device-width"><style>{_colours()}{STYLE}</style></head><body>',
        f'<header class="root">{_card(figure.root, "h1")}</header>',
        *map(_section, figure.sections),
        "</body></html>\n",
    ]
    return "\n".join(parts)


def _section(section: Section) -> str:
    members = "\n".join([f"<li>{_card(member)}</li>" for member in section.members])
    shown = f"<ul>\n{members}\n</ul>" if members else ""
    return f"<section><div>{_card(section.head, 'h2')}</div>{shown}</section>"


def _card(card: Card, heading: str = "p") -> str:
    return f'<div class="card {card.kind}{" broken" if card.is_bad else ""}">{"".join(_lines(card, heading))}</div>'


def _lines(card: Card, heading: str) -> Iterator[str]:
    if card.label:
        yield f'<p class="label">{escape(card.label)}</p>'
    for line in card.lines:
        name = heading if line.tone == TITLE else "p"
        yield f'<{name} class="{line.tone}">{escape(line.text)}</{name}>'


def _colours() -> str:
    tones = "".join([f".{tone}{{color:var(--{tone})}}" for tone in TONES])
    kinds = "".join([f".{kind}{{--kind:var(--{kind})}}" for kind in KINDS])
    dark = f"@media(prefers-color-scheme:dark){{:root{{{_variables(DARK)}}}}}"
    return f":root{{color-scheme:light dark;{_variables(LIGHT)}}}{dark}{tones}{kinds}"


def _variables(palette: Mapping[str, str]) -> str:
    return ";".join([f"--{name}:{colour}" for name, colour in palette.items()])
