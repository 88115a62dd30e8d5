"""Connections that can be interrupted, and the clients that own them.

`requests` sends, through an adapter of ours whose connections are made here: all addresses of a
host share one time-out, and a duplicate of each socket is known to the `Control` of the transfer
it serves. Nothing of urllib3 is patched: its pools take other connection classes
(`PoolManager.pool_classes_by_scheme`), in 1.26 as in 2.x.
"""

from __future__ import annotations

import errno
import glob
import http.client
import logging
import os
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from email.errors import MissingHeaderBodySeparatorDefect
from email.parser import Parser
from http.cookiejar import Cookie, DefaultCookiePolicy
from typing import Any
from urllib.parse import urlsplit

import certifi
import requests
import urllib3
from requests.adapters import HTTPAdapter
from requests.cookies import RequestsCookieJar
from urllib3.connection import CertificateError  # type: ignore[attr-defined]
from urllib3.connectionpool import HTTPConnectionPool, HTTPSConnectionPool

from . import logins, mirrors, names, portable, proxies, retry
from .control import SLOW, Control, Wire
from .job import LateError, Phase, Settings, TransferError, TryAgain
from .pipe import Pipe

ATTEMPT_DELAY = 0.25  # seconds before the next address is tried beside the last (RFC 8305, section 5)
AWAY = 10  # times the time-out that this computer's network may be away once a server has answered
AWAY_LOOK = 2.0  # seconds between two looks whether it is back
LONGEST = 1 << 63  # bytes; nothing has so many
HEAD_SIZE = 1 << 18  # bytes of header fields; browsers take as many
SHORT = 4096  # bytes of a request that a connection takes at once when nothing else is under way
SYSTEM_BUNDLES = (  # Where Linux distributions keep their certificates: `ssl` may look elsewhere
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
)


class _Current(threading.local):
    control: Control  # whose request this thread is sending
    target: str  # what it asks for, as it stands in the request line
    connection: _AsWritten  # over which it goes


_current = _Current()


def _is_not_ours(record: logging.LogRecord) -> bool:
    return not hasattr(_current, "control")


# urllib3 logs the whole URL of each request, for whoever asks for debug messages.
logging.getLogger("urllib3.connectionpool").addFilter(_is_not_ours)


