"""Downloads over HTTP and HTTPS from addresses that strangers wrote: bounded in bytes, in time, and in where they lead.

Every hop is checked at the address that was really connected to, so that no redirect and no change of the name's
address leads to a machine behind ours. Proxies are those of the environment (HTTP_PROXY, HTTPS_PROXY, NO_PROXY).
"""

from __future__ import annotations

import http
import http.client
import io
import ipaddress
import os
import re
import socket
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import lru_cache
from http.cookiejar import DefaultCookiePolicy
from typing import Any
from urllib.parse import unquote, urljoin, urlsplit

import requests
from requests.adapters import HTTPAdapter
from requests.auth import HTTPBasicAuth
from requests.utils import get_environ_proxies, select_proxy
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

TRIES = 3
BACKOFF_SECONDS = 0.2
MAX_REDIRECTS = 5
PART_BYTES = 65_536
MAX_LINE = 65_536
"""Bytes of a line between the chunks of a body."""
WHOLE = (200, 203)
"""Answers that hold what was asked for. Others below 400 hold nothing, as 204 and 304, or not yet, as 202."""
TRANSIENT = frozenset({202, 408, 429, 500, 502, 503, 504})
"""Answers after which another try may do better."""


@dataclass(frozen=True, kw_only=True, slots=True)
class DownloadRules:
    """What a download may take, and where it may go."""

    hosts: Sequence[str] | None  # "*.shop.com": all below; None: any, but at public addresses only
    timeout_seconds: float  # for a connection, and between two parts of an answer
    deadline_seconds: float  # for the whole, tries and redirects among it
    user_agent: str
    connections: int  # kept open

    def check_host(self, host: str) -> None:
        """Raise ValueError unless rows may name `host`, that of an URL or a bucket."""
        if self.hosts is None or any(_is_host(host, allowed) for allowed in self.hosts):
            return
        raise ValueError(f"host {host!r} is not among ingest.manifest.hosts: add it there if you trust it")


def download(url: str, max_bytes: int, rules: DownloadRules) -> bytes:
    """Return what `url` answers, with TRIES tries; ValueError in one sentence if it can't be had or is longer."""
    with Watch(rules.deadline_seconds, public_only=rules.hosts is None) as watch:
        for tried in range(1, TRIES + 1):
            try:
                data = _follow_redirects(url, max_bytes, rules)
                watch.check()
                return data
            except (requests.RequestException, _AnswerError, OSError) as error:
                watch.check()
                if tried == TRIES or not _is_transient(error):
                    raise ValueError(_explain_error(error, rules)) from None
            watch.sleep(BACKOFF_SECONDS * tried)
    raise AssertionError("the last try returns or raises")


NO_URL = "that is no address of a web server: write it as https://HOST/PATH"


class _AnswerError(Exception):
    """The server answered with a status that is no success."""

    def __init__(self, status: int) -> None:
        phrase = http.HTTPStatus(status).phrase if status in {member.value for member in http.HTTPStatus} else ""
        super().__init__(f"the server answered {status} {phrase}".strip())
        self.status = status


def _is_transient(error: Exception) -> bool:
    if isinstance(error, _AnswerError):
        return error.status in TRANSIENT
    return not isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.SSLError))


def _explain_error(error: Exception, rules: DownloadRules) -> str:
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {rules.timeout_seconds:g} s"
    if isinstance(error, requests.exceptions.Timeout):
        return f"no answer for {rules.timeout_seconds:g} s"
    return describe_cause(error)


def describe_cause(error: BaseException) -> str:
    """Return the first cause of a failed request in one line."""
    if isinstance(error, requests.exceptions.InvalidURL):
        return NO_URL
    cause = error
    while (inner := cause.__cause__ or cause.__context__) is not None:
        cause = inner
    if isinstance(error, requests.exceptions.ChunkedEncodingError) and type(cause) is ValueError:
        return "it is cut off between two chunks"
    reason = cause.strerror if isinstance(cause, OSError) and cause.strerror else str(cause)
    return " ".join(reason.split())[:200] or type(cause).__name__


