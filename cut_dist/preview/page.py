"""The preview as one HTML file: ids, judgments, prompts and responses are data from anywhere, so all are escaped."""

from __future__ import annotations

from collections.abc import Sequence

from cut_dist.preview.colour import FULL, TICKS, shade
from cut_dist.preview.summary import Grid
from cut_dist.preview.tokens import visible
from cut_dist.preview.view import Context, Token, View
from cut_dist.web_page import document, escape, table

_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2430; background: #f4f5f7;
  max-width: 1080px; margin: 0 auto; padding: 20px 24px 60px; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0; display: inline; }
h3 { font-size: 14px; margin: 0 0 6px; }
.dim { color: #66707f; font-size: 13px; }
.settings p, .place { margin: 0; }
.grids { display: grid; grid-template-columns: repeat(auto-fit, minmax(400px, 1fr)); gap: 16px; margin: 16px 0; }
.grid, .legend, article { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 14px 18px; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { font-weight: normal; color: #66707f; }
th, td { text-align: right; padding: 1px 0 1px 18px; }
th:first-child, td:first-child { text-align: left; padding-left: 0; }
.legend { display: flex; flex-wrap: wrap; gap: 6px 22px; align-items: center; font-size: 13px; }
.scale { display: flex; }
.scale span { width: 44px; text-align: center; padding: 2px 0; }
article { margin-top: 16px; }
.badge { border-radius: 10px; padding: 1px 9px; font-size: 12px; font-weight: 600; margin: 0 8px; }
.negative { background: #fbe0d8; color: #9c2f12; }
.positive { background: #dcefdc; color: #226128; }
.note { background: #fff4d6; border-left: 3px solid #d9a514; padding: 3px 10px; margin: 8px 0; font-size: 13px; }
.fields { display: grid; grid-template-columns: 84px 1fr; gap: 6px 12px; margin: 10px 0; align-items: baseline; }
.fields > div:nth-child(even) { white-space: pre-wrap; overflow-wrap: anywhere; max-height: 220px; overflow: auto; }
.fields > .response { max-height: none !important; }
.judgment { color: #8a3116; }
pre, .response { font-family: ui-monospace, "SF Mono", Menlo, Consolas, "DejaVu Sans Mono", monospace;
  white-space: pre-wrap; overflow-wrap: anywhere; }
pre { margin: 6px 0; font-size: 12.5px; line-height: 1.45; color: #4a5361; background: #f7f8fa; border-radius: 6px;
  padding: 8px 12px; }
.response { font-size: 14.5px; line-height: 2; }
.token { padding: 3px 0; border-bottom: 3px solid transparent; box-shadow: inset 1px 0 0 rgba(28, 36, 48, .10);
  cursor: default; }
.token:hover { outline: 2px solid #1c2430; border-radius: 2px; }
.bad { font-weight: 700; border-bottom-color: #b3200a; }
.eos { color: #66707f; }
.control { background: #dfe6f2; color: #23427a; border-radius: 3px; padding: 0 3px; }
article > .dim:has(+ details) { margin-bottom: 6px; }
summary { cursor: pointer; font-size: 13px; padding: 2px 0; }
summary b { display: inline-block; min-width: 86px; }
.loss { color: #23427a; }
details table { margin: 6px 0 6px 14px; font-size: 12.5px; }
td.text { white-space: pre; font-family: ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; }
"""


def render(title: str, settings: Sequence[str], grids: Sequence[Grid], views: Sequence[View]) -> str:
    """The whole page as text."""
    lines = "".join(f'<p class="dim">{escape(line)}</p>' for line in settings)
    coloured = any(token.difference is not None for view in views for token in view.tokens)
    body = (
        f'<h1>Preview of {escape(title)}</h1><div class="settings">{lines}</div>\n'
        f'<div class="grids">{"".join(map(_grid, grids))}</div>\n'
        f"{_legend() if coloured else ''}\n{''.join(map(_example, views))}"
    )
    return document(f"Preview of {title}", _STYLE, body)


def _grid(grid: Grid) -> str:
    note = f'<div class="dim">{escape(grid.note)}</div>' if grid.note else ""
    return f'<div class="grid"><h3>{escape(grid.title)}</h3>{table(grid.columns, grid.rows)}{note}</div>'


def _legend() -> str:
    steps = []
    for i, tick in enumerate(TICKS):
        value = (2 * i / (len(TICKS) - 1) - 1) * FULL
        steps.append(f'<span style="{_background(value)}" title="log p⁻ − log p⁺ = {value:+.2f}">{tick}</span>')
    return (
        f'<div class="legend"><span>p⁻/p⁺</span><span class="scale">{"".join(steps)}</span>'
        "<span>red: likelier given the negative judgment (p⁻) than in the contrast (p⁺)</span>"
        '<span><span class="token bad">inappropriate</span>: p⁻/p⁺ above λ, unlearned</span>'
        '<span class="dim">Point at a token for its numbers.</span></div>'
    )


def _example(view: View) -> str:
    colour = "negative" if view.is_negative else "positive"
    notes = "".join(f'<div class="note">{escape(note)}</div>' for note in view.notes)
    fields = [("instruction", "", escape(view.instruction))]
    if view.judgment is not None:
        fields.append(("judgment", "judgment", escape(view.judgment)))
    fields.append(("response", "response", "".join(map(_token, view.tokens))))
    body = "".join(f'<div class="dim">{name}</div><div class="{css}">{text}</div>' for name, css, text in fields)
    verdict = f'<div class="dim">{escape(view.verdict)}</div>' if view.verdict else ""
    return (
        f'<article><h2>{escape(view.id)}</h2><span class="badge {colour}">{escape(view.kind)}</span>'
        f'<span class="dim">{escape(view.source)}</span><p class="dim place">{escape(view.place)}</p>{notes}\n'
        f'<div class="fields">{body}</div>{verdict}\n'
        f"{''.join(map(_context, view.contexts))}{_token_table(view.tokens)}</article>\n"
    )


def _context(context: Context) -> str:
    prompt = "".join(
        f'<span class="control">{escape(text)}</span>' if is_control else escape(text)
        for text, is_control in context.prompt
    )
    return (
        f"<details><summary><b>{escape(context.name)}</b> {context.prompt_tokens} + {context.response_tokens} tokens, "
        f'given {escape(context.conditions_on)}; <span class="loss">{escape(context.loss)}</span></summary>'
        f"<pre>{prompt}</pre></details>\n"
    )


def _token(token: Token) -> str:
    classes = "token" + " bad" * token.inappropriate + " eos" * token.is_eos
    style = "" if token.difference is None else f' style="{_background(token.difference)}"'
    facts = "".join(f"\n{name} = {value}" for name, value in token.facts.items())
    title = f"{token.position}: {token.entry} (id {token.id}){facts}"
    if token.inappropriate:
        title += "\ninappropriate"
    return f'<span class="{classes}"{style} title="{escape(title)}">{escape(visible(token.text))}</span>'


def _token_table(tokens: Sequence[Token]) -> str:
    names = list(dict.fromkeys(name for token in tokens for name in token.facts))
    if not names:
        return ""
    head = "".join(f"<th>{escape(name)}</th>" for name in ("token", "", *names))
    body = []
    for token in tokens:
        mark = "inappropriate" if token.inappropriate else ""
        numbers = "".join(f"<td>{escape(token.facts.get(name, ''))}</td>" for name in names)
        shown = "␣" if token.text == " " else visible(token.text).replace("\n", "")
        body.append(f'<tr><td class="text">{escape(shown)}</td><td>{mark}</td>{numbers}</tr>')
    rows = f"<table><thead><tr>{head}</tr></thead><tbody>{''.join(body)}</tbody></table>"
    return f"<details><summary><b>tokens</b> one by one</summary>{rows}</details>"


def _background(difference: float) -> str:
    return "background: rgb({}, {}, {})".format(*shade(difference))
