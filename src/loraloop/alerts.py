"""Alerts to people by mail, chat or webhook, through apprise."""

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
"""How long an alert waits for all services together; the loop goes on without those that hang."""


@part
class Alerts:
    """Sends each alert to every service. A service that fails does not stop the loop.

    Whoever sends an alert also prints it, so that the log names its title alone.

    Attributes:
        urls: Services as apprise writes them (https://appriseit.com/services/), such as ``mailto://...`` or
            ``slack://...``; one text may hold several, separated by spaces. They hold secrets and are not logged.
    """

    urls: str | tuple[str, ...] = Field(default=(), repr=False)

    def check(self) -> None:
        """Check that apprise knows the service of each address; nothing is sent.

        Raises:
            ConfigError: It does not know one, which the message names by its number and service, not by its address.
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
        """Send an alert; the log names each service that does not take it within :data:`SECONDS`."""
        if self._each:
            _log.info("alert to %d services: %s", len(self._each), title)
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
    """Sends one alert to one service, on a thread: apprise limits the wait for each byte, not for the whole answer."""

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
