"""The sessions source: what is read, what is learnt from it, and what is set aside."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from pydantic import ValidationError

from loraloop.errors import ConfigError, DataError
from loraloop.records import Collection, Example
from loraloop.source.sessions import Sessions

CONF = Path(__file__).parents[2] / "conf"


def call(name: str, /, **arguments: Any) -> dict[str, Any]:
    return {"name": name, "arguments": arguments}


def log(folder: Path, name: str, **fields: Any) -> None:
    record = {"task": "Save the draft", "agent": "actor", **fields}
    if isinstance(calls := record.pop("calls", None), list):
        record["iterations"] = [{"tool_calls": calls, "screenshot_summary": "form"}]
    (folder / name).mkdir(parents=True)
    (folder / name / "session.json").write_text(json.dumps(record), encoding="utf-8")


def collect(folder: Path, **settings: Any) -> Collection:
    return Sessions(path=folder, **{"min_corrective": 0, **settings}).collect()


def only(folder: Path, name: str = "bad") -> Example:
    examples = {one.provenance.session_id: one for one in collect(folder).examples}
    return examples[name]


def reason(folder: Path, name: str = "bad", **settings: Any) -> str:
    log(folder, "zz-good", task="something else", user_rating=5, answer="fine")
    return {one.item: one.reason for one in collect(folder, **settings).quarantined}[name]


def test_a_correction_comes_before_a_sibling_and_a_rule(tmp_path: Path) -> None:
    """A person's correction is the target even where a good sibling and a rule would give one."""
    bad = call("click", target="Cancel") | {"alternatives": [call("click", target="Save")]}
    log(tmp_path, "bad", user_rating=1, calls=[bad], what_went_wrong=["Wrong action selected"], correction=" save() ")
    log(tmp_path, "good", user_rating=5, calls=[call("press", key="F2")])
    assert only(tmp_path).output == "save()"


def test_a_sibling_comes_before_a_rule(tmp_path: Path) -> None:
    """Without a correction the best-rated sibling of the same task, however written, gives the target."""
    bad = call("click", target="Cancel") | {"alternatives": [call("click", target="Save")]}
    log(tmp_path, "bad", user_rating=1, calls=[bad], what_went_wrong=["Wrong action selected"])
    log(tmp_path, "good", task="  save the DRAFT. ", user_rating=5, calls=[call("press", key="F2")])
    assert only(tmp_path).output == "press(F2)"


@pytest.mark.parametrize("other", [{"agent": "recovery"}, {"task": "Save the drafts"}, {"user_rating": 4}])
def test_only_a_high_rated_answer_of_the_same_agent_to_the_same_task_is_a_sibling(
    tmp_path: Path, other: dict[str, Any]
) -> None:
    """Another agent's answer, another task's, or one rated 4 is not taken over."""
    log(tmp_path, "bad", user_rating=1, answer="no")
    log(tmp_path, "good", **{"user_rating": 5, "answer": "yes"} | other)
    assert "no other answer rated 5 or more" in reason(tmp_path)


def test_siblings_are_taken_by_success_then_speed(tmp_path: Path) -> None:
    """Among equally rated siblings the successful one is taken, then the quicker."""
    log(tmp_path, "bad", user_rating=1, answer="no")
    log(tmp_path, "a", user_rating=5, answer="failed", success=False, duration=1)
    log(tmp_path, "b", user_rating=5, answer="slow", success=True, duration=9)
    log(tmp_path, "c", user_rating=5, answer="quick", success=True, duration=2.5)
    assert only(tmp_path).output == "quick"


@pytest.mark.parametrize("issue", ["OCR confidence low", "ocr_confidence_low", "OCR-Confidence low "])
def test_an_unsure_reading_is_made_again_on_a_sharper_crop(tmp_path: Path, issue: str) -> None:
    """The rule for low OCR confidence crops at twice the scale, reads, verifies, and only then acts."""
    sure = call("ocr", region="title") | {"confidence": 90}
    unsure = call("ocr", region="code", scale=2) | {"confidence": 89.9}
    log(tmp_path, "bad", user_rating=2, calls=[sure, unsure, call("unlock")], what_went_wrong=[issue])
    assert only(tmp_path).output == "ocr(title); crop(region=code,scale=4); ocr(code); verify(code); unlock()"


