"""Ollama's Modelfile."""

import re
from types import SimpleNamespace

import pytest

from loraloop.publish.ollama import modelfile

TOKENIZER = SimpleNamespace(eos_token="<|im_end|>")  # noqa: S106
INSTRUCTIONS = {"FROM", "PARAMETER", "TEMPLATE", "SYSTEM", "ADAPTER", "LICENSE", "MESSAGE", "REQUIRES"}


def parsed(text):
    """A Modelfile by the grammar of https://docs.ollama.com/modelfile: comments, and instructions with arguments.

    An argument is the rest of the line, or stands between three quotation marks over several lines.
    """
    found = []
    while text := text.lstrip():
        if text.startswith("#"):
            text = text.partition("\n")[2]
            continue
        match = re.match(r'(\w+)[ \t]+(?:"""(.*?)"""[ \t]*(?:\n|$)|([^\n]+)(?:\n|$))', text, re.DOTALL)
        assert match, text
        assert match[1].upper() in INSTRUCTIONS
        found.append((match[1].upper(), match[2] if match[2] is not None else match[3]))
        text = text[match.end() :]
    return found


def actions(template):
    """The first words of a Go template's actions; every block of it ends, and no action is left open."""
    found = re.findall(r"\{\{-?\s*(.*?)\s*-?\}\}", template)
    assert "{{" not in re.sub(r"\{\{.*?\}\}", "", template)
    words = [each.split()[0] for each in found]
    depth = 0
    for word in words:
        depth += {"if": 1, "range": 1, "end": -1}.get(word, 0)
        assert depth >= 0
    assert depth == 0
    return set(words)


@pytest.mark.parametrize("adapter", [False, True])
@pytest.mark.parametrize("template", ["chatml", "llama2", "chat", "{instruction}\n{input}\n> ", "{input}: "])
def test_a_modelfile_keeps_ollama_s_grammar(template, adapter):
    """It parses by the documented grammar: one source, a stop token, and a template that uses what Ollama gives."""
    made = parsed(modelfile("m.gguf", SimpleNamespace(template=template), TOKENIZER, adapter=adapter))
    names = [name for name, _ in made]
    assert names == [
        "FROM", *(["ADAPTER"] if adapter else []), *(["TEMPLATE"] if template not in ("llama2", "chat") else []),
        "PARAMETER",
    ]  # fmt: skip
    assert made[-1] == ("PARAMETER", 'stop "<|im_end|>"')
    for name, value in made:
        if name == "TEMPLATE":
            allowed = {".System", ".Prompt", ".Tools", ".Function.Name", ".Function.Arguments", "."}
            allowed |= {"$turn.Role", "$turn.Content", "if", "else", "range", "end"}
            assert actions(value) <= allowed


@pytest.mark.parametrize("template", ['"""{input}""" ', "{{{{{input}}}}} "])
def test_marks_of_ollama_s_own_stand_in_a_comment(template):
    """A format string with three quotation marks or two braces would end the template, or begin an action."""
    made = modelfile("m.gguf", SimpleNamespace(template=template), TOKENIZER, adapter=False)
    assert [name for name, _ in parsed(made)] == ["FROM", "PARAMETER"]
    assert "# TEMPLATE: " in made


def test_a_modelfile_has_template_and_stop_token():
    """ChatML and format strings are said in Ollama's language, an instruction being the system's words."""
    made = modelfile("m.gguf", SimpleNamespace(template="chatml"), TOKENIZER, adapter=False)
    assert made.startswith("FROM ./m.gguf\nTEMPLATE ")
    assert "<|im_start|>{{ $turn.Role }}\n{{ $turn.Content }}" in made
    assert made.endswith('PARAMETER stop "<|im_end|>"\n')
    made = modelfile("m.gguf", SimpleNamespace(template="{instruction}\n{input}\n> "), TOKENIZER, adapter=False)
    wanted = "{{ if .System }}{{ .System }}\n{{ .Prompt }}\n> {{ else }}{{ .Prompt }}\n> {{ end }}"
    assert f'TEMPLATE """{wanted}"""' in made


def test_what_ollama_cannot_be_told_is_named():
    """A LoRA names its base by hand, and a template without a form in Ollama's language stands in a comment."""
    made = modelfile("l.gguf", SimpleNamespace(template="llama2"), TOKENIZER, adapter=True)
    assert "FROM ./BASE.gguf\nADAPTER ./l.gguf" in made
    assert "# TEMPLATE: the adapter was trained with dataset.template=llama2" in made
