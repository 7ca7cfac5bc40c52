"""What every page of this project is made of: one HTML file that needs nothing else, and text that stays text.

No script, no image, no font, no network. Whatever comes from data or from a command goes through `escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from cut_dist.preview.tokens import printable

# Even if something slipped through the escaping, this keeps the browser from running or loading it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"

# Of a report: sections, facts as a list of terms, tables, charts.
REPORT_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2430; background: #f4f5f7;
  max-width: 1100px; margin: 0 auto; padding: 20px 24px 60px; }
h1 { font-size: 22px; margin: 0 0 4px; }
h2 { font-size: 16px; margin: 0 0 8px; }
h3 { font-size: 13.5px; margin: 10px 0 2px; }
section { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 14px 18px; margin-top: 16px;
  overflow-x: auto; }
p { margin: 6px 0; max-width: 900px; }
.dim { color: #5b6472; font-size: 13px; }
code { font: 13px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
dl { display: grid; grid-template-columns: max-content 1fr; gap: 3px 16px; margin: 0; font-size: 13.5px; }
dt { color: #5b6472; }
dd { margin: 0; overflow-wrap: anywhere; }
table { border-collapse: collapse; font-size: 13px; font-variant-numeric: tabular-nums; }
th { font-weight: normal; color: #5b6472; text-align: right; border-bottom: 1px solid #dfe3e8; }
th, td { padding: 2px 0 2px 18px; text-align: right; white-space: nowrap; }
th:first-child, td:first-child { padding-left: 0; }
.ranking th:last-child, .ranking td:last-child, .reasons th, .reasons td { text-align: left; }
.reasons td:last-child { white-space: pre-wrap; overflow-wrap: anywhere; }
.best tbody tr:first-child { font-weight: 600; }
.note { background: #fff4d6; border-left: 3px solid #d9a514; padding: 3px 10px; font-size: 13px; }
svg.chart { display: block; max-width: 100%; height: auto; margin: 4px 0 10px; }
"""


def document(title: str, style: str, body: str) -> str:
    """A whole page. `title` is plain text; `style` and `body` are CSS and HTML, escaped already."""
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title><style>{style}</style></head>\n"
        f"<body>{body}</body></html>\n"
    )


def escape(plain: str) -> str:
    """Escape for element content and for attributes in double quotes."""
    return html.escape(printable(plain), quote=True)


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A table of plain texts."""
    names = "".join(f"<th>{escape(name)}</th>" for name in head)
    body = "".join(f"<tr>{''.join(f'<td>{escape(cell)}</td>' for cell in row)}</tr>\n" for row in rows)
    return f"<table><thead><tr>{names}</tr></thead><tbody>{body}</tbody></table>"
