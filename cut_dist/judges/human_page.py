"""The page to judge on, as text: no font, no image, no script from elsewhere, and all data escaped."""

from __future__ import annotations

import html

from cut_dist.judges.human_form import Form, Question, readable

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { font: 16px/1.55 system-ui, "Segoe UI", "DejaVu Sans", sans-serif; color: #1c2430; background: #f4f5f7;
  max-width: 1100px; margin: 0 auto; padding: 18px 24px 60px; }
header { display: flex; align-items: baseline; gap: 18px; flex-wrap: wrap; }
h1 { font-size: 21px; margin: 0; }
h2 { font-size: 13px; margin: 0 0 6px; color: #66707f; font-weight: 600; }
.dim { color: #66707f; font-size: 13.5px; }
progress { width: 100%; height: 12px; margin: 10px 0 16px; accent-color: #2f6b3a; }
.card { background: #fff; border: 1px solid #dfe3e8; border-radius: 8px; padding: 14px 18px; margin-bottom: 14px; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; unicode-bidi: isolate; }
.instruction { background: #eef2f8; border-color: #d5deeb; }
.responses { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(400px, 100%), 1fr)); gap: 14px; }
.problem { background: #fbe0d8; color: #8a2a10; border-radius: 8px; padding: 9px 14px; margin-bottom: 14px; }
label { display: block; font-size: 13px; color: #66707f; font-weight: 600; margin-bottom: 6px; }
textarea { width: 100%; min-height: 104px; padding: 10px 12px; font: inherit; border: 1px solid #c3cad4;
  border-radius: 6px; resize: vertical; }
.buttons { display: flex; gap: 10px; flex-wrap: wrap; margin-top: 12px; align-items: center; }
button { font: inherit; padding: 8px 18px; border-radius: 6px; border: 1px solid #c3cad4; background: #fff;
  cursor: pointer; }
button.verdict { background: #23427a; border-color: #23427a; color: #fff; }
button.skip { margin-left: auto; }
button:focus-visible, textarea:focus-visible { outline: 3px solid #9db7e4; outline-offset: 1px; }
kbd { font: 12px ui-monospace, Menlo, Consolas, "DejaVu Sans Mono", monospace; border: 1px solid #c3cad4;
  border-radius: 4px; padding: 0 5px; background: #fff; color: #1c2430; }
"""

# Keys: a digit chooses a verdict, s skips; in the text Escape leaves it, and Ctrl+Enter sends it with the verdict that
# needs words.
_SCRIPT = """
document.addEventListener("keydown", event => {
  const inText = event.target.tagName === "TEXTAREA";
  if (inText && event.key === "Escape") event.target.blur();
  const sends = inText && event.key === "Enter" && (event.ctrlKey || event.metaKey);
  if (inText && !sends || !inText && (event.ctrlKey || event.metaKey || event.altKey)) return;
  const button = document.querySelector(sends ? "button[data-sends]" : `button[data-key="${CSS.escape(event.key)}"]`);
  if (button) { event.preventDefault(); button.click(); }
});
"""


def policy(nonce: str) -> str:
    """The Content-Security-Policy under which a page with this nonce is sent: nothing but its own style and script."""
    return (
        f"default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; form-action 'self'; "
        "base-uri 'none'; frame-ancestors 'none'"
    )


def question_page(
    form: Form, question: Question, nonce: str, *, done: int, total: int, problem: str = "", words: str = ""
) -> str:
    """The page that asks one question.

    Args:
        done: questions that are answered.
        problem: why the last answer to this question was not taken.
        words: what its text field begins with.
    """
    texts = "".join(
        f'<section class="card"><h2>{_text(name)}</h2><div class="text">{_text(text)}</div></section>'
        for name, text in zip(form.texts, question.texts, strict=True)
    )
    said = f'<p class="problem" role="alert">{_text(problem)}</p>' if problem else ""
    return _page(
        f"{form.title} {done}/{total}",
        nonce,
        f'<header><h1>{_text(form.title)}</h1><span class="dim">{done} of {total} judged · {_text(question.id)}</span>'
        f'</header><progress max="{total}" value="{done}"></progress>\n{said}'
        f'<section class="card instruction"><h2>instruction</h2><div class="text">{_text(question.instruction)}</div>'
        f'</section>\n<div class="responses">{texts}</div>\n'
        f'<form method="post" class="card"><input type="hidden" name="id" value="{_text(question.id)}">'
        f'<label for="words">{_text(_asks_for(form))}</label>'
        f'<textarea id="words" name="words"{_focus(form)}>{_field(words)}</textarea>\n'
        f'<div class="buttons">{_buttons(form)}</div></form>\n'
        f'<p class="dim">Keys: {_keys(form)}, <kbd>s</kbd> skip for now; in the text <kbd>Esc</kbd> leaves it'
        f"{_sends(form)}. Each answer is written down at once; the program can be stopped and started again.</p>",
    )


def last_page(nonce: str, *, total: int) -> str:
    """What is shown when nothing is open any more."""
    return _page("All judged", nonce, f"<h1>All {total} are judged</h1><p>Thank you. This window can be closed.</p>")


def failure_page(nonce: str, reason: str) -> str:
    """What is shown when an answer could not be written down."""
    return _page("Not written down", nonce, f'<h1>Not written down</h1><p class="problem">{_text(reason)}</p>')


def _page(title: str, nonce: str, body: str) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<title>{_text(title)}</title><style nonce="{nonce}">{_STYLE}</style></head>\n<body>{body}\n'
        f'<script nonce="{nonce}">{_SCRIPT}</script></body></html>\n'
    )


def _asks_for(form: Form) -> str:
    needed = any(verdict.needs_words for verdict in form.verdicts.values())
    return "What is wrong with it, in a few precise sentences" if needed else f"{form.words.capitalize()} (optional)"


def _buttons(form: Form) -> str:
    sends = next((name for name, verdict in form.verdicts.items() if verdict.needs_words), None)
    buttons = [
        f'<button class="verdict" name="verdict" value="{_text(name)}" data-key="{number}"'
        f"{' data-sends' if name == sends else ''}>{_text(verdict.label)}</button>"
        for number, (name, verdict) in enumerate(form.verdicts.items(), 1)
    ]
    return "".join(buttons) + '<button class="skip" name="skip" value="1" data-key="s">Skip</button>'


def _keys(form: Form) -> str:
    return ", ".join(
        f"<kbd>{number}</kbd> {_text(verdict.label)}" for number, verdict in enumerate(form.verdicts.values(), 1)
    )


def _sends(form: Form) -> str:
    label = next((verdict.label for verdict in form.verdicts.values() if verdict.needs_words), None)
    return f", <kbd>Ctrl</kbd>+<kbd>Enter</kbd> {_text(label)}" if label else ""


def _focus(form: Form) -> str:
    """The text is where one begins, unless words are optional: then the keys are."""
    return " autofocus" if any(verdict.needs_words for verdict in form.verdicts.values()) else ""


def _field(text: str) -> str:
    """For a textarea, which drops one line break at its beginning."""
    return "\n" + _text(text)


def _text(text: str) -> str:
    """Escape for element content and for attributes in double quotes."""
    return html.escape(readable(text), quote=True)
