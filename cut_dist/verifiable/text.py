"""What words, sentences, lines and paragraphs of a response are, as spans of it; and how a span is quoted.

The checks count with these, so they are what a judgment's numbers mean. A span is (start, end) in characters.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

Span = tuple[int, int]

_TOKEN = re.compile(r"[^\s—]+")  # an em dash parts words as a space does
_OUTER = "\"“”'‘’`.,;:!?()[]{}<>*_#~|-–…="  # stripped from both ends of a word
_LINE = re.compile(r"[^\n]+")
_PARAGRAPH_GAP = re.compile(r"\n[ \t\r]*\n\s*")
_LIST_MARKER = re.compile(r"[ \t]*(?:\d{1,4}[.)]|[-*+•])(?:[ \t]+|$)")
_SENTENCE_END = re.compile(r"(?<![.!?…])[.!?…]+[\"'”’)\]*_»]*(?=\s|$)")
_HEADING = re.compile(r"#{1,6}[ \t]|\*\*[^*]*\*\*:?$|<<.*>>$")
_ABBREVIATIONS = frozenset(
    ["mr", "mrs", "ms", "dr", "prof", "st", "vs", "e.g", "i.e", "approx", "p.s", "p.p.s", "a.m", "p.m", "u.s", "u.k"]
)
_EXCERPT = 60  # characters


def words(text: str) -> list[Span]:
    """Words: what stands between white space (or em dashes) and has a letter or digit, without outer punctuation.

    The number of a numbered list ("2." at the start of a line) is not a word.
    """
    markers = {match.end() for match in re.finditer(r"^[ \t]*\d{1,4}[.)](?=\s)", text, re.MULTILINE)}
    return [
        _trimmed(text, match.span())
        for match in _TOKEN.finditer(text)
        if match.end() not in markers and any(map(str.isalnum, match[0]))
    ]


def sentences(text: str) -> list[Span]:
    """Sentences: they end with . ! ? or … before a space, or with their line; each has at least one word.

    The point of a known abbreviation ("Dr.", "e.g.") or of an initial ("J.") ends nothing inside a line, nor does
    an ellipsis or a closed quotation before a small letter. A heading (# so, **so** or <<so>>, alone on its line) is
    no sentence.
    """
    return [
        span
        for line in lines(text)
        if not _HEADING.match(text, *line)
        for span in _sentences_of_line(text, *line)
        if any(map(str.isalnum, text[span[0] : span[1]]))
    ]


def lines(text: str) -> list[Span]:
    """Lines that are not blank, without the white space around them."""
    return list(_stripped(text, (match.span() for match in _LINE.finditer(text))))


def paragraphs(text: str) -> list[Span]:
    """Paragraphs: parts of the text between blank lines."""
    bounds, start = [], 0
    for gap in _PARAGRAPH_GAP.finditer(text):
        bounds.append((start, gap.start()))
        start = gap.end()
    return list(_stripped(text, [*bounds, (start, len(text))]))


def inner(text: str) -> Span:
    """The span of the text without the white space around it."""
    return next(_stripped(text, [(0, len(text))]), (0, 0))


def beginning(text: str) -> Span:
    """The first line that is not blank."""
    return next(iter(lines(text)), (0, 0))


def ending(text: str) -> Span:
    """The end of the last line that is not blank: its last eight words."""
    start, end = (lines(text) or [(0, 0)])[-1]
    tokens = list(_TOKEN.finditer(text, start, end))
    return (tokens[max(0, len(tokens) - 8)].start(), end) if tokens else (start, end)


def following(text: str, position: int) -> Span:
    """The span of what follows a position, without the white space around it."""
    start, end = inner(text[position:])
    return position + start, position + end


def cut(text: str, span: Span) -> str:
    """The text of a span."""
    return text[span[0] : span[1]]


def line_number(text: str, position: int) -> int:
    """The number of the line, counted from 1 with blank ones, in which a position lies."""
    return text.count("\n", 0, position) + 1


def excerpt(text: str, span: Span) -> str:
    """The quoted beginning of a span: its first line, at most 60 characters, "..." where more follows.

    It is the response's own text; only characters that can't be shown become U+FFFD, and a tab a space.
    """
    whole = cut(text, span).strip()
    first = whole.partition("\n")[0].rstrip()
    shown = first
    if len(shown) > _EXCERPT:
        shown = shown[:_EXCERPT]
        shown = shown.rpartition(" ")[0].rstrip() or shown
    dots = "" if len(shown) == len(whole) else " ..." if shown.endswith((".", "!", "?", ",")) else "..."
    shown = "".join(c if c.isprintable() else " " if c == "\t" else "\ufffd" for c in shown)
    return f'"{shown}{dots}"'


def placed(text: str, span: Span) -> str:
    """The quoted beginning of a span and where it is: `"sea" (line 3)`, or `(word 5)` in a text of one line."""
    if "\n" in text.strip():
        return f"{excerpt(text, span)} (line {line_number(text, span[0]):,})"
    number = next((n for n, (start, end) in enumerate(words(text), start=1) if start < span[1] and span[0] < end), None)
    return f"{excerpt(text, span)} (word {number:,})" if number else excerpt(text, span)


def _trimmed(text: str, span: Span) -> Span:
    token = cut(text, span)
    start = span[0] + len(token) - len(token.lstrip(_OUTER))
    return start, start + len(token.strip(_OUTER))


def _stripped(text: str, spans: Iterator[Span] | list[Span]) -> Iterator[Span]:
    for start, end in spans:
        piece = text[start:end]
        if piece.strip():
            start += len(piece) - len(piece.lstrip())
            yield start, start + len(piece.strip())


def _sentences_of_line(text: str, start: int, end: int) -> Iterator[Span]:
    marker = _LIST_MARKER.match(text, start, end)
    begin = marker.end() if marker else start
    for stop in _SENTENCE_END.finditer(text, begin, end):
        next_character = text[stop.end() : stop.end() + 9].lstrip()[:1]
        if stop.end() < end and _goes_on(text[begin : stop.start()], stop[0], next_character):
            continue
        yield next(_stripped(text, [(begin, stop.end())]))
        begin = stop.end()
    yield from _stripped(text, [(begin, end)])


def _goes_on(before: str, mark: str, next_character: str) -> bool:
    """Whether a sentence goes on after a mark: an abbreviation, or `"No!" she said`, or `well... yes`."""
    if mark != ".":
        return next_character.islower() and (mark.startswith(("..", "…")) or mark.endswith(('"', "”", "’", "»")))
    if before.strip().isdecimal():  # "2." of a list that goes on in one line: "1. Sea. 2. Sky."
        return True
    last = before[-24:].rpartition(" ")[2].lstrip("(\"'“‘[*_")
    return last.casefold() in _ABBREVIATIONS or (len(last) == 1 and last.isupper() and last != "I")
