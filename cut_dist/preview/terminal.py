"""The preview in a terminal of any width, with colour or without."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import groupby

from rich.color import Color
from rich.columns import Columns
from rich.console import Console
from rich.padding import Padding
from rich.rule import Rule
from rich.style import Style
from rich.table import Table
from rich.text import Text

from cut_dist.preview.colour import FULL, TICKS, shade
from cut_dist.preview.summary import Grid
from cut_dist.preview.tokens import printable, visible
from cut_dist.preview.view import Context, Token, View

_PROMPT_CHARACTERS = 700  # of one prompt; the middle of a longer one is left to the page
_BLACK = Color.from_rgb(20, 20, 20)


def show(title: str, settings: Sequence[str], grids: Sequence[Grid], views: Sequence[View], console: Console) -> None:
    """Print tables, examples and legend."""
    console.print(Rule(Text(f"Preview of {title}", "bold"), align="left", style="dim"))
    for line in settings:
        console.print(Text(line, "dim"))
    console.print()
    console.print(Columns([_table(grid) for grid in grids], padding=(1, 4)))
    coloured = console.color_system is not None
    for view in views:
        console.print()
        _example(view, console, coloured)
    if any(token.difference is not None for view in views for token in view.tokens):
        console.print(Rule(style="dim"))
        console.print(_legend(coloured))


def _table(grid: Grid) -> Table:
    table = Table(title=grid.title, title_justify="left", title_style="bold", box=None, padding=(0, 2, 0, 0))
    table.caption, table.caption_justify, table.caption_style = grid.note or None, "left", "dim"
    for i, name in enumerate(grid.columns):
        table.add_column(name, justify="right" if i else "left", header_style="dim")
    for row in grid.rows:
        table.add_row(*row)
    return table


def _example(view: View, console: Console, coloured: bool) -> None:
    style = "bold red" if view.is_negative else "bold green"
    head = Text.assemble((printable(view.id), "bold"), "  ", (view.kind, style), "  ", (printable(view.source), "dim"))
    console.print(Rule(head, align="left", style="dim"))
    console.print(Text(view.place, "dim"))
    for note in view.notes:
        console.print(Text(note, "yellow"))
    for context in view.contexts:
        console.print(_context_head(context))
        console.print(Padding(_prompt(context), (0, 0, 0, 4)))
    tokens = len(view.tokens)
    console.print(Text.assemble(("response", "bold"), f"  {tokens} tokens, the same in every context"))
    response = _coloured(view.tokens) if coloured else _bracketed(view.tokens)
    console.print(Padding(response, (0, 0, 0, 4)))
    if view.verdict:
        console.print(Text(view.verdict, "italic"))


def _context_head(context: Context) -> Text:
    return Text.assemble(
        (context.name, "bold"),
        f"  {context.prompt_tokens} + {context.response_tokens} tokens, given {printable(context.conditions_on)}; ",
        (context.loss, "cyan"),
    )


def _prompt(context: Context) -> Text:
    prompt = Text(style="dim")
    for text, is_control in context.prompt:
        prompt.append(printable(text).replace("\n", "⏎"), "reverse" if is_control else "")
    if len(prompt) > _PROMPT_CHARACTERS:
        half = _PROMPT_CHARACTERS // 2
        hidden = len(prompt) - 2 * half
        prompt = Text.assemble(prompt[:half], (f" … {hidden:,} characters … ", "italic yellow"), prompt[-half:])
    return prompt


def _coloured(tokens: Sequence[Token]) -> Text:
    response = Text()
    for token in tokens:
        style = Style(dim=token.is_eos)
        if token.difference is not None:
            style = Style(bgcolor=Color.from_rgb(*shade(token.difference)), color=_BLACK)
        if token.inappropriate:
            style += Style(bold=True, underline=True)
        response.append(visible(token.text), style)
    return response


def _bracketed(tokens: Sequence[Token]) -> Text:
    response = Text()
    for inappropriate, run in groupby(tokens, key=lambda token: token.inappropriate):
        text = "".join(visible(token.text) for token in run)
        response.append(f"⟦{text}⟧" if inappropriate else text)
    return response


def _legend(coloured: bool) -> Text:
    if not coloured:
        return Text("⟦ ⟧ inappropriate tokens: p⁻/p⁺ is above λ. A terminal with colours shows p⁻/p⁺ of every token.")
    legend = Text("p⁻/p⁺ ")
    for i, tick in enumerate(TICKS):
        value = (2 * i / (len(TICKS) - 1) - 1) * FULL
        legend.append(f" {tick} ", Style(bgcolor=Color.from_rgb(*shade(value)), color=_BLACK))
    legend.append("  red: likelier given the judgment. ")
    legend.append("Inappropriate", Style(bold=True, underline=True))
    legend.append(f": above λ, unlearned. Scale of log p⁻ − log p⁺: ±{math.log(8):.2f} nats.")
    return legend
