"""What every page of this project is made of: one HTML file that needs nothing else, and text that stays text.

No script, no image, no font, no network. Whatever comes from data or from a command goes through `escape`.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence

from cut_dist.preview.tokens import printable

# Even if something slipped through the escaping, this keeps the browser from running or loading it.
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


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
