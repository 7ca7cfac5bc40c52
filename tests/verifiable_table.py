"""The table of docs/verifiable.md. `python tests/verifiable_table.py` prints it."""

from __future__ import annotations

from dataclasses import fields

from verifiable_cases import CASES

from cut_dist.verifiable import KINDS, make_check


def table() -> str:
    """The table of docs/verifiable.md."""
    rows = ["| kind | parameters | holds where | instruction | judgment, for example |", "|---|---|---|---|---|"]
    for name in dict.fromkeys(case.kind for case in CASES):
        case, kind = next(case for case in CASES if case.kind == name), KINDS[name]
        response, (judgment, _) = next(iter(case.bad.items()))
        names = ", ".join(f"`{field.name}`" for field in fields(kind)) or "none"
        sentence = make_check(case.kind, case.params).sentence(kind.wordings[0])
        meaning = " ".join((kind.__doc__ or "").split())
        cells = [f"`{case.kind}`", names, meaning, sentence, f"{_shown(response)}: {judgment}"]
        rows.append("| " + " | ".join(_escaped(cell) for cell in cells) + " |")
    return "\n".join(rows) + "\n"


def _shown(response: str) -> str:
    return "`" + response.replace("\n", "⏎") + "`"


def _escaped(cell: str) -> str:
    """Markdown's and HTML's marks as text, outside code."""
    pieces = cell.replace("|", "\\|").split("`")
    for index in range(0, len(pieces), 2):
        for character in "*<>[]#":
            pieces[index] = pieces[index].replace(character, f"\\{character}")
    return "`".join(pieces)


if __name__ == "__main__":
    print(table(), end="")