def test_a_reading_of_the_whole_screen_is_cropped_too(tmp_path: Path) -> None:
    """A reading without a region is made again on the screen."""
    log(tmp_path, "bad", user_rating=2, calls=[call("read_text")], what_went_wrong=["OCR confidence low"])
    assert only(tmp_path).output == "crop(region=screen,scale=2); read_text(screen); verify(screen)"


def test_a_wrong_action_gives_way_to_the_recorded_alternative(tmp_path: Path) -> None:
    """The failed call is replaced, its iteration kept, and later iterations dropped with their screens."""
    doubtful = call("open", menu="File") | {"confidence": 10, "alternatives": [call("open", menu="Edit")]}
    wrong = call("click", target="Cancel") | {"error": "lost", "alternatives": [call("click", target="Save")]}
    steps = [
        {"tool_calls": [doubtful], "screenshot_summary": "editor"},
        {"tool_calls": [wrong, call("press", key="Enter")], "screenshot_summary": "dialog"},
        {"tool_calls": [call("done")], "screenshot_summary": "draft gone"},
    ]
    log(tmp_path, "bad", user_rating=1, iterations=steps, what_went_wrong=["wrong_action_selected"])
    example = only(tmp_path)
    assert example.output == "open(File); click(Save); press(Enter)"
    assert example.input == "Save the draft\nScreen: editor"


def test_without_a_failed_call_the_least_confident_one_gives_way(tmp_path: Path) -> None:
    """Where nothing failed, the call chosen with the least confidence is replaced."""
    first = call("open", menu="File") | {"confidence": 80, "alternatives": [call("open", menu="Edit")]}
    second = call("click", target="Cancel") | {"confidence": 45, "alternatives": [call("click", target="Save")]}
    log(tmp_path, "bad", user_rating=1, calls=[second, first], what_went_wrong=["Wrong action selected"])
    assert only(tmp_path).output == "click(Save); open(File)"


def test_an_alternative_that_was_itself_rated_low_is_passed_over(tmp_path: Path) -> None:
    """A rule does not arrive at an answer that another session of the same task shows to be bad."""
    wrong = call("a") | {"alternatives": [call("a"), call("b"), call("c")]}
    log(tmp_path, "bad", user_rating=1, calls=[wrong], what_went_wrong=["Wrong action selected"])
    log(tmp_path, "worse", user_rating=1, calls=[call("b")], correction="c()")
    assert only(tmp_path).output == "c()"


@pytest.mark.parametrize(
    ("slow", "target"),
    [
        (call("upload", files=["a", "b", "c"]), 'upload(["a","b"]); upload(["c"])'),
        (call("hold", target="Mute", timeout=4), "hold(target=Mute,timeout=8)"),
        (call("hold", target="Mute", timeout=45), "hold(target=Mute,timeout=60)"),
        (call("click", target="Unlock") | {"seconds": 10.5}, "wait_for(target=Unlock,timeout=22); click(Unlock)"),
        (call("reload"), "wait_for(target=reload,timeout=30); reload()"),
    ],
)
def test_what_ran_out_of_time_is_split_or_waits_longer(tmp_path: Path, slow: dict[str, Any], target: str) -> None:
    """The rule for timeouts halves a list, else doubles the wait up to a bound, else waits first."""
    log(tmp_path, "bad", user_rating=2, calls=[slow], what_went_wrong=["Timeout"])
    assert only(tmp_path).output == target


