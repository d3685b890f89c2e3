"""One compute log to the control plane: an address is asked for, and the bytes go there.

The requests are those of the stock client (``_upload_file_obj`` in
dagster_cloud/storage/compute_logs/compute_log_manager.py).
"""

from __future__ import annotations

import http.client
from typing import Callable, Dict, Iterator, Tuple
from urllib.parse import urlencode, urlsplit

from . import forwarding
from .captured import Captured, chunks
from .job_files import parsed
from .relay_client import Exchange, NoAnswer, RelayClient, Request
from .tokens import LOOPBACK_HEADER, RESTART_HEADER, TOKEN_HEADER, UPLOAD_PREFIX

_PATIENCE_SECONDS = 5.0
_LARGEST_ANSWER = 64 << 10
# Of the client's errors those that say "later" (RFC 9110, section 15.5).
_LATER = (408, 409, 425, 429)


class NotUploaded(Exception):  # noqa: N818
    """It did not get there; the same may do in a while."""


class Refused(Exception):  # noqa: N818
    """It is not wanted there, and will not be."""


class LogUpload:
    """Sends compute logs through the relay, past the loopback: no thread of the child waits."""

    def __init__(self, client: RelayClient, token: str, restart_count: int) -> None:
        self._client = client
        self._headers: Dict[str, str] = {
            TOKEN_HEADER: token,
            # Without one the relay gives out the real address, which is of no use here.
            LOOPBACK_HEADER: "127.0.0.1:0",
            RESTART_HEADER: str(restart_count),
        }

    def send(
        self,
        log: Captured,
        part: Tuple[int, bytes],
        partial: bool,
        on_progress: Callable[[], None],
    ) -> None:
        """Upload the first bytes of a log, and an end of ours. Raises NotUploaded and Refused."""
        size, end = part
        path = self._address(log, size + len(end), partial)
        if not path:
            return
        if size + len(end) == 0:
            self._put(path, b"", 0)
        else:
            self._put(path, _counted(chunks(log.path, size, end), on_progress), size + len(end))

    def _address(self, log: Captured, size: int, partial: bool) -> str:
        """Return the relay's path for an upload, "" where none is wanted."""
        query = [("log_key", part) for part in log.key]
        query += [("io_type", log.stream), ("size_bytes", str(size))]
        if partial:
            query.append(("partial", "True"))
        exchange = self._exchange(
            Request("GET", "/gen_logs_url?" + urlencode(query), self._headers)
        )
        status = exchange.response.status
        try:
            answer = parsed(exchange.read(_LARGEST_ANSWER)) or {}
        except NoAnswer as error:
            raise NotUploaded(str(error)) from error
        if 400 <= status < 500 and status not in _LATER:
            raise Refused(str(answer.get("error") or answer.get("errors") or "HTTP %d" % status))
        if status != 200:
            raise NotUploaded("HTTP %d: %s" % (status, answer.get("error") or "no reason given"))
        if answer.get("skip_upload"):
            return ""
        path = urlsplit(str(answer.get("url"))).path
        if not path.startswith(UPLOAD_PREFIX):
            raise NotUploaded("the answer names no address")
        return path

    def _put(self, path: str, body: "bytes | Iterator[bytes]", length: int) -> None:
        exchange = self._exchange(Request("PUT", path, self._headers, body, length))
        try:
            exchange.response.read()
        except (OSError, http.client.HTTPException) as error:
            raise NotUploaded("the answer broke off: %r" % error) from error
        finally:
            exchange.close()
        if exchange.response.status >= 300:
            raise NotUploaded("HTTP %d" % exchange.response.status)

    def _exchange(self, request: Request) -> Exchange:
        try:
            return forwarding.send(self._client, request, _PATIENCE_SECONDS)
        except forwarding.Unavailable as error:
            raise NotUploaded(str(error)) from error


def _counted(content: Iterator[bytes], on_progress: Callable[[], None]) -> Iterator[bytes]:
    for chunk in content:
        yield chunk
        on_progress()
