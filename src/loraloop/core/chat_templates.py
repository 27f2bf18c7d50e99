"""Chat templates by name: the tokenizer's own, and Jinja templates for bases that have none or show no tools."""

from __future__ import annotations

from collections.abc import Mapping

CHAT = "chat"
"""The tokenizer's own."""

_TOOLS = (
    "You can call these tools:\n"
    "{% for tool in tools %}{{ tool | tojson }}\n{% endfor %}"
    'To call one, write <tool_call>{"name": NAME, "arguments": {...}}</tool_call>.'
)
_CALLS = (
    "{% for call in message.tool_calls or [] %}"
    "{% if message.content or not loop.first %}{{ '\n' }}{% endif %}"
    '<tool_call>{"name": {{ call.function.name | tojson }}, '
    '"arguments": {{ call.function.arguments | tojson }}}</tool_call>'
    "{% endfor %}"
)
_SYSTEM = (
    "{% set told = messages[0].content if messages and messages[0].role == 'system' else '' %}"
    "{% set rest = messages[1:] if messages and messages[0].role == 'system' else messages %}"
)

# https://github.com/openai/openai-python/blob/release-v0.28.0/chatml.md, with the tokenizer's end token as the end of a
# turn: a base that was trained on ChatML has <|im_end|> there, and another one can learn to stop only at its own.
_CHATML = (
    _SYSTEM
    + "{% if told or tools %}<|im_start|>system\n{{ told }}"
    + "{% if tools %}{% if told %}{{ '\n\n' }}{% endif %}"
    + _TOOLS
    + "{% endif %}{{ eos_token }}\n{% endif %}"
    + "{% for message in rest %}<|im_start|>{{ message.role }}\n{{ message.content or '' }}"
    + _CALLS
    + "{{ eos_token }}\n{% endfor %}"
    + "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)

# Llama 2's format (https://github.com/meta-llama/llama, llama/generation.py), the system's words within the first
# question; the start token before each question is the tokenizer's.
_LLAMA2 = (
    _SYSTEM
    + "{% for message in rest %}{% if message.role == 'assistant' %} {{ message.content or '' }}"
    + _CALLS
    + "{{ eos_token }}{% else %}{{ bos_token }}[INST] "
    + "{% if loop.first and (told or tools) %}<<SYS>>\n{{ told }}{% if tools %}{% if told %}{{ '\n\n' }}{% endif %}"
    + _TOOLS
    + "{% endif %}{{ '\n' }}<</SYS>>\n\n{% endif %}"
    + "{% if message.role == 'tool' %}Result: {% endif %}{{ message.content }} [/INST]{% endif %}{% endfor %}"
)

_PLAIN = (
    _SYSTEM
    + "{% if told %}{{ told }}\n{% endif %}{% if tools %}"
    + _TOOLS
    + "\n{% endif %}"
    + "{% for message in rest %}"
    + "{% if message.role == 'assistant' %}> {{ message.content or '' }}"
    + _CALLS
    + "{{ eos_token }}\n{% elif message.role == 'tool' %}= {{ message.content }}\n"
    + "{% else %}{{ message.content }}\n{% endif %}{% endfor %}"
    + "{% if add_generation_prompt %}> {% endif %}"
)

BUILT_IN: Mapping[str, str] = {"chatml": _CHATML, "llama2": _LLAMA2, "plain": _PLAIN}
NAMED = (CHAT, *BUILT_IN)
"""What ``dataset.template`` may name beside a format string."""