def test_the_failed_call_is_the_one_that_ran_out_of_time(tmp_path: Path) -> None:
    """A failed call is mended before a slower one that succeeded."""
    calls = [call("load") | {"seconds": 50}, call("wait", seconds=5) | {"error": "timed out"}, call("go")]
    log(tmp_path, "bad", user_rating=2, calls=calls, what_went_wrong=["Timeout"])
    assert only(tmp_path).output == "load(); wait(10); go()"


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"what_went_wrong": ["Glitch"], "answer": "x"}, "no automatic correction exists for 'Glitch'"),
        ({"what_went_wrong": None, "answer": "x"}, "what_went_wrong is empty"),
        ({"what_went_wrong": ["Timeout"], "calls": [call("wait", seconds=60)]}, "'Timeout' needs a recorded call that"),
        ({"what_went_wrong": ["OCR confidence low"], "answer": "x"}, "needs a recorded reading below 90%"),
        ({"what_went_wrong": ["Wrong action selected"], "calls": [call("x")]}, "needs a recorded alternative"),
        ({"correction": "[manual review needed]", "answer": "x"}, "what_went_wrong is empty"),
        ({"what_went_wrong": ["Timeout"], "calls": [call("say", text="Manual review needed")]}, "'Timeout' needs"),
        ({"correction": " same  answer", "answer": "same answer "}, "what_went_wrong is empty"),
    ],
)
def test_a_session_that_nothing_corrects_is_set_aside_with_the_reason(
    tmp_path: Path, fields: dict[str, Any], said: str
) -> None:
    """Where no target can be had, the session is quarantined: no placeholder and no bad answer stands in."""
    log(tmp_path, "bad", user_rating=2, **fields)
    assert said in reason(tmp_path)


def test_a_placeholder_is_no_answer_of_a_sibling_either(tmp_path: Path) -> None:
    """A high-rated session whose answer is a placeholder teaches nothing."""
    log(tmp_path, "bad", user_rating=5, answer="[Manual review  needed]")
    assert reason(tmp_path) == "rated 5, but neither an answer nor a tool call is recorded"


def test_what_is_neither_bad_nor_good_is_left_out(tmp_path: Path) -> None:
    """Ratings from below to min_positive_rating and unrated sessions make no example and are no fault."""
    log(tmp_path, "a", user_rating=4, answer="x")
    log(tmp_path, "b", user_rating=None, answer="x")
    log(tmp_path, "c", answer="x")
    log(tmp_path, "d", user_rating=5, answer="y")
    collection = collect(tmp_path)
    assert [one.output for one in collection.examples] == ["y"]
    assert collection.quarantined == ()


def test_use_and_agents_choose_among_the_sessions(tmp_path: Path) -> None:
    """``use`` keeps one kind of example, ``agents`` the sessions of some agents."""
    log(tmp_path, "a", user_rating=1, answer="x", correction="y")
    log(tmp_path, "b", user_rating=5, answer="z", agent="recovery")
    log(tmp_path, "c", user_rating=5, answer="z", agent=None)
    assert [one.output for one in collect(tmp_path, use=["corrective"]).examples] == ["y"]
    assert [one.output for one in collect(tmp_path, use=["positive"]).examples] == ["z", "z"]
    assert [one.task for one in collect(tmp_path, agents=["recovery"]).examples] == ["recovery"]
    assert [one.task for one in collect(tmp_path).examples] == ["actor", "recovery", "session"]


def test_siblings_share_their_origin_and_every_example_its_session(tmp_path: Path) -> None:
    """Sessions of one task have one origin, so a split keeps them together, and each example names its session."""
    log(tmp_path, "a", user_rating=5, answer="x")
    log(tmp_path, "b", task="SAVE the  draft!", user_rating=5, answer="y")
    examples = collect(tmp_path).examples
    assert {one.origin for one in examples} == {"save the draft"}
    assert [(one.provenance.source, one.provenance.session_id) for one in examples] == [
        ("sessions", "a"),
        ("sessions", "b"),
    ]


def test_the_input_holds_the_screens_up_to_the_first_call(tmp_path: Path) -> None:
    """Screens that the answer's own calls led to are not in the input, repeats are not either."""
    screens = ["start", "start ", None, "form"]
    steps: list[dict[str, Any]] = [{"screenshot_summary": screen} for screen in screens]
    steps += [{"screenshot_summary": "sent", "tool_calls": [call("x")]}]
    steps[3]["tool_calls"] = [call("send")]
    log(tmp_path, "bad", user_rating=5, iterations=steps)
    assert only(tmp_path).input == "Save the draft\nScreen: start > form"


