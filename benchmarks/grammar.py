"""Three libraries that hold an answer to a JSON schema: the time of a mask and of the first one, and what they hold.

Times are the processor's, since the thread that runs the model pays them. A library that is not there is left out. Run:
``pip install llguidance outlines-core xgrammar``, then ``python benchmarks/grammar.py [FOLDER_OF_A_TOKENIZER]``: of a
base as transformers saves it, such as SmolLM2-135M's, which is measured beside the bundled tokenizer.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

from machine import describe

from loraloop.core import atomic
from loraloop.model.tokenizer import byte_tokenizer

ROUNDS = 5
SCHEMAS: dict[str, tuple[dict[str, Any], Any]] = {
    "call": (
        {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}, "unit": {"enum": ["C", "F"]}},
            "required": ["city", "days", "unit"],
            "additionalProperties": False,
        },
        {"city": "Saint-Étienne-du-Rouvray", "days": 14, "unit": "C"},
    ),
    "order": (
        {
            "type": "object",
            "$defs": {
                "line": {
                    "type": "object",
                    "properties": {
                        "article": {"type": "string", "pattern": "^[A-Z]{2}-[0-9]{4}$"},
                        "count": {"type": "integer"},
                        "note": {"anyOf": [{"type": "string"}, {"type": "null"}]},
                    },
                    "required": ["article", "count", "note"],
                    "additionalProperties": False,
                }
            },
            "properties": {"lines": {"type": "array", "items": {"$ref": "#/$defs/line"}}, "paid": {"type": "boolean"}},
            "required": ["lines", "paid"],
            "additionalProperties": False,
        },
        {
            "lines": [
                {"article": f"AB-10{n:02}", "count": n, "note": None if n % 2 else "leave it at the door, please"}
                for n in range(12)
            ],
            "paid": True,
        },
    ),
    "200 fields": (
        {
            "type": "object",
            "properties": {f"field_{n}": {"type": "string"} for n in range(200)},
            "required": [f"field_{n}" for n in range(200)],
            "additionalProperties": False,
        },
        {f"field_{n}": f"the value of {n}" for n in range(200)},
    ),
}
LIST = {"type": "array", "items": {"$ref": "#/$defs/n"}}
OBJECT = {"type": "object", "required": ["a"], "additionalProperties": False}
RULES: dict[str, tuple[dict[str, Any], Any, Any]] = {
    "required": (OBJECT | {"properties": {"a": {"type": "null"}}}, {"a": None}, {}),
    "optional": (OBJECT | {"properties": {"a": {"type": "null"}, "b": {"type": "null"}}}, {"a": None}, {"b": None}),
    "additionalProperties": ({"type": "object", "additionalProperties": {"type": "null"}}, {"x": None}, {"x": 1}),
    "patternProperties": (
        {"type": "object", "patternProperties": {"^x": {"type": "null"}}, "additionalProperties": False},
        {"xy": None},
        {"y": None},
    ),
    "minimum, maximum": ({"type": "integer", "minimum": 3, "maximum": 120}, 120, 121),
    "exclusiveMinimum of a number": ({"type": "number", "exclusiveMinimum": 0.5}, 0.51, 0.5),
    "multipleOf": ({"type": "integer", "multipleOf": 5}, 15, 16),
    "minLength, maxLength": ({"type": "string", "minLength": 2, "maxLength": 3}, "abc", "abcd"),
    "pattern": ({"type": "string", "pattern": "^[a-c]+-[0-9]{2}$"}, "abc-12", "abd-12"),
    "format date-time": ({"type": "string", "format": "date-time"}, "2026-11-29T09:00:00Z", "2026-11-29"),
    "format uuid": ({"type": "string", "format": "uuid"}, "00000000-0000-4000-8000-000000000000", "0000"),
    "minItems, maxItems": (
        {"type": "array", "items": {"type": "null"}, "minItems": 1, "maxItems": 2},
        [None],
        [None] * 3,
    ),
    "prefixItems": (
        {"type": "array", "prefixItems": [{"type": "null"}, {"type": "integer"}], "items": False, "minItems": 2},
        [None, 1],
        [1, None],
    ),
    "enum of any type": ({"enum": ["a", 1, None, {"b": [2]}]}, {"b": [2]}, {"b": [3]}),
    "const": ({"const": {"a": 1}}, {"a": 1}, {"a": 2}),
    "type list": ({"type": ["integer", "null"]}, None, "a"),
    "anyOf": ({"anyOf": [{"type": "integer"}, {"type": "boolean"}]}, True, "a"),
    "allOf": ({"allOf": [{"type": "integer", "minimum": 3}, {"maximum": 5}]}, 4, 6),
    "oneOf, disjoint": ({"oneOf": [{"const": "a"}, {"const": "b"}]}, "b", "c"),
    "recursive $ref": (
        {"$ref": "#/$defs/n", "$defs": {"n": {"anyOf": [{"type": "null"}, LIST]}}},
        [[None], []],
        [[1]],
    ),
    "any JSON below an object": ({"type": "object"}, {"a": [{"b": 1.5e3}]}, [1]),
    "not": ({"not": {"type": "string"}}, 1, "a"),
    "uniqueItems": ({"type": "array", "items": {"type": "integer"}, "uniqueItems": True}, [1, 2], [1, 1]),
    "if, then": ({"type": "integer", "if": {"minimum": 5}, "then": {"maximum": 7}}, 6, 8),
}  # fmt: skip
Matcher = tuple[Callable[[], Any], Callable[[int], bool]]
"""Fills the mask of the next token, and takes a token: whether it was allowed."""


class LLGuidance:
    """Rust; a lexer of derivatives and an Earley parser, masks computed as they are needed."""

    package, needs = "llguidance", "nothing"

    def __init__(self, tokenizer: Any) -> None:
        from llguidance import LLTokenizer

        self._tokenizer = LLTokenizer(tokenizer.backend_tokenizer.to_str(), eos_token=tokenizer.eos_token_id)

    def begin(self, schema: Any) -> Matcher:
        """Start a text under a schema."""
        from llguidance import LLMatcher

        matcher = LLMatcher(self._tokenizer, LLMatcher.grammar_from_json_schema(schema), log_level=0)
        if matcher.is_error():
            raise ValueError(matcher.get_error())
        return matcher.compute_bitmask, matcher.consume_token


class XGrammar:
    """C++; a pushdown automaton whose masks are computed when the schema is compiled."""

    package, needs = "xgrammar", "torch, transformers, triton, apache-tvm-ffi, pydantic, numpy"

    def __init__(self, tokenizer: Any) -> None:
        import xgrammar

        self._size = len(tokenizer)
        info = xgrammar.TokenizerInfo.from_huggingface(tokenizer, vocab_size=self._size)
        self._compiler = xgrammar.GrammarCompiler(info, max_threads=2, cache_enabled=False)

    def begin(self, schema: Any) -> Matcher:
        """Start a text under a schema."""
        import xgrammar

        matcher = xgrammar.GrammarMatcher(self._compiler.compile_json_schema(json.dumps(schema), strict_mode=False))
        mask = xgrammar.allocate_token_bitmask(1, self._size)
        return lambda: matcher.fill_next_token_bitmask(mask), matcher.accept_token


class OutlinesCore:
    """Rust; a regular expression whose automaton over tokens is built when the schema is compiled."""

    package, needs = "outlines-core", "nothing"

    def __init__(self, tokenizer: Any) -> None:
        from outlines_core import Vocabulary
        from transformers.convert_slow_tokenizer import bytes_to_unicode

        bytes_of = {character: byte for byte, character in bytes_to_unicode().items()}
        special = {*tokenizer.all_special_ids}
        tokens: dict[bytes, list[int]] = {}
        for name, number in tokenizer.get_vocab().items():
            if number not in special and all(character in bytes_of for character in name):
                tokens.setdefault(bytes(bytes_of[character] for character in name), []).append(number)
        self._size = len(tokenizer)
        self._vocabulary = Vocabulary(tokenizer.eos_token_id, tokens)

    def begin(self, schema: Any) -> Matcher:
        """Start a text under a schema."""
        import numpy as np
        from outlines_core import Guide, Index
        from outlines_core.json_schema import build_regex_from_schema

        guide = Guide(Index(build_regex_from_schema(json.dumps(schema)), self._vocabulary))
        mask = np.zeros((self._size + 31) // 32, np.int32)

        def take(token: int) -> bool:
            if token not in guide.get_tokens():
                return False
            if not guide.is_finished():
                guide.advance(token, return_tokens=False)
            return True

        return lambda: guide.write_mask_into(mask.ctypes.data, mask.size, 4), take


LIBRARIES: Sequence[Any] = (LLGuidance, XGrammar, OutlinesCore)


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Milliseconds of the processor, in all threads, and what came of it."""
    begun = time.process_time()
    made = work()
    return 1e3 * (time.process_time() - begun), made