def _follow_redirects(url: str, max_bytes: int, rules: DownloadRules) -> bytes:
    session = _open_session(rules.connections)
    for _ in range(MAX_REDIRECTS + 1):
        with session.send(
            _prepare_request(session, url, rules),
            allow_redirects=False,
            timeout=(rules.timeout_seconds, rules.timeout_seconds),
            **session.merge_environment_settings(url, {}, True, None, None),
        ) as response:
            if response.is_redirect:
                url = urljoin(url, response.headers["location"])
                continue
            if response.status_code not in WHOLE:
                raise _AnswerError(response.status_code)
            return _read_body(response, max_bytes)
    raise ValueError(f"more than {MAX_REDIRECTS} redirects")


def _prepare_request(session: requests.Session, url: str, rules: DownloadRules) -> requests.PreparedRequest:
    """Build the request to the host that will really be asked, after it was checked."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError(f"a redirect leads to {parts.scheme}://, which is not followed")
    # No .netrc: it is for the addresses of the machine's owner.
    auth = HTTPBasicAuth(unquote(parts.username), unquote(parts.password or "")) if parts.username else _send_no_name
    headers = {"User-Agent": rules.user_agent, "Accept-Encoding": "identity", "Accept": "image/*, */*;q=0.5"}
    prepared = session.prepare_request(requests.Request("GET", url, headers=headers, auth=auth))
    host = urlsplit(str(prepared.url)).hostname or ""
    rules.check_host(host)
    if rules.hosts is None and select_proxy(str(prepared.url), get_environ_proxies(str(prepared.url))):
        with suppress(OSError, UnicodeError):  # a name that only the proxy knows
            _check_name(host)
    return prepared


def _send_no_name(request: requests.PreparedRequest) -> requests.PreparedRequest:
    return request


def _read_body(response: requests.Response, max_bytes: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    announced = response.headers.get("Content-Length", "")
    if announced.isdigit() and int(announced[:20]) > max_bytes:
        raise ValueError(f"more bytes than the limit of {max_bytes}")
    for part in response.iter_content(PART_BYTES):
        size += len(part)
        if size > max_bytes:
            raise ValueError(f"more bytes than the limit of {max_bytes}")
        parts.append(part)
    return b"".join(parts)


def _is_host(host: str, allowed: str) -> bool:
    host, allowed = host.lower().rstrip("."), allowed.lower().rstrip(".")
    return host.endswith(allowed[1:]) if allowed.startswith("*.") else host == allowed


def is_host_name(text: str) -> bool:
    """Tell a host, a bucket, "*.shop.com" or an IP address from what holds a scheme, a port or a path."""
    with suppress(ValueError):
        return bool(ipaddress.ip_address(text))
    return bool(re.fullmatch(r"(\*\.)?[^\s/:*?#@]+", text))


# Where a connection leads


def check_public(host: str, address: str) -> None:
    """Raise ValueError unless `address`, an IP address of `host`, is public."""
    ip = ipaddress.ip_address(address.partition("%")[0])
    inner: Any = None
    if isinstance(ip, ipaddress.IPv6Address):  # IPv4 addresses in disguise
        inner = ip.ipv4_mapped or ip.sixtofour or (ip.teredo and ip.teredo[1])
        if inner is None and any(ip in network for network in EMBEDDED_IPV4):
            inner = ipaddress.IPv4Address(int(ip) & 0xFFFFFFFF)
    for one in (ip, inner):
        if one is not None and (not one.is_global or one.is_multicast or one in LOCAL_NAT64):
            raise ValueError(
                f"{host} is at {ip}, which is no public address: name the host in ingest.manifest.hosts if you trust it"
            )


EMBEDDED_IPV4 = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("::/96")
"""NAT64 (RFC 6052), and IPv4-compatible addresses (RFC 4291)."""
LOCAL_NAT64 = ipaddress.ip_network("64:ff9b:1::/48")
"""Addresses of one's own network in disguise (RFC 8215)."""


def _check_name(host: str, port: int | None = None) -> None:
    """Raise ValueError if a name leads to an address that is not public, or OSError if it leads nowhere."""
    for *_, address in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM):
        check_public(host, str(address[0]))