def test_arguments_are_written_so_that_types_can_be_told(tmp_path: Path) -> None:
    """A text that looks like a number, or holds a separator, is quoted; other loggers' names of fields are read."""
    calls = [
        {"tool": "type", "args": {"text": "30", "field": "Min"}},
        call("wait", seconds=30),
        call("say", text="a, b"),
        call("set", on=True),
    ]
    log(tmp_path, "bad", user_rating=5, calls=calls)
    assert only(tmp_path).output == 'type(field=Min,text="30"); wait(30); say("a, b"); set(true)'


def test_pairs_prefer_five_stars_to_fewer_than_three(tmp_path: Path) -> None:
    """With pairs every answer below 3 is rejected for a 5-star answer to the same task; 3 and 4 take no part."""
    for name, rating in {"a": 5, "b": 4, "c": 3, "d": 2, "e": 1}.items():
        log(tmp_path, name, user_rating=rating, answer=f"plan {name}", agent="coordinator")
    pairs = [
        (one.output, one.rejected.text, one.provenance.session_id) for one in collect(tmp_path, pairs=True).examples
    ]
    assert pairs == [("plan a", "plan d", "d"), ("plan a", "plan e", "e")]


def test_pairs_use_every_answer_of_both_sides(tmp_path: Path) -> None:
    """Several good answers are dealt out over the bad ones, each good one once."""
    for name in "abcde":
        log(tmp_path, name, user_rating=5, answer=name)
    for name in "xy":
        log(tmp_path, name, user_rating=1, answer=name)
    log(tmp_path, "m", user_rating=3, answer="m")
    pairs = [(one.output, one.rejected.text) for one in collect(tmp_path, pairs=True).examples]
    assert pairs == [("a", "x"), ("c", "x"), ("e", "x"), ("b", "y"), ("d", "y")]


def test_an_answer_is_never_preferred_to_itself(tmp_path: Path) -> None:
    """One answer rated 5 and 1 makes no pair."""
    log(tmp_path, "bad", user_rating=1, answer="same")
    log(tmp_path, "b", user_rating=5, answer="same ")
    log(tmp_path, "c", task="other", user_rating=1, answer="x")
    log(tmp_path, "d", task="other", user_rating=5, answer="y")
    collection = collect(tmp_path, pairs=True)
    assert [(one.output, one.rejected.text) for one in collection.examples] == [("y", "x")]
    assert [one.item for one in collection.quarantined] == ["bad"]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "session.json is empty (0 bytes)"),
        (b'{"task": "x"', "session.json is not JSON: EOF"),
        (b'{"task": "caf\xe9"}', "session.json is not UTF-8: byte 13 is 0xe9"),
        (b"[]", "session.json: Input should be an object, not list"),
        (b"{}", "task: Field required"),
        (b'{"task": " "}', "task: String should have at least 1 character"),
        (b'{"task": "x", "user_rating": 6}', "user_rating: Input should be less than or equal to 5, not 6"),
        (b'{"task": "x", "user_rating": 0}', "user_rating: Input should be greater than or equal to 1, not 0"),
        (b'{"task": "x", "user_rating": "5"}', "user_rating: Input should be a valid integer, not '5'"),
        (b'{"task": "x", "user_rating": true}', "user_rating: Input should be a valid integer, not True"),
        (b'{"task": "x", "success": "yes"}', "success: Input should be a valid boolean, not 'yes'"),
        (b'{"task": "x", "duration": -1}', "duration: Input should be greater than or equal to 0, not -1"),
        (b'{"task": "x", "what_went_wrong": "Timeout"}', "what_went_wrong: Input should be a valid array"),
        (b'{"task": "x", "iterations": [{"tool_calls": ["y"]}]}', "iterations.0.tool_calls.0: Input should be an obj"),
        (b'{"task": "x", "agent": "pilot"}', "agent: Input should be 'validator', 'actor', 'coordinator' or 'rec"),
        (b"[" * 100_000, "session.json is not JSON: recursion limit exceeded"),
    ],
)
def test_a_broken_file_is_quarantined_with_its_reason(tmp_path: Path, content: bytes, said: str) -> None:
    """A file that is not a valid session is set aside with the field and the rule, and the others are still read."""
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "session.json").write_bytes(content)
    log(tmp_path, "good", user_rating=5, answer="x")
    collection = collect(tmp_path)
    assert [one.output for one in collection.examples] == ["x"]
    assert [one.item for one in collection.quarantined] == ["bad"]
    assert collection.quarantined[0].reason.startswith(said)


