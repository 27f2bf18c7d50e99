"""A client that speaks to the server, or to a vLLM server, through the official ``openai`` package."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from loraloop.errors import ConfigError

Messages = str | Sequence[Mapping[str, Any]]
BASE = "base"


class Client:
    """Asks adapters or agent roles and rates their answers.

    After an answer, ``session`` is the id of its session, ``answered`` the version that gave it, and ``link`` the path
    of the page on which a person rates it. ``openai`` is the official client, for what this one does not wrap.

    Args:
        url: The server, without ``/v1``.
        key: Its key, where it asks for one.
        adapter: Which adapter answers: ``base``, ``ocr@7``, ``ocr@champion``.
        agent: A role instead, such as ``validator``; the server knows which adapter that is.
        user: Who asks, as the server's sessions name it.
        conversation: Name of the conversation that the requests belong to: during a rollout one version answers all of
            it. It can be changed at any time, as can ``user``.
        timeout: Seconds for one request.
    """

    def __init__(
        self,
        url: str = "http://127.0.0.1:8000",
        key: str | None = None,
        *,
        adapter: str | None = None,
        agent: str | None = None,
        user: str | None = None,
        conversation: str | None = None,
        timeout: float = 120.0,
    ) -> None:
        from openai import OpenAI

        self.openai = OpenAI(base_url=f"{url.rstrip('/')}/v1", api_key=key or "none", timeout=timeout)
        self.model = BASE
        self.user, self.conversation = user, conversation
        self.session: str | None = None
        self.answered: str | None = None
        self.link: str | None = None
        self.switch(adapter, agent=agent)

    def switch(self, adapter: str | None = None, *, agent: str | None = None) -> Client:
        """Send later requests to another adapter or to an agent role; without either, to the base."""
        if adapter is not None and agent is not None:
            raise ConfigError(f"adapter={adapter} and agent={agent}: give one of them, the role has its own adapter")
        self.model = f"agent:{agent}" if agent else adapter or BASE
        return self

    def ask(self, messages: Messages, *, retries: int = 0, **settings: Any) -> str:
        """The answer's text.

        Args:
            messages: A conversation, or the text of its one message.
            retries: How often this task was tried before; an agent's retries go to the recovery adapter.
            settings: More of the API's parameters, such as ``max_tokens``.
        """
        raw = self.openai.chat.completions.with_raw_response.create(**self._body(messages, retries, settings))
        self._remember(raw.headers)
        answer = raw.parse()
        self.answered = answer.model
        return answer.choices[0].message.content or ""

    def stream(self, messages: Messages, *, retries: int = 0, **settings: Any) -> Iterator[str]:
        """The answer's text in chunks as they come; arguments are those of :meth:`ask`."""
        body = self._body(messages, retries, settings)
        with self.openai.chat.completions.with_streaming_response.create(**body, stream=True) as raw:
            self._remember(raw.headers)
            for chunk in raw.parse():
                self.answered = chunk.model
                if chunk.choices and chunk.choices[0].delta.content:
                    yield chunk.choices[0].delta.content

    def rate(
        self,
        rating: int,
        comment: str = "",
        issues: Sequence[str] = (),
        correction: str = "",
        *,
        session: str | None = None,
        level: str = "answer",
    ) -> None:
        """Rate an answer of a loraloop server, or its conversation; the key needs the scope ``feedback``.

        Args:
            rating: 1 to 5 stars.
            comment: Free text.
            issues: What went wrong, such as ``wrong_action_selected``.
            correction: The answer as it should have been.
            session: Which answer; the last one if it is not given.
            level: ``answer``, or ``conversation`` for all that it is part of.

        Raises:
            ConfigError: There is no answer to rate.
        """
        rated = session or self.session
        if rated is None:
            raise ConfigError("there is no answer to rate: ask first, or give session=ID (a vLLM server names none)")
        body = {"session": rated, "rating": rating, "comment": comment, "issues": list(issues)}
        body |= {"correction": correction} if correction else {}
        body |= {"level": level} if level != "answer" else {}
        self.openai.post("/feedback", body=body, cast_to=object)

    def models(self) -> list[str]:
        """Names of the base, adapters and roles that the server answers with."""
        return [model.id for model in self.openai.models.list()]

    def _body(self, messages: Messages, retries: int, settings: Mapping[str, Any]) -> dict[str, Any]:
        turns = [{"role": "user", "content": messages}] if isinstance(messages, str) else list(messages)
        metadata = {"retries": str(retries)} if retries else {}
        metadata |= {"conversation": self.conversation} if self.conversation else {}
        extra: dict[str, Any] = {"user": self.user} if self.user else {}
        extra |= {"metadata": metadata} if metadata else {}
        return {"model": self.model, "messages": turns, **extra, **settings}

    def _remember(self, headers: Mapping[str, str]) -> None:
        """Keep the ids that a loraloop server sends; a vLLM server sends none."""
        self.session, self.link = headers.get("x-loraloop-session"), headers.get("x-loraloop-rate")