class Client:
    """Sends requests for one worker, over one connection at a time.

    A kept connection serves the next request to the same host; another host's request closes it,
    so that the number of connections is the number of workers.
    """

    def __init__(
        self, settings: Settings, environment: Environment, mirror: mirrors.Mirror | None = None
    ) -> None:
        """`mirror`: the one of the settings, where others use it too.

        Raises TransferError: it cannot be used.
        """
        self.mirror = mirror or mirrors.Mirror(settings.mirror)
        """Who is to be asked in a server's place."""
        self.timeout = settings.timeout
        """Seconds for which libraries wait."""
        self._headers = {"User-Agent": settings.user_agent, "Accept": "*/*", "Accept-Encoding": "identity"}
        self.tokens = settings.tokens
        """As in `Settings`. Its worker changes them between two downloads."""
        self.pipe = Pipe()
        """For what its worker receives unseen."""
        self._adapter = _Adapter(environment)
        self._hosts = environment.hosts
        self._lock = threading.Lock()  # guards the two below
        self._route = ""
        self._idle: _AsWritten | None = None

    def get(
        self,
        url: str,
        headers: Mapping[str, str],
        control: Control,
        *,
        cookies: RequestsCookieJar | None = None,
    ) -> Answer:
        """Send a GET and return the answer once its headers are there; redirects are not followed.

        User and password are those of the URL, else of ``~/.netrc``. Raises Stopped, TryAgain,
        TransferError.
        """
        url = names.quoted(url)
        host = self._host(url)
        fields = {**self._headers, **host.fields, **headers}
        if cookies is not None and (cookie := _cookie(cookies, _request(url, fields))):
            fields["Cookie"] = cookie
        end = time.monotonic() + AWAY * self.timeout
        while True:
            try:
                answer = self._send(url, host, fields, control)
                if not (control.reused and answer.status_code == http.client.REQUEST_TIMEOUT):
                    return answer
                answer.close()  # the connection had been idle for too long (RFC 9110, section 15.5.9)
            except TryAgain as error:
                if control.reused and was_closed(error):
                    continue
                host.is_new |= time.monotonic() > end  # it may not come back
                if host.is_new or not _is_away(error):
                    raise
                control.enter(Phase.AWAY)
                control.sleep(AWAY_LOOK)

    def _send(self, url: str, host: _Host, fields: dict[str, str], control: Control) -> Answer:
        idle = self._claim(host.route)
        _current.control, _current.target = control, host.root + "/" + url.split("/", 3)[3]
        control.reused = idle is not None
        try:
            with control.guarding():
                message = idle.ask(fields, self.timeout) if idle else self._ask_first(url, host, fields)
            answer = Answer(host, _current.connection, message, url, fields)
            if control.was_cut:  # just when the headers had come: there is no body to go on with
                answer.close()
                control.check()
            host.is_new = False
            return answer
        except TryAgain as error:  # its supervisor ends what takes too long
            if control.phase in _CONNECTING:
                raise _unreached(error, host, is_late=True) from None
            raise
        except _NETWORK_ERRORS as error:
            control.check()  # being asked looks like a broken connection
            told = explain(error, url, host.proxy)
            if control.phase in _CONNECTING:
                is_late = any(isinstance(cause, TimeoutError) for cause in _causes(error))
                raise _unreached(told, host, is_late=is_late) from error
            raise told from error
        except ValueError as error:
            raise TransferError("This link is not one that can be asked for") from error
        finally:
            del _current.control

    def _ask_first(self, url: str, host: _Host, fields: dict[str, str]) -> _Response:
        """Have `requests` make a connection, and take it: what follows goes over it without the libraries."""
        _current.control.check()
        _current.control.turn.give()
        request = _request(url, fields)
        connecting = min(self.timeout, mirrors.CONNECT) if host.is_mirror else self.timeout
        raw: Any = self._adapter.send(
            request, stream=True, timeout=(connecting, self.timeout), proxies=host.proxies
        ).raw
        message: _Response = raw._fp  # in urllib3 1.26 and 2.x
        raw._fp = raw._connection = raw._pool = None
        return message

    def _host(self, url: str) -> _Host:
        key = names.server(url), self.tokens
        if key not in self._hosts:
            self._hosts[key] = _Host(self._adapter, url, dict(self.tokens), is_mirror=self.mirror.owns(url))
        return self._hosts[key]

    def _claim(self, route: str) -> _AsWritten | None:
        """The idle connection, if it leads there and nothing has come over it that nobody asked for."""
        if route != self._route:
            self.hang_up()
            self._route = route
        with self._lock:
            idle, self._idle = self._idle, None
        if idle and _is_spoilt(idle):
            idle.close()
            return None
        return idle

    def take_back(self, connection: _AsWritten, route: str) -> None:
        """An answer was read to its end. Its worker's thread, whoever asked."""
        self.hang_up()
        with self._lock:
            self._idle, self._route = connection, route

    @property
    def is_idle(self) -> bool:
        """Whether it keeps a connection for its next request."""
        return self._idle is not None

    def wants_whole(self, answer: Answer) -> bool:
        """Whether one connection is to bring all: no other may ask for parts (RFC 9110, section 14.3), or a
        proxy that gets it whole can serve other machines too.
        """
        return answer.headers.get("accept-ranges", "").lower() == "none" or self._is_for_others(answer)

    @staticmethod
    def _is_for_others(answer: Answer) -> bool:
        """Whether a proxy may keep the file for other machines (RFC 9111, section 3), if it gets it whole."""
        if answer.via or not answer.host.asks_proxy:
            return False
        return not re.search("no-store|private", answer.headers.get("cache-control", "").lower())

    def hang_up(self) -> None:
        """Close the idle connection. Any thread, while no request is under way."""
        with self._lock:
            idle, self._idle, self._route = self._idle, None, ""
        if idle:
            idle.close()

    def close(self) -> None:
        """Release everything."""
        self.hang_up()
        self.pipe.close()
        self._adapter.close()


def _is_spoilt(connection: _AsWritten) -> bool:
    """Whether it is closed, or something has come over it that nobody asked for."""
    sock = connection.sock
    return sock is None or bool(portable.poll([sock.fileno()], [], 0.0))


def _request(url: str, fields: Mapping[str, str]) -> requests.PreparedRequest:
    """For the libraries: without user and password, which they would take for a part of a cookie's server."""
    request = requests.PreparedRequest()
    request.method, request.url, request.hooks = "GET", re.sub(_LOGIN, r"\1", url), {}
    request.headers = requests.structures.CaseInsensitiveDict(fields)
    return request


_LOGIN = r"\A(https?://)[^/]*@"


def _cookie(jar: RequestsCookieJar, request: requests.PreparedRequest) -> str:
    """What of a jar goes along."""
    request.prepare_cookies(jar)
    return _unfolded(request.headers.get("Cookie", ""))


_FIRST = frozenset(("content-disposition", "content-type", "location"))
"""Fields that are no lists, of which the first one counts, as for curl."""
_SAID_ONCE = frozenset(("content-range", "etag", "last-modified"))
"""Fields that are no lists: servers behind servers say them twice, but then they must be the same."""
_BLANK = " \t\r\n"  # and not what else Python takes for white space, which may be part of a letter in UTF-8


def _unfolded(text: str) -> str:
    return re.sub(rf"[{_BLANK}]*\n[{_BLANK}]*", " ", text)