def test_a_folder_without_a_readable_session_is_quarantined(tmp_path: Path) -> None:
    """A folder without session.json, or with a folder of that name, is set aside; hidden ones and files are not."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "odd" / "session.json" / "x").mkdir(parents=True)
    (tmp_path / ".new.part").mkdir()
    (tmp_path / "README.md").write_text("notes")
    log(tmp_path, "good", user_rating=5, answer="x")
    assert {one.item: one.reason for one in collect(tmp_path).quarantined} == {
        "empty": "there is no session.json",
        "odd": "session.json cannot be read: Is a directory",
    }


def test_a_huge_file_is_quarantined_unread(tmp_path: Path) -> None:
    """A file beyond 16 MiB is set aside by its size."""
    (tmp_path / "bad").mkdir()
    with (tmp_path / "bad" / "session.json").open("wb") as stream:
        stream.truncate(2**24 + 1)
    assert reason(tmp_path) == "session.json has 16777217 bytes, more than 16777216"


def test_every_field_but_the_task_may_be_missing_or_unknown(tmp_path: Path) -> None:
    """A bare task is a valid session; nulls, a byte order mark and fields of other loggers do no harm."""
    nulls = dict.fromkeys(["iterations", "feedback_comment", "lora_version", "duration", "success", "created", "agent"])
    log(tmp_path, "a", **nulls, mood="good")
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "session.json").write_bytes(b'\xef\xbb\xbf{"task": "x"}')
    log(tmp_path, "c", user_rating=5, answer="x", lora_version=3)
    assert collect(tmp_path).quarantined == ()


def test_too_few_corrective_sessions_are_an_error_that_accounts_for_all(tmp_path: Path) -> None:
    """Fewer than min_corrective: the error counts them and says of every other session why it was not one."""
    log(tmp_path, "a", user_rating=1, answer="x", correction="y")
    log(tmp_path, "b", user_rating=5, answer="x", task="other")
    log(tmp_path, "c", user_rating=2, answer="x", task="third", what_went_wrong=["Glitch"])
    log(tmp_path, "d", answer="x")
    (tmp_path / "e").mkdir()
    with pytest.raises(DataError) as caught:
        Sessions(path=tmp_path).collect()
    message = str(caught.value)
    assert "holds 5 sessions, from which came 1 corrective examples; at least 5 are needed" in message
    assert "source.min_corrective=5" in message
    for said in (
        "positive example: b",
        "no automatic correction exists for 'Glitch': c",
        "not rated: d",
        "no session.json: e",
    ):
        assert said in message


def test_five_corrective_sessions_are_enough(tmp_path: Path) -> None:
    """Exactly min_corrective corrective examples pass."""
    for name in "abcde":
        log(tmp_path, name, task=name, user_rating=3, answer="x", correction="y")
    assert len(Sessions(path=tmp_path).collect().examples) == 5


@pytest.mark.parametrize("settings", [{"min_corrective": 0}, {"use": ["positive"]}, {"pairs": True}])
def test_no_example_at_all_is_an_error(tmp_path: Path, settings: dict[str, Any]) -> None:
    """An empty folder is refused under every setting."""
    with pytest.raises(DataError, match="holds 0 sessions"):
        Sessions(path=tmp_path, **settings).collect()


def test_a_missing_folder_is_found_before_any_work(tmp_path: Path) -> None:
    """``check`` names the key, the folder and the way out."""
    with pytest.raises(ConfigError, match=r"source\.path=.*nowhere does not exist.*session\.json"):
        Sessions(path=tmp_path / "nowhere").check()
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="is a file"):
        Sessions(path=tmp_path / "file").check()


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"below": 5, "min_positive_rating": 4}, "below=5 is above min_positive_rating=4.*write below=4 or less"),
        ({"rejected_below": 5, "below": 2, "min_positive_rating": 3}, "rejected_below=5 is above"),
        ({"below": 6}, "less than or equal to 5"),
        ({"use": []}, "at least 1 item"),
        ({"agents": ["pilot"]}, "'validator', 'actor'"),
        ({"paths": "x"}, "paths"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings: dict[str, Any], said: str) -> None:
    """Thresholds that overlap, values out of range and unknown keys fail on construction."""
    with pytest.raises(ValidationError, match=said):
        Sessions(**settings)


def test_an_answer_is_right_when_its_words_are(tmp_path: Path) -> None:
    """``correct`` passes over white space and nothing else."""
    log(tmp_path, "bad", user_rating=5, answer="1 open; 2 close")
    source, example = Sessions(path=tmp_path), only(tmp_path)
    assert source.correct(example, " 1 open;\n2  close\n")
    assert not source.correct(example, "1 Open; 2 close")


def test_the_yaml_files_hold_the_parts_own_defaults() -> None:
    """``sessions.yaml`` spells every field with its default, and ``plans.yaml`` changes just two."""
    with initialize_config_dir(str(CONF), version_base="1.3"):
        plain, plans = (dict(compose(f"source/{name}").source) for name in ("sessions", "plans"))
    assert {plain.pop("_target_"), plans.pop("_target_")} == {"loraloop.source.sessions.Sessions"}
    assert Sessions(**plain) == Sessions()
    assert set(plain) == set(Sessions.__dataclass_fields__)
    assert Sessions(**plans) == Sessions(pairs=True, agents=("coordinator",))


def test_what_was_served_is_asked_again_to_the_letter(tmp_path: Path) -> None:
    """A served prompt's lines, case and spaces reach the example as they were; what makes tasks equal ignores them."""
    task = "Count  the\n\theads:\nHHTT"
    log(tmp_path, "bad", task=task, instruction="Be\nbrief.", user_rating=1, answer="1", correction="2")
    example = only(tmp_path)
    assert (example.instruction, example.input, example.origin) == (
        "Be\nbrief.",
        task,
        "be brief. count the heads: hhtt",
    )