def masks(library: Any, tokenizer: Any, schema: Any, value: Any) -> dict[str, Any]:
    """Milliseconds until the first mask, and of each mask of a value's text."""
    firsts, each = [], []
    for _ in range(ROUNDS):
        first, (fill, take) = timed(lambda: library.begin(schema))
        times = []
        for token in tokenizer(json.dumps(value, ensure_ascii=False), add_special_tokens=False).input_ids:
            times.append(timed(fill)[0])
            if not take(token):
                return {"refuses a valid value": True}
        firsts.append(first + times[0])
        each += times[1:]
    p50, p95 = (statistics.quantiles(each, n=100)[at] for at in (49, 94))
    return {
        "first_ms": round(statistics.median(firsts), 2),
        "mask_ms": {"p50": round(p50, 4), "p95": round(p95, 4), "max": round(max(each), 2)},
    }


def holds(library: Any, tokenizer: Any, rule: tuple[Any, Any, Any]) -> str:
    """``yes``, or ``refused``, ``too loose``, ``too strict``."""
    schema, right, wrong = rule

    def allows(value: Any) -> bool:
        fill, take = library.begin(schema)
        tokens = tokenizer(json.dumps(value, ensure_ascii=False), add_special_tokens=False).input_ids
        for token in [*tokens, tokenizer.eos_token_id]:
            fill()
            if not take(token):
                return False
        return True

    try:
        if not allows(right):
            return "too strict"
        return "too loose" if allows(wrong) else "yes"
    except Exception as error:  # each library raises what it likes
        print(f"  {library.package}: {schema}: {str(error)[:150]}", file=sys.stderr)
        return "refused"


