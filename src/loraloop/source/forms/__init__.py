"""The forms that rows of conversations come in, each with what recognises it and what reads it."""

from __future__ import annotations

from loraloop.source.forms.draft import Row
from loraloop.source.forms.labels import Labels
from loraloop.source.forms.recognise import Form, Made, make, recognise, writable
from loraloop.source.forms.tally import Tally

__all__ = ["Form", "Labels", "Made", "Row", "Tally", "make", "recognise", "writable"]