class Headers(dict[str, str]):
    """Header fields by their names in lower case; several of one name are a list (RFC 9110, section 5.3).

    White space around a value is none of it, and a line that was folded is one line (RFC 9112, section 5.2).
    """

    def __init__(self, fields: Iterable[tuple[str, str]]) -> None:
        for name, value in fields:
            key, text = name.lower(), value.strip(_BLANK)
            if "\n" in text:
                text = _unfolded(text)
            known = self.get(key)
            if known is None:
                self[key] = text
            elif key not in _FIRST and (key not in _SAID_ONCE or known != text):
                self[key] = f"{known}, {text}"


class Answer:
    """What a server says: a head, and a body that is to come. Whoever has it owns the connection."""

    def __init__(
        self,
        host: _Host,
        connection: _AsWritten,
        message: _Response,
        url: str,
        asked: Mapping[str, str],
    ) -> None:
        self.url = url
        self.via = ""
        """The mark of the mirror that it came through."""
        self.jar: RequestsCookieJar | None = None
        """The cookies that were set on the way to it, if any were."""
        self.asked = asked
        """The header fields of the request."""
        self.status_code = message.status
        self.headers = message.fields
        self.message = message
        self.host, self._connection = host, connection

    def cookies(self, known: RequestsCookieJar | None) -> RequestsCookieJar:
        """What it sets, and what was set before: of one download, as what a redirect sets its target gets."""
        jar = RequestsCookieJar(_CookiePolicy()) if known is None else known
        request = requests.cookies.MockRequest(_request(self.url, self.asked))
        jar.extract_cookies(self.message, request)  # type: ignore[arg-type]
        return jar

    def release(self, client: Client) -> None:
        """All of the body was read: let a client send another request over the connection."""
        self.message.close()
        if self.message.will_close or self._connection.sock is None:
            self._connection.close()
        else:
            client.take_back(self._connection, self.host.route)

    def close(self) -> None:
        """End the connection. Any thread."""
        self.message.close()
        self._connection.close()


class _CookiePolicy(DefaultCookiePolicy):
    """Lets a server whose name has no dot name itself, as ``localhost``, and each name nobody (RFC 6265)."""

    def set_ok_domain(self, cookie: Cookie, request: Any) -> bool:
        host = urlsplit(request.get_full_url()).hostname or ""
        plain = host if "." in host else f"{host}.local"
        if cookie.domain == "." or (plain != host and cookie.domain == f".{host}"):
            cookie.domain, cookie.domain_specified = plain, False  # as where it names nobody
        return super().set_ok_domain(cookie, request)


_CONNECTING = (Phase.LOOKUP, Phase.CONNECT)
_NETWORK_ERRORS = (
    requests.RequestException,
    urllib3.exceptions.HTTPError,
    http.client.HTTPException,
    OSError,
)


class _Host:
    """What the environment says about a host, looked up once: it is what makes small requests slow."""

    def __init__(self, adapter: _Adapter, url: str, tokens: Mapping[str, str], *, is_mirror: bool) -> None:
        self.is_mirror = is_mirror
        parts = urlsplit(url)
        place = parts.netloc.rpartition("@")[2]
        merged = requests.Session().merge_environment_settings(url, {}, None, None, None)
        known = {} if proxies.is_bypassed(place) else merged["proxies"]
        proxy: str = requests.utils.select_proxy(url, known) or ""
        if proxy and "://" not in proxy:  # which curl takes, and `requests` where there is no password
            proxy = f"http://{proxy}"
        self.proxies = {parts.scheme: proxy} if proxy else {}
        self.proxy = proxies.checked(proxy) if proxy else ""
        """What the proxy for it is called, if there is one."""
        self.is_new = True
        """Whether no answer has come from there yet."""
        self.route = f"{proxy} {parts.scheme}://{place}"
        """Requests with the same route can share a connection."""
        login = logins.header(url, tokens, by_name=is_mirror)
        self.fields = {"Authorization": login} if login else {}
        """Header fields of each request to it."""
        self.root = ""
        """What stands before the path in a request line."""
        if proxy and parts.scheme == "http" and not proxy.lower().startswith("socks"):
            self.root = f"http://{place}"
            self.fields |= adapter.proxy_headers(proxy)
        self.asks_proxy = bool(self.root) and not login
        """Whether a proxy answers as for everybody; for https, and with SOCKS, it only makes a tunnel."""


class Environment:
    """What this computer says of servers; read on first use, once for all workers."""

    def __init__(self) -> None:
        self.hosts: dict[tuple[str, tuple[tuple[str, str], ...]], _Host] = {}
        """Proxies and logins, by the beginning of a link and the access tokens used."""
        self._lock = threading.Lock()
        self._server: ssl.SSLContext | None = None
        self._proxy: ssl.SSLContext | None = None

    def context(self) -> ssl.SSLContext:
        """The context of every TLS connection to a server. Any thread."""
        with self._lock:
            if self._server is None:
                self._server = _ssl_context()
                # urllib3 1.26 looks at the name itself, and has OpenSSL refuse addresses otherwise.
                self._server.check_hostname = not _LOOKS_AT_NAMES
            return self._server

    def proxy_context(self) -> ssl.SSLContext:
        """The context of every TLS connection to a proxy, at whose name urllib3 1.26 does not look."""
        with self._lock:
            self._proxy = self._proxy or _ssl_context()
            return self._proxy


