"""Secrets in text that was read from images: found before the text can become training data.

A recogniser takes ``O`` for ``0`` and ``l`` for ``1``, loses spaces and breaks lines, so no rule here asks for exact
characters: prefixes match by the letters' looks, numbers are proven by their check digits, and what remains is judged
by how random it looks. What is found is told by kind and place, never by value.
"""

from __future__ import annotations

from loraloop.core.secrets.scan import Secret, describe, find, mask

__all__ = ["Secret", "describe", "find", "mask"]
