"""What a run prints at its end."""

from __future__ import annotations

from loraloop.records import Generation, Score
from loraloop.workflows import report


def answer(number, correct):
    """An answer to a prompt that ends with the template's marker."""
    return Generation("t", f"Queue?\nticket {number} {'x' * 40}\n> ", "network", f"said {number}", correct)


def shown(capsys, *correct):
    """The table's rows for answers that are right or wrong."""
    report.answers(Score(rows=len(correct), values={}, generations=tuple(map(answer, range(9), correct))))
    return [line.split() for line in capsys.readouterr().out.splitlines() if "ticket" in line]


def test_three_answers_are_shown_and_wrong_ones_first(capsys):
    """The table has three rows, at most two wrong ones first, each with the prompt's last line that says something."""
    first, second, third = shown(capsys, True, False, False, False, True)
    assert first == ["ticket", "1", "x" * 14 + "...", "network", "said", "1", "wrong"]
    assert (second[1], second[-1], third[1], third[-1]) == ("2", "wrong", "0", "right")


def test_right_answers_fill_the_table_and_so_do_wrong_ones(capsys):
    """Without wrong answers three right ones are shown, and without right ones three wrong ones."""
    assert [row[-1] for row in shown(capsys, True, True, True, True)] == ["right"] * 3
    assert [row[-1] for row in shown(capsys, False, False, False, False)] == ["wrong"] * 3
    assert [row[-1] for row in shown(capsys, False)] == ["wrong"]