def measure(library: Any, tokenizer: Any, *, rules: bool) -> dict[str, Any]:
    """All figures of a library on a tokenizer."""
    took, made = timed(lambda: library(tokenizer))
    figures: dict[str, Any] = {"tokenizer_ms": round(took, 1)}
    figures |= {name: masks(made, tokenizer, *each) for name, each in SCHEMAS.items()}
    if rules:
        found = {name: holds(made, tokenizer, rule) for name, rule in RULES.items()}
        figures["rules held to"] = f"{sum(how == 'yes' for how in found.values())} of {len(found)}"
        figures["rules not held to"] = {name: how for name, how in found.items() if how != "yes"}
    return figures


def main() -> None:
    """Measure, print and keep the figures in ``benchmarks/results/grammar.json``."""
    tokenizers = {"tiny": byte_tokenizer()}
    if sys.argv[1:]:
        from transformers import AutoTokenizer

        tokenizers[Path(sys.argv[1]).name] = AutoTokenizer.from_pretrained(sys.argv[1])
    figures: dict[str, Any] = {}
    for library in LIBRARIES:
        try:
            version = metadata.version(library.package)
        except metadata.PackageNotFoundError:
            continue
        figures[library.package] = {"version": version, "needs": library.needs}
        for name, tokenizer in tokenizers.items():
            print(library.package, name, file=sys.stderr)
            known = f"{name}, {len(tokenizer):,} tokens"
            figures[library.package][known] = measure(library, tokenizer, rules=name != "tiny" or len(tokenizers) == 1)
    figures |= describe("llguidance", "tokenizers", "transformers")
    with atomic.write(Path(__file__).parent / "results" / "grammar.json") as stream:
        stream.write((json.dumps(figures, indent=2) + "\n").encode())
    print(json.dumps(figures, indent=2))


if __name__ == "__main__":
    main()