_LOOKS_AT_NAMES = urllib3.__version__.startswith("1.")  # type: ignore[attr-defined]


def _ssl_context() -> ssl.SSLContext:
    """System and certifi together; alone what ``REQUESTS_CA_BUNDLE`` names, as `requests` has it."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    # Older Pythons set it: a cut connection would look like an end.
    context.options &= ~getattr(ssl, "OP_IGNORE_UNEXPECTED_EOF", 0)
    context.set_alpn_protocols(["http/1.1"])
    for variable in ("REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"):
        if bundle := os.environ.get(variable):
            _load_bundle(context, bundle, variable)
            return context
    portable.load_certificates(context)
    if not _has_default_certificates(context):
        for path in filter(os.path.isfile, SYSTEM_BUNDLES):
            context.load_verify_locations(path)
            break
    context.load_verify_locations(certifi.where())
    return context


def _load_bundle(context: ssl.SSLContext, bundle: str, variable: str) -> None:
    try:
        is_folder = os.path.isdir(bundle)
        context.load_verify_locations(**{"capath" if is_folder else "cafile": bundle})
    except (OSError, ssl.SSLError) as error:
        raise TransferError(f"The certificate bundle that {variable} names cannot be read") from error
    if is_folder and not _has_certificates(bundle):
        raise TransferError(
            f"The folder that {variable} names has no certificates that can be used (see “openssl rehash”)"
        )


def _has_default_certificates(context: ssl.SSLContext) -> bool:
    folder = ssl.get_default_verify_paths().capath
    return bool(context.get_ca_certs() or (folder and _has_certificates(folder)))


def _has_certificates(folder: str) -> bool:
    """OpenSSL reads a folder at need, and only what stands there under its hash (openssl-rehash)."""
    return bool(glob.glob(os.path.join(glob.escape(folder), _HASHED)))


_HASHED = "[0-9a-f]" * 8 + ".[0-9]*"


_BODILESS = frozenset((http.client.SWITCHING_PROTOCOLS, http.client.NO_CONTENT, http.client.NOT_MODIFIED))


class _Message(http.client.HTTPMessage):
    """Header fields as the standard library parses them, which takes them for those of a mail."""

    is_torn = False
    """Whether some of the lines were no fields: one may have been the body's length."""

    def get_content_type(self) -> str:
        """Of what follows the fields, by which it would take that apart: nothing does."""
        return "text/plain"

    def get_content_maintype(self) -> str:
        return "text"


def _read_fields(file: Any) -> _Message:
    """Header fields up to the empty line, parsed by the standard library.

    A lone CR counts as a space, and a space before a colon as none (RFC 9112, 2.2 and 5.1): else they
    would end the fields early, and the body's length be lost. Lines that are no fields are passed over, as
    browsers do. Raises HTTPException: cut, or far too many.
    """
    lines, left = [], HEAD_SIZE
    while (line := file.readline(left + 1)).strip(b"\r\n"):
        lines.append(line)
        left -= len(line)
    if left < 0 or not line.endswith(b"\n"):
        raise http.client.HTTPException("a head that is cut or too long")
    text = _LONE_CR.sub(" ", b"".join(lines).decode("latin-1"))
    if " :" in text or "\t:" in text:
        text = _LATE_COLON.sub(r"\1:", text)
    message = _parsed(text)
    if any(isinstance(defect, MissingHeaderBodySeparatorDefect) for defect in message.defects):
        message = _parsed(_NO_FIELD.sub("", text))
        message.is_torn = True
    return message


def _parsed(text: str) -> _Message:
    message: _Message = Parser(_class=_Message).parsestr(text)
    return message


_LONE_CR = re.compile(r"\r(?!\n)")
_LATE_COLON = re.compile(r"(?m)^([!-9;-~]+)[ \t]+:")
_NO_FIELD = re.compile(r"(?m)^(?![!-9;-~]*:|[ \t]).*\n")


