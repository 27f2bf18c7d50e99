"""Format strings: how an instruction and an input become the text that the model completes."""

from __future__ import annotations

from collections.abc import Callable
from string import Formatter

from loraloop.core.chat_templates import NAMED

Render = Callable[[str, str], str]

PLACEHOLDERS = ("instruction", "input")


def placeholders(template: str) -> set[str]:
    """The placeholders that a format string uses.

    Raises:
        ValueError: It uses something else than the plain placeholders of :data:`PLACEHOLDERS`, or none of them.
    """
    known = " and ".join(f"{{{name}}}" for name in PLACEHOLDERS)
    try:
        fields = [
            (name, spec, conversion) for _, name, spec, conversion in Formatter().parse(template) if name is not None
        ]
    except ValueError as error:
        raise ValueError(
            f"{template!r} is not a format string: {error}; write {{{{ and }}}} for literal braces"
        ) from None
    for name, spec, conversion in fields:
        if name not in PLACEHOLDERS or spec or conversion:
            written = "{" + name + (f"!{conversion}" if conversion else "") + (f":{spec}" if spec else "") + "}"
            raise ValueError(
                f"{written} is not one of the placeholders {known}; write {{{{ and }}}} for literal braces"
            )
    if not fields:
        raise ValueError(f"{template!r} has no placeholder: use {known}, or a chat template: {', '.join(NAMED)}")
    return {name for name, _, _ in fields}


def format_renderer(template: str) -> Render:
    r"""A renderer for a format string.

    A line made of nothing but empty placeholders is left out, and so is a paragraph (between blank lines) whose
    placeholders are all empty, with its heading: no stray blank line and no ``### Input:`` without an input.

    Raises:
        ValueError: As :func:`placeholders`; a template that comes with an adapter was checked by nobody before.
    """
    placeholders(template)
    blocks = [[(line, _used(line)) for line in block.split("\n")] for block in template.split("\n\n")]

    def render(instruction: str, input: str) -> str:
        values = {"instruction": instruction, "input": input}
        kept = []
        for block in blocks:
            used = {name for _, names in block for name in names}
            if used and not any(values[name] for name in used):
                continue
            lines = ((line.format_map(values), names) for line, names in block)
            kept.append("\n".join(text for text, names in lines if text or not names))
        return "\n\n".join(kept)

    return render


def _used(line: str) -> set[str]:
    return {name for _, name, _, _ in Formatter().parse(line) if name is not None}
