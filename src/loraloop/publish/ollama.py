"""Ollama's Modelfile beside a GGUF: https://docs.ollama.com/modelfile."""

from __future__ import annotations

from typing import Any

from loraloop.core.chat_templates import BUILT_IN
from loraloop.core.prompt_format import format_renderer, placeholders
from loraloop.core.prompts import in_format
from loraloop.publish import template as templates
from loraloop.records import Manifest, Message

FILE = "Modelfile"
_TOOLS = """You can call these tools:
{{ range .Tools }}{{ . }}
{{ end }}To call one, write <tool_call>{"name": NAME, "arguments": {...}}</tool_call>."""
_CALLS = """{{ range $at, $call := $turn.ToolCalls }}{{ if or $turn.Content $at }}
{{ end }}<tool_call>{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}</tool_call>{{ end }}"""
# Ollama's templates are Go's (https://pkg.go.dev/text/template): these say what core/chat_templates.py says in Jinja.
_CHATML = (
    "{{ if or .System .Tools }}<|im_start|>system\n{{ .System }}{{ if .Tools }}{{ if .System }}\n\n{{ end }}"
    + _TOOLS
    + '{{ end }}EOS\n{{ end }}{{ range $turn := .Messages }}{{ if ne $turn.Role "system" }}'
    + "<|im_start|>{{ $turn.Role }}\n{{ $turn.Content }}"
    + _CALLS
    + "EOS\n{{ end }}{{ end }}<|im_start|>assistant\n"
)


def modelfile(file: str, manifest: Manifest, tokenizer: Any, adapter: bool) -> str:
    """The Modelfile of a GGUF: source, template and stop token.

    Where the template cannot be said in Ollama's language, a comment says which one it is.

    Args:
        file: Name of the GGUF.
        manifest: Of the version.
        tokenizer: Of the base.
        adapter: Whether the file is a LoRA alone; its base is named by hand.
    """
    source = ["# The base as GGUF:", "FROM ./BASE.gguf", f"ADAPTER ./{file}"] if adapter else [f"FROM ./{file}"]
    told = _template(manifest, str(tokenizer.eos_token))
    lines = [f'TEMPLATE """{told}"""'] if told else [_note(manifest)]
    return "\n".join([*source, *lines, f'PARAMETER stop "{tokenizer.eos_token}"', ""])


def _template(manifest: Manifest, end: str) -> str | None:
    if manifest.template == "chatml":
        return _CHATML.replace("EOS", end)
    if templates.is_chat(manifest):
        return None
    if any(mark in in_format(manifest.template, [Message("user", ("x",))]) for mark in ('"""', "{{")):
        return None
    prompt, system = "{{ .Prompt }}", "{{ .System }}"
    alone = in_format(manifest.template, [Message("user", (prompt,))])
    if placeholders(manifest.template) != {"instruction", "input"}:
        return alone
    both = format_renderer(manifest.template)(system, prompt)
    return f"{{{{ if .System }}}}{both}{{{{ else }}}}{alone}{{{{ end }}}}"


def _note(manifest: Manifest) -> str:
    if manifest.template in BUILT_IN:
        which = f"dataset.template={manifest.template}"
    else:
        which = "the base's own chat template" if templates.is_chat(manifest) else "the format string in manifest.json"
    return (
        f"# TEMPLATE: the adapter was trained with {which}, which has no form in Ollama's language here. Ollama knows "
        "many by\n# the text in the file; compare what it shows with `ollama show --template` before you rely on it."
    )