class _Response(http.client.HTTPResponse):
    """A head read by the standard library, which would misread some, and so bodies too, without a word.

    Skips every informational answer; the standard library skips only 100 (RFC 9110, section 15.2).
    """

    headers: _Message
    fields: Headers

    def begin(self) -> None:
        """Read the head. Raises HTTPException where it was cut, or says what nobody can be sure of."""
        version, self.status, reason = self._read_status()
        self.code, self.reason = self.status, reason.strip()
        if not version.startswith(("HTTP/1.", "HTTP/2")) and version != "HTTP/0.9":  # the second by mistake
            raise http.client.UnknownProtocol(version)
        self.version = 10 if version in ("HTTP/1.0", "HTTP/0.9") else 11
        self.headers = self.msg = _read_fields(self.fp)
        if not self._is_readable():
            raise http.client.HTTPException("a head that cannot be read")
        self.headers.defects.clear()  # urllib3 would log what is odd about the headers, with the whole URL

    def _is_readable(self) -> bool:
        """Whether the body's framing is one that we know."""
        self.fields = Headers(self.headers.raw_items())
        is_known = self._takes_coding() and self._takes_length()
        self.will_close = self._closes()
        is_framed = self.chunked or self.length is not None
        return is_known and (is_framed or not self.headers.is_torn)

    def _takes_coding(self) -> bool:
        """Go by the transfer coding. Servers behind servers say "chunked" twice of what was done once.

        False: it is one that nobody asked for.
        """
        words = {word.strip().lower() for word in self.fields.get("transfer-encoding", "").split(",")}
        codings = words - {"identity", ""}
        self.chunked = bool(codings)
        return codings <= {"chunked"}

    def _takes_length(self) -> bool:
        """Go by the length, if one is told: a number, or a list of the same one (RFC 9110, section 8.6).

        False: it is neither.
        """
        self.length = 0 if self.status in _BODILESS else None
        if self.chunked or "content-length" not in self.fields:
            return True
        lengths = {length.strip() for length in self.fields["content-length"].split(",")} - {""}
        found = re.fullmatch("0*([0-9]{1,19})", lengths.pop()) if len(lengths) == 1 else None
        if not found:
            return False
        if self.length is None:
            self.length = int(found[1])
        return self.length < LONGEST

    def _closes(self) -> bool:
        """Whether the connection ends with the body (RFC 9112, sections 6.3 and 9.3)."""
        words = self.fields.get("connection", "").lower()
        if self.version == 11:
            is_last = "close" in words
        else:
            words += self.fields.get("proxy-connection", "").lower()
            is_last = "keep-alive" not in words and "keep-alive" not in self.fields
        return is_last or (self.length is None and not self.chunked)

    def _read_status(self) -> tuple[str, int, str]:
        version, status, reason = super()._read_status()  # type: ignore[misc]
        while 100 <= status < 200 and status != http.client.SWITCHING_PROTOCOLS:
            _read_fields(self.fp)
            version, status, reason = super()._read_status()  # type: ignore[misc]
        return version, status, reason


class _ProxyFault(OSError):
    """It went wrong between us and the proxy: what follows concerns no server."""


class _AsWritten:
    """A connection that asks for what the link says, whatever the libraries would make of it."""

    response_class: Callable[..., _Response] = _Response
    sock: socket.socket | None
    wire: Wire | None = None
    _said = b""  # the last that was sent over it: all of a head

    def putrequest(self, method: str, url: str, *args: Any, **options: Any) -> None:
        self._begin_request()
        super().putrequest(method, _current.target, *args, **options)  # type: ignore[misc]

    def _begin_request(self) -> None:
        """A request is about to go over it; one that was kept has not been attached yet."""
        _current.connection = self
        if self.wire:
            _current.control.enter(Phase.REQUEST)
            _current.control.attach(self.wire)

    def send(self, data: bytes) -> None:
        self._said = data
        super().send(data)  # type: ignore[misc]

    def ask(self, fields: Mapping[str, str], timeout: float) -> _Response:
        """Send one request more, by hand: the library would look at each field again, which takes long."""
        answer = None
        try:
            self._begin_request()
            host = self._said.split(b"\r\n", 2)[1].decode("latin-1")  # as the library wrote it
            lines = [f"GET {_current.target} HTTP/1.1", host, *map(": ".join, fields.items()), "\r\n"]
            head = "\r\n".join(lines)
            if not head.count("\r") == head.count("\n") == len(lines):
                raise ValueError("more lines than are to be said")
            assert self.sock  # which does not wait since the last body
            if len(head) > SHORT:
                self.sock.settimeout(timeout)
            self.sock.sendall(head.encode("latin-1"))
            answer = _Response(self.sock, method="GET")
            if not _current.control.turn.expect(self.sock):
                self.sock.settimeout(timeout)
            answer.begin()
            return answer
        except BaseException:
            if answer:
                answer.close()
            self.close()
            raise

    def close(self) -> None:
        try:
            super().close()  # type: ignore[misc]
        finally:
            if self.wire:
                self.wire.close()
                self.wire = None


