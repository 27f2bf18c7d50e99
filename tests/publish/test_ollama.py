"""Ollama's Modelfile."""

from types import SimpleNamespace

from loraloop.publish.ollama import modelfile

TOKENIZER = SimpleNamespace(eos_token="<|im_end|>")  # noqa: S106


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
