"""The part: telling people what the loop decided, by mail, chat or webhook, through apprise."""

from __future__ import annotations

import logging
import re
import threading
import time

from pydantic import Field

from loraloop.core.part import part
from loraloop.errors import ConfigError

_log = logging.getLogger(__name__)

SECONDS = 10.0
"""How long all services together are waited for: the loop goes on without those that hang."""


@part
class Alerts:
    """Writes every alert into the log and sends it to each service. A service that fails never stops the loop.

    Attributes:
        urls: Services as apprise writes them (https://appriseit.com/services/), such as ``mailto://...`` or
            ``slack://...``; in one text they are parted by spaces. They hold secrets and are not logged.
    """

    urls: str | tuple[str, ...] = Field(default=(), repr=False)

    def check(self) -> None:
        """See that each address is of a service that apprise knows; nothing is sent.

        Raises:
            ConfigError: One is not; it is named by its number and the service's name alone.
        """
        if not self._each:
            return
        from apprise import Apprise

        problems = [
            f"alerts.urls: number {number} ({_service(url)}) is no address that apprise understands; "
            "see https://appriseit.com/services/ for how each service is written"
            for number, url in enumerate(self._each, 1)
            if Apprise.instantiate(url, suppress_exceptions=True) is None
        ]
        if problems:
            raise ConfigError(*problems)

    def send(self, title: str, text: str) -> None:
        """Tell people; where a service does not take it within :data:`SECONDS`, the log says so."""
        _log.warning("%s: %s", title, text)
        sendings = [_Sending(url, title, text) for url in self._each]
        for each in sendings:
            each.start()
        until = time.monotonic() + SECONDS
        for number, each in enumerate(sendings, 1):
            each.join(max(0.0, until - time.monotonic()))
            if each.is_alive():
                _log.warning("alerts.urls: number %d (%s) has not answered in time", number, _service(each.url))
            elif not each.taken:
                _log.error("alerts.urls: number %d (%s) did not take this alert", number, _service(each.url))

    @property
    def _each(self) -> tuple[str, ...]:
        return tuple(self.urls.split()) if isinstance(self.urls, str) else self.urls


class _Sending(threading.Thread):
    """One service is sent one alert; apprise limits how long it waits for a byte, not for the last one."""

    def __init__(self, url: str, title: str, text: str) -> None:
        super().__init__(name="alert", daemon=True)
        self.url, self.taken = url, False
        self._alert = (title, text)

    def run(self) -> None:
        self.taken = _sent(self.url, *self._alert)


def _sent(url: str, title: str, text: str) -> bool:
    from apprise import Apprise

    # Apprise writes addresses, with what is secret in them, into its own log.
    logging.getLogger("apprise").setLevel(logging.CRITICAL)
    try:
        return bool(Apprise(url).notify(title=title, body=text))
    except Exception:  # whatever a service's plugin raises
        return False


def _service(url: str) -> str:
    scheme = re.match(r"[A-Za-z0-9+.-]+(?=://)", url)
    return f"{scheme[0]}://..." if scheme else "without a service's name"