class _Interruptible(_AsWritten):
    """What our connections add to urllib3's."""

    proxy_is_verified: bool | None

    def _new_conn(self) -> socket.socket:
        host, port = self._dns_host, self.port  # type: ignore[attr-defined]
        sock = dial(host, port, _current.control, timeout=self.timeout)  # type: ignore[attr-defined]
        try:
            for option in self.socket_options or ():  # type: ignore[attr-defined]
                sock.setsockopt(*option)
            self.wire = Wire(sock)
            _current.control.enter(Phase.REQUEST)
            _current.control.attach(self.wire)
        except BaseException:
            sock.close()
            raise
        return sock

    def _tunnel(self) -> None:
        """Ask a proxy for a tunnel. Where it refuses, older Pythons leave its answer open, and the socket."""
        made: list[_Response] = []

        def response_class(*args: Any, **options: Any) -> _Response:
            made.append(_Response(*args, **options))
            return made[-1]

        self.response_class = response_class
        try:
            super()._tunnel()  # type: ignore[misc]
        except BaseException as error:
            for response in made:
                response.close()
            if isinstance(error, (OSError, http.client.HTTPException)):
                raise _ProxyFault from error
            raise
        finally:
            self.response_class = _Response

    def _connect_tls_proxy(self, hostname: str, sock: socket.socket) -> ssl.SSLSocket:
        """By hand, since urllib3 1.26 has OpenSSL look at no name, and refuse addresses."""
        context: ssl.SSLContext = self.proxy_config.ssl_context  # type: ignore[attr-defined]
        self.proxy_is_verified = True
        try:
            return context.wrap_socket(sock, server_hostname=hostname)
        except OSError as error:
            raise _ProxyFault from error


def _pools_like(theirs: Mapping[str, Any], ours: type) -> dict[str, type]:
    """Pools by scheme, whose connections are `ours` too."""
    made = {}
    for scheme, pool in theirs.items():
        connection = type("_Connection", (ours, pool.ConnectionCls), {})
        made[scheme] = type("_Pool", (pool,), {"ConnectionCls": connection})
    return made


_POOLS = _pools_like({"http": HTTPConnectionPool, "https": HTTPSConnectionPool}, _Interruptible)


class _Adapter(HTTPAdapter):
    """Keeps one connection, made by us, verified as the `Environment` says."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment
        super().__init__(pool_connections=1, pool_maxsize=1)

    def init_poolmanager(self, *args: Any, **options: Any) -> None:
        super().init_poolmanager(*args, **options)
        self.poolmanager.pool_classes_by_scheme = _POOLS

    def close(self) -> None:
        """Close the pools too: urllib3 leaves that to the garbage collector, which can be late."""
        for manager in (self.poolmanager, *self.proxy_manager.values()):
            for key in list(manager.pools.keys()):
                if pool := manager.pools.get(key):
                    pool.close()
        super().close()

    def proxy_headers(self, proxy: str) -> dict[str, str]:
        """As for a server: requests leaves a user without a password out, and letters beyond Latin-1."""
        login = logins.basic(logins.own(proxy))
        return {"Proxy-Authorization": login} if login else {}

    def proxy_manager_for(self, proxy: str, **options: Any) -> Any:
        if proxy in self.proxy_manager:
            return self.proxy_manager[proxy]
        if proxy.lower().startswith("https"):
            # The first is for a proxy that makes a tunnel, the others for one that is asked itself.
            options["proxy_ssl_context"] = self._environment.proxy_context()
            options |= {"ssl_context": self._environment.context(), "cert_reqs": "CERT_REQUIRED"}
        manager = super().proxy_manager_for(proxy, **options)
        # SOCKS makes its connections itself.
        is_socks, theirs = proxy.lower().startswith("socks"), manager.pool_classes_by_scheme
        manager.pool_classes_by_scheme = _pools_like(theirs, _AsWritten) if is_socks else _POOLS
        return manager

    def request_url(self, request: Any, proxies: Any) -> str:
        """Only the place: urllib3 would write escapes in its own way, and each version in another."""
        target = _current.target
        return "/" if target.startswith("/") else f"{names.server(target)}/"

    def build_connection_pool_key_attributes(self, request: Any, verify: Any, cert: Any = None) -> Any:
        host, _ = super().build_connection_pool_key_attributes(request, verify, cert)
        if host["scheme"] != "https":
            return host, {}  # what `proxy_manager_for` says of a proxy over TLS stands
        return host, {"ssl_context": self._environment.context(), "cert_reqs": "CERT_REQUIRED"}

    def cert_verify(self, conn: Any, url: str, verify: Any, cert: Any) -> None:
        """Where requests is older than 2.32 the pool gets its context here."""
        if url.lower().startswith("https"):
            conn.cert_reqs = "CERT_REQUIRED"
            conn.ca_certs = conn.ca_cert_dir = None
            conn.conn_kw["ssl_context"] = self._environment.context()


def dial(host: str, port: int, control: Control, *, timeout: float) -> socket.socket:
    """Connect to the first address of `host` that answers within `timeout` seconds for all of them.

    The next address joins after ATTEMPT_DELAY, or when one refuses (RFC 8305, sections 4 and 5).
    Raises Stopped, TryAgain, and OSError where no address answers.
    """
    control.enter(Phase.LOOKUP)
    found = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)
    control.enter(Phase.CONNECT)
    race = _Race(_interleaved(found), control, time.monotonic() + timeout)
    try:
        sock = race.winner()
        race.pending.remove(sock)
    finally:
        for loser in race.pending:
            loser.close()
    sock.settimeout(timeout)
    return sock


def _interleaved(found: Iterable[Any]) -> list[Any]:
    """Alternate the families, the resolver's first choice first."""
    families: dict[int, list[Any]] = {}
    for address in found:
        families.setdefault(address[0], []).append(address)
    longest = max(map(len, families.values()), default=0)
    return [addresses[i] for i in range(longest) for addresses in families.values() if i < len(addresses)]