def test_tasks_under_other_instructions_are_others(tmp_path: Path) -> None:
    """A good answer to the same words under another instruction is no sibling."""
    log(tmp_path, "bad", instruction="Count.", user_rating=1, answer="1")
    log(tmp_path, "good", instruction="Name.", user_rating=5, answer="two")
    assert "no other answer rated 5" in {one.item: one.reason for one in collect(tmp_path).quarantined}["bad"]


TOOL = {
    "type": "function",
    "function": {"name": "find", "parameters": {"properties": {"city": {"type": "string"}}, "required": ["city"]}},
}


def written(**arguments: Any) -> str:
    return f"Gladly.\n<tool_call>{json.dumps({'name': 'find', 'arguments': arguments})}</tool_call>"


@pytest.mark.parametrize("pairs", [False, True])
def test_a_corrected_call_of_an_offered_tool_is_learned_as_a_call(tmp_path: Path, pairs: bool) -> None:
    """A chat template writes the call in its own form, because the target has it as a call beside its text."""
    log(tmp_path, "bad", task="Oslo", tools=[TOOL], user_rating=1, answer=written(city="Bergen"),
        correction=written(city="Oslo"))  # fmt: skip
    example = collect(tmp_path, min_corrective=0, pairs=pairs).examples[0]
    target, rejected = example.messages[-1], example.rejected
    assert (target.text, [(call.name, dict(call.arguments)) for call in target.tool_calls]) == (
        "Gladly.",
        [("find", {"city": "Oslo"})],
    )
    assert not pairs or (rejected is not None and dict(rejected.tool_calls[0].arguments) == {"city": "Bergen"})


@pytest.mark.parametrize(("tools", "wrong"), [([TOOL], {"town": "Oslo"}), ([], {"city": "Oslo"})])
def test_a_corrected_call_that_fits_no_offered_tool_stays_text(
    tmp_path: Path, tools: list[dict[str, Any]], wrong: dict[str, str]
) -> None:
    """What a person wrote is kept to the letter where it is no call of the session's tools."""
    log(tmp_path, "bad", task="Oslo", tools=tools, user_rating=1, answer="No.", correction=written(**wrong))
    target = only(tmp_path).messages[-1]
    assert (target.tool_calls, target.text) == ((), written(**wrong))