class Watch:
    """The deadline of what this thread downloads: when it comes, connections are cut, whatever they wait for."""

    current = threading.local()

    def __init__(self, seconds: float, *, public_only: bool) -> None:
        """`public_only`: connections to addresses of one's own network are refused."""
        self.public_only = public_only
        self.seconds = seconds
        self.end = time.monotonic() + seconds
        self._lock = threading.Lock()
        self._sockets: list[socket.socket] = []
        self._timer = self._build_timer()

    def _build_timer(self) -> threading.Timer:
        timer = threading.Timer(max(0.0, self.end - time.monotonic()), self._cut)
        timer.daemon = True
        return timer

    def __enter__(self) -> Watch:
        self.current.watch = self
        self._timer.start()
        return self

    def __exit__(self, *_: object) -> None:
        del self.current.watch
        with self._lock:
            self._timer.cancel()
            for copy in self._sockets:
                copy.close()
            self._sockets.clear()

    def add(self, connection: socket.socket) -> None:
        """Cut this connection, too, when the deadline comes."""
        with self._lock:
            self._sockets.append(socket.socket(fileno=os.dup(connection.fileno())))
        self.check()

    def check(self) -> None:
        """Raise ValueError if the deadline has come."""
        if time.monotonic() >= self.end:
            raise ValueError(f"it was not here within {self.seconds:g} s")

    def sleep(self, seconds: float) -> None:
        """Wait, but not beyond the deadline."""
        time.sleep(max(0.0, min(seconds, self.end - time.monotonic())))

    def restart(self) -> None:
        """Begin anew: the deadline is one of the next part."""
        self.end = time.monotonic() + self.seconds

    def _cut(self) -> None:
        with self._lock:
            if time.monotonic() < self.end:  # restarted
                self._timer = self._build_timer()
                self._timer.start()
                return
            for copy in self._sockets:
                with suppress(OSError):
                    copy.shutdown(socket.SHUT_RDWR)


def _open_watched(connection: HTTPConnection, connect: Callable[[], socket.socket]) -> socket.socket:
    """Open a connection under the deadline of this thread's download, to nowhere else than its rules allow.

    The name is looked up and checked before; what was connected to is checked before a byte is sent, as the name may
    lead elsewhere by then.
    """
    watch: Watch = Watch.current.watch
    checked = watch.public_only and connection.proxy is None
    if checked:
        _check_name(connection.host, connection.port)
    opened = connect()
    try:
        if checked:
            check_public(connection.host, str(opened.getpeername()[0]))
        watch.add(opened)
    except BaseException:
        opened.close()
        raise
    return opened


class _BoundedReader(io.BufferedReader):
    """No line is longer than MAX_LINE: urllib3 reads the one before a chunk to its end, however far that is."""

    def readline(self, size: int | None = -1, /) -> bytes:
        if size is not None and size >= 0:
            return super().readline(size)
        line = super().readline(MAX_LINE)
        if len(line) == MAX_LINE:
            raise http.client.LineTooLong("chunk")
        return line


class _Response(http.client.HTTPResponse):
    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self.fp = _BoundedReader(self.fp.detach())


class _Connection(HTTPConnection):
    response_class = _Response

    def _new_conn(self) -> socket.socket:
        return _open_watched(self, super()._new_conn)

    def request(self, *arguments: Any, **options: Any) -> None:
        if self.sock is not None:  # kept open from an earlier download
            Watch.current.watch.add(self.sock)
        super().request(*arguments, **options)


class _SecureConnection(_Connection, HTTPSConnection):
    """The same over TLS."""


class _Pool(HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


POOLS = {"http": _Pool, "https": _SecurePool}


class _Adapter(HTTPAdapter):  # type: ignore[misc]
    def init_poolmanager(self, *arguments: Any, **options: Any) -> None:
        super().init_poolmanager(*arguments, **options)
        self.poolmanager.pool_classes_by_scheme = POOLS

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        manager = super().proxy_manager_for(proxy, **options)
        if not proxy.lower().startswith("socks"):
            manager.pool_classes_by_scheme = POOLS
        return manager


@lru_cache(maxsize=4)
def _open_session(connections: int) -> requests.Session:
    """Open a session for all threads: no cookies, no retries of its own."""
    session = open_watched_session(connections)
    session.cookies.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return session


def open_watched_session(connections: int = 1) -> requests.Session:
    """Open a session whose connections belong to the Watch of the thread that uses it."""
    session = requests.Session()
    adapter = _Adapter(pool_connections=connections, pool_maxsize=connections)
    session.mount("http://", adapter)
    session.mount("https://", adapter)
    return session
