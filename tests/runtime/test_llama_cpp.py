"""Answers through llama.cpp's own server, in this process."""

from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer

from loraloop.errors import ArtefactError, ConfigError
from loraloop.model.causal import CausalLM
from loraloop.publish import gguf_model, template
from loraloop.records import Export
from loraloop.runtime.llama_cpp import LlamaCpp
from loraloop.workflows.sample_chats import CHATS

PROMPT = "Twelve vaults: HHTH\n> "


def export(form="gguf"):
    return Export(form=form, dtype="f32", version="m/1", content="", base="", trained_on="none")


@pytest.fixture(scope="module")
def tiny():
    """The bundled model, with ChatML that shows tools."""
    loaded = CausalLM(name="bundled:tiny").load()
    template.give(loaded.tokenizer, SimpleNamespace(template="chatml"))
    return loaded


@pytest.fixture(scope="module")
def session(tiny, tmp_path_factory):
    """The same in llama.cpp, written in float32."""
    pytest.importorskip("xllamacpp")
    folder = tmp_path_factory.mktemp("gguf")
    gguf_model.write(folder / "m.gguf", tiny, "f32")
    opened = LlamaCpp(context=1024).open(folder, export(), None)
    yield opened
    opened.close()


def test_llama_cpp_answers_as_transformers_does(tiny, session):
    """The bundled byte tokenizer and model, as GGUF in float32, give transformers' greedy answer in llama.cpp."""
    import torch

    ids = torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])
    output = tiny.model.generate(input_ids=ids, attention_mask=ids * 0 + 1, do_sample=False, max_new_tokens=12)
    wanted = tiny.tokenizer.decode(output[0, ids.shape[1] :], skip_special_tokens=True)
    found = session.answer(PROMPT, 12)
    assert found.text == "".join(found.tokens) == wanted


def test_the_likeliest_tokens_are_those_of_transformers(tiny, session):
    """The logarithms of the probabilities of the 20 likeliest next tokens are transformers' to a hundredth."""
    import torch

    ids = torch.tensor([tiny.tokenizer(PROMPT)["input_ids"]])
    with torch.no_grad():
        top = tiny.model(input_ids=ids).logits[0, -1].log_softmax(-1).topk(20)
    found = session.top(PROMPT, 20)
    assert list(found) == top.indices.tolist()
    assert list(found.values()) == pytest.approx(top.values.tolist(), abs=1e-2)


def test_conversations_have_the_tokens_of_the_training(tiny, session, tmp_path):
    """50 conversations with tools, calls and results have the training's tokens in llama.cpp and in a merged folder."""
    from loraloop.core import prompts
    from loraloop.core.messages import read_all, write
    from loraloop.runtime.transformers import TransformersSession
    from loraloop.source.agent_calls import AgentCalls

    tiny.tokenizer.save_pretrained(tmp_path)
    merged = TransformersSession(tiny.model, AutoTokenizer.from_pretrained(tmp_path))
    made = AgentCalls(conversations=50).collect(None).examples
    chats = [*CHATS, *(([write(each) for each in example.messages[:-1]], example.tools) for example in made)]
    assert len(made) == 50
    assert sum(any(each.get("tool_calls") for each in messages) for messages, _ in chats) > 30
    for messages, tools in chats:
        text = prompts.ask("chatml", tiny.tokenizer, read_all(messages), tools)
        wanted = tiny.tokenizer(text)["input_ids"]
        assert session.chat(messages, tools) == wanted
        assert merged.chat(messages, tools) == wanted


def test_a_file_that_is_cut_short_is_refused(tiny, tmp_path):
    """llama.cpp is never given a file that is no whole GGUF."""
    pytest.importorskip("xllamacpp")
    gguf_model.write(tmp_path / "m.gguf", tiny, "f32")
    whole = (tmp_path / "m.gguf").read_bytes()
    (tmp_path / "m.gguf").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(ArtefactError, match="is damaged or no GGUF"):
        LlamaCpp().open(tmp_path, export(), None)


@pytest.mark.parametrize("own", ["{% include 'other' %}", "{{ messages[0].content | wordwrap(3) }}"])
def test_a_template_that_llama_cpp_cannot_run_is_named(tiny, tmp_path, own):
    """The message says that it is the template, not the weights, and what to take instead."""
    pytest.importorskip("xllamacpp")
    gguf_model.write(tmp_path / "m.gguf", tiny, "f16")
    (tmp_path / "chat_template.jinja").write_text(own)
    with pytest.raises(ArtefactError, match=r"cannot run the chat template of m\.gguf.*take publish=merged.*chatml"):
        LlamaCpp().open(tmp_path, export(), None)


def test_a_base_that_is_no_file_is_told(tmp_path):
    """runtime.base must be a file."""
    pytest.importorskip("xllamacpp")
    with pytest.raises(ConfigError, match=r"runtime\.base=.* is no file: name the base as GGUF"):
        LlamaCpp(base=tmp_path / "none.gguf").check()