class _ForbiddenError(OSError):
    """This computer itself does not let us connect."""


class _UnreachableError(OSError):
    """No network leads there."""


_UNREACHABLE = (errno.ENETDOWN, errno.ENETUNREACH, errno.EHOSTUNREACH)


class _Race:
    """Connects to several addresses at once, started one after the other."""

    def __init__(self, addresses: list[Any], control: Control, deadline: float) -> None:
        self.pending: list[socket.socket] = []
        self._addresses = addresses
        self._control = control
        self._deadline = deadline
        self._error: OSError = OSError("the name has no address")

    def winner(self) -> socket.socket:
        while self._addresses or self.pending:
            if self._addresses:
                self._start(self._addresses.pop(0))
            elif time.monotonic() >= self._deadline:
                raise TimeoutError("no address answered")
            if sock := self._first_connected():
                return sock
        if isinstance(self._error, PermissionError):
            raise _ForbiddenError from self._error
        if self._error.errno in _UNREACHABLE:
            raise _UnreachableError from self._error
        raise OSError from self._error  # whose number urllib3 may take for a request that has gone out

    def _start(self, address: Any) -> None:
        family, kind, protocol, _, target = address
        try:
            sock = socket.socket(family, kind, protocol)
        except OSError as error:  # a family that this machine does not have
            self._error = error
            return
        self.pending.append(sock)
        sock.setblocking(False)
        with suppress(BlockingIOError):
            try:
                sock.connect(target)
            except BlockingIOError:
                raise
            except OSError as error:
                self._drop(sock, error)

    def _first_connected(self) -> socket.socket | None:
        """Wait for the pending ones until it is time for the next address."""
        left = self._deadline - time.monotonic()
        wait = min(ATTEMPT_DELAY, left) if self._addresses else left
        ready = self._control.wait(writable=self.pending, timeout=max(0.0, wait)) if self.pending else set()
        for sock in [s for s in self.pending if s.fileno() in ready]:
            number = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if not number:
                return sock
            self._drop(sock, OSError(number, os.strerror(number), None, number))  # the last one is Windows'
        return None

    def _drop(self, sock: socket.socket, error: OSError) -> None:
        self._error = error
        self.pending.remove(sock)
        sock.close()


def explain(error: BaseException, url: str, proxy: str = "") -> TransferError:
    """Turn a library's error into a sentence; its own message may hold the URL, so it is not quoted.

    :param proxy: what the proxy that was asked is called, empty if there was none.
    """
    chain = list(_causes(error))
    if status := _refused_tunnel(chain):
        return proxies.refused(proxy, status)
    if any(type(cause).__module__ == "socks" for cause in chain):
        return proxies.refused(proxy, None)
    host = (urlsplit(url).hostname or "the server").rstrip(".")  # a sentence ends at a point
    words = {"host": host, "server": f"server {host}"}
    if proxy and _is_of_proxy(chain, url):
        words = {"host": f"the proxy {proxy}", "server": f"proxy {proxy}"}
    elif any(getattr(cause, "reason", None) == "WRONG_VERSION_NUMBER" for cause in chain):
        return TryAgain(f"The server {host} does not speak https. {_NO_HTTPS}")
    if any(getattr(cause, "reason", None) in _REFUSALS for cause in chain):
        return TransferError(_REFUSED.format(**words))
    for kind, sentence in _FINAL:
        if cause := next((cause for cause in chain if isinstance(cause, kind)), None):
            return TransferError(sentence.format(**words, why=_why_not(cause)))
    for kind, sentence in _PASSING:
        if any(isinstance(cause, kind) for cause in chain):
            return (LateError if kind is TimeoutError else TryAgain)(sentence.format(**words))
    return TryAgain("The connection to {host} failed".format(**words))


_OF_WHO_SPEAKS = (ssl.SSLError, CertificateError, http.client.HTTPException, ConnectionError)
_REFUSALS = (
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "TLSV1_ALERT_ACCESS_DENIED",
    "TLSV1_ALERT_PROTOCOL_VERSION",
    "UNSUPPORTED_PROTOCOL",
)
"""OpenSSL's words for what a server says that has decided (RFC 8446, section 6.2)."""
_REFUSED = (
    "The {server} makes no secure connection with Blender: it may want a certificate of yours, or be too old."
    " Use your browser"
)
_NO_HTTPS = "If the link is to begin with http://, write that before it"


