"""Signed rating links that expire, and tokens against forged submissions of the form."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import tempfile
from pathlib import Path
from urllib.parse import quote

from itsdangerous import BadSignature, SignatureExpired, Signer, TimestampSigner, URLSafeTimedSerializer

from loraloop.errors import StoreError

KEY_BYTES = 32


class ForgedLinkError(Exception):
    """The link was not made with this key, or was changed."""


class ExpiredLinkError(Exception):
    """The link is older than ``feedback.link_days``."""


class Links:
    """Makes and verifies rating links, and the tokens that protect the form.

    Args:
        file: The secret key; made where it is missing, readable by its owner alone.
        seconds: For how long a link is good.
    """

    def __init__(self, file: Path, seconds: int) -> None:
        key = _key(file)
        self._seconds = seconds
        self._signer = TimestampSigner(key, salt="loraloop.rate", key_derivation="hmac", digest_method=hashlib.sha256)
        self.visits = URLSafeTimedSerializer(
            key, salt="loraloop.review", signer_kwargs={"key_derivation": "hmac", "digest_method": hashlib.sha256}
        )
        """Signs the cookies of the page ``/review``."""
        self._tokens = Signer(key, salt="loraloop.form", key_derivation="hmac", digest_method=hashlib.sha256)

    def make(self, session: str) -> str:
        """The path of the page that rates ``session``, with its proof."""
        proof = self._signer.sign(session).decode()[len(session) + 1 :]
        return f"/rate/{quote(session, safe='')}?token={proof}"

    def verify(self, session: str, proof: str) -> None:
        """Check that :meth:`make` gave this proof to this session, and that it has not expired.

        Raises:
            ExpiredLinkError: It is too old.
            ForgedLinkError: It was not made here for this session.
        """
        try:
            self._signer.unsign(f"{session}.{proof}", max_age=self._seconds)
        except SignatureExpired as error:
            raise ExpiredLinkError from error
        except BadSignature as error:
            raise ForgedLinkError from error

    def token(self, session: str, nonce: str) -> str:
        """The token of a form for ``session``, which shows that the browser that sends it holds ``nonce``."""
        return self._tokens.get_signature(f"{session}.{nonce}").decode()

    def agrees(self, session: str, nonce: str, token: str) -> bool:
        """Whether :meth:`token` gave ``token`` to ``session`` and ``nonce``; never for an empty nonce."""
        return bool(nonce) and self._tokens.verify_signature(f"{session}.{nonce}", token.encode())


def _key(file: Path) -> bytes:
    """The key in ``file``; of several processes that make it at once, one wins."""
    try:
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            _make(file)
        key = file.read_bytes()
    except OSError as error:
        raise StoreError(
            f"{file} cannot be read or made: {error.strerror}; it holds the key of rating links"
        ) from error
    if len(key) != KEY_BYTES:
        raise StoreError(f"{file} is damaged: remove it, and a new key is made; earlier links stop working")
    return key


def _make(file: Path) -> None:
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")  # mode 0600
    try:
        with os.fdopen(descriptor, "wb") as stream:
            stream.write(secrets.token_bytes(KEY_BYTES))
            stream.flush()
            os.fsync(stream.fileno())
        with contextlib.suppress(FileExistsError):
            file.hardlink_to(name)
    finally:
        Path(name).unlink()