def _unreached(error: TransferError, host: _Host, *, is_late: bool) -> TransferError:
    """What to say of a connection that could not be made: a proxy may be why, or a missing one."""
    if host.proxy:
        return proxies.unreached(host.proxy, is_late=is_late, is_new=host.is_new)
    if host.is_new and isinstance(error, TryAgain) and portable.has_proxy_script():
        return proxies.unknown(error)
    return error


def _is_of_proxy(chain: list[BaseException], url: str) -> bool:
    """Whether the proxy itself went wrong, and no server behind it: for http it is the one that speaks."""
    kinds = (_ProxyFault, *_OF_WHO_SPEAKS) if url.startswith("http:") else _ProxyFault
    return any(isinstance(cause, kinds) for cause in chain)


def _why_not(error: BaseException) -> str:
    """Why a certificate is not trusted, and what to do (the codes are those of OpenSSL's x509_vfy.h)."""
    code = getattr(error, "verify_code", 62)  # urllib3 says so itself where it looks at the name
    return next((why for codes, why in _REASONS if code in codes), _REASONS[-1][1])


def _refused_tunnel(chain: list[BaseException]) -> int:
    """The status with which a proxy refused to connect; the standard library has it only as a text."""
    texts = (str(cause.args[0]) for cause in chain if type(cause) is OSError and cause.args)
    found = (re.match(r"Tunnel connection failed: (\d{3})\b", text) for text in texts)
    return next((int(match[1]) for match in found if match), 0)


def was_closed(error: TransferError) -> bool:
    """Whether the server closed the connection before it answered, as one that was idle is closed."""
    causes = list(_causes(error.__cause__))
    # Over TLS older Pythons have no class for it.
    is_cut = any(getattr(cause, "reason", "") == "UNEXPECTED_EOF_WHILE_READING" for cause in causes)
    return is_cut or any(isinstance(cause, ConnectionError) for cause in causes)


def _is_away(error: TryAgain) -> bool:
    """Whether this computer has no network at all: no server is why."""
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in (errno.ENETDOWN, errno.ENETUNREACH):
            return True
        if isinstance(cause, socket.gaierror):
            return not any(map(_is_routed, _ELSEWHERE))
    return False


def _is_routed(place: tuple[socket.AddressFamily, str]) -> bool:
    """Whether something would be sent there; nothing is."""
    family, address = place
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as sock:
        sock.connect((address, 9))
        return True
    return False


_ELSEWHERE = ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1"))
"""Addresses that are nobody's (RFC 5737, RFC 3849)."""


def _causes(error: BaseException | None) -> Iterable[BaseException]:
    """The error and all that it wraps, in whatever way the libraries wrapped it."""
    seen: set[int] = set()
    todo = [error]
    while todo:
        current = todo.pop()
        if not isinstance(current, BaseException) or id(current) in seen:
            continue
        seen.add(id(current))
        yield current
        todo += [current.__cause__, current.__context__, getattr(current, "reason", None), *current.args]


_ASK = "Ask whoever looks after this network or the server"
_REASONS = (
    ((10,), f"it has expired. Check this computer's clock. {_ASK}"),
    ((9,), "it is not valid yet. Check this computer's clock"),
    ((62, 63, 64), f"it is for another server. Check the link. {_ASK}"),
    ((2, 18, 19, 20, 21, 27), f"nobody whom this computer knows vouches for it. {_ASK}"),
    ((), f"it is not valid. Check this computer's clock. {_ASK}"),
)
_NO_TRUST = "The certificate of {host} cannot be trusted: {why}"
_UNREADABLE = f"The {{server}} sent an answer that cannot be understood. {retry.LATER}"
_FINAL: tuple[tuple[type[BaseException], str], ...] = (
    (ssl.SSLCertVerificationError, _NO_TRUST),
    (CertificateError, _NO_TRUST),  # what urllib3 says where it looks at the name itself
    (requests.exceptions.InvalidURL, "The address of {host} is not valid. Check the link"),
    (UnicodeError, "The address of {host} is not valid. Check the link"),
)
_PASSING: tuple[tuple[type[BaseException], str], ...] = (
    (socket.gaierror, "The {server} cannot be found. Check the link and the network"),
    (
        _ForbiddenError,
        "This computer does not let Blender connect to {host}. Check its firewall: it may know Blender,"
        " and not the Python beside it",
    ),
    (_UnreachableError, "The {server} cannot be reached. Check the network"),
    (ConnectionRefusedError, "The {server} refuses connections"),
    (ssl.SSLError, f"A secure connection to {{host}} could not be made. {retry.LATER}"),
    (http.client.RemoteDisconnected, "The {server} closed the connection without an answer"),
    (ConnectionResetError, "The connection to {host} was reset"),
    (urllib3.exceptions.InvalidHeader, _UNREADABLE),
    (http.client.HTTPException, _UNREADABLE),
    (TimeoutError, f"The {{server}} did not answer in time. {SLOW}"),
)
