"""A WSGI middleware that controls access to optuna-dashboard.

optuna-dashboard has no login, answers requests for any host name and lets every visitor delete. The middleware refuses a
request with status 403 and one line of text. It also adds headers that limit what the pages may do in the browser.
"""

from __future__ import annotations

import ipaddress
import json
import re
import secrets
import socket
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from io import BytesIO
from typing import Any
from urllib.parse import parse_qs, urlsplit

App = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]
Headers = list[tuple[str, str]]

LOOPBACK_NAMES = frozenset({"127.0.0.1", "localhost", "::1"})
READING = frozenset({"GET", "HEAD"})
"""Methods that change nothing.

The pages of optuna-dashboard 0.21 read with these methods only. The exception is a POST request to a language model.
"""
EDITS = re.compile(
    r"PUT /api/studies/\d+(/\d+)?/note"
    r"|POST (?P<tell>/api/trials/\d+/tell)"
    r"|DELETE /api/studies/\d+"
    r"|DELETE /api/artifacts/\d+(/\d+)?/[0-9a-fA-F-]+"
)
"""Requests that --allow-edit permits. They write notes, mark trials as failed, and delete studies and artifacts.

Creating or renaming a study is not permitted, because hpsearch could not continue such a study.
"""
LARGEST_TELL = 64_000
"""Maximum number of bytes read from a request that ends a trial. A valid request is short."""
SANDBOX = (
    "sandbox allow-scripts allow-downloads; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; font-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content security policy for artifacts.

The page of an artifact may draw its figures. It cannot read the cookie of the dashboard and cannot use the network.
"""
OWN_PAGES = re.compile(r"/*(dashboard(/.*)?|static/.*|api/.*|csv/.*|favicon\.ico)?")
"""Paths of the pages of optuna-dashboard. Every other path is treated as an artifact and gets the policy `SANDBOX`."""
PAGE = (
    "default-src 'self'; img-src 'self' data: blob:; style-src 'self' data: 'unsafe-inline'; script-src 'self' 'unsafe-eval'; "
    "object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'"
)
"""Content security policy for all other answers.

The browser fetches from this server only. Otherwise an image in a note would tell another site who reads the note. This replaces the
policy of optuna-dashboard, which comes with one page only and permits other base addresses and forms. Its parallel coordinates need
`unsafe-eval`.
"""
EVERY_ANSWER: Headers = [
    ("X-Content-Type-Options", "nosniff"),
    # The first address that a visitor opens has the token. The browser must not send this address to another site.
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
]
NOT_PASSED_ON = frozenset({"access-control-allow-origin", "content-security-policy", "x-content-type-options"})
"""Headers of optuna-dashboard that are not sent to the browser. One of them would let every site read artifacts.

The others are replaced by hpsearch's own.
"""


@dataclass(frozen=True, kw_only=True)
class AccessPolicy:
    """Decides which requests are answered.

    Attributes:
        host: the address of the server.
        names: host names that a request may use in addition to `host`.
        token: the secret that a request must contain; None if no secret is needed.
        allow_edit: whether the requests in `EDITS` are permitted.
    """

    host: str
    names: frozenset[str] = frozenset()
    token: str | None = None
    allow_edit: bool = False


class _Refused(Exception):
    """The reason why a request is refused, in one line."""


class AccessMiddleware:
    """Passes on the requests that the policy permits and refuses all others.

    Args:
        app: optuna-dashboard.
        policy: which requests are permitted.
    """

    def __init__(self, app: App, policy: AccessPolicy) -> None:
        self._app = app
        self._policy = policy

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        """Answer a request."""
        try:
            self._check_host(environ)
            if (arrival := self._arrival(environ)) is not None:
                return arrival(start_response)
            self._check_token(environ)
            if environ["REQUEST_METHOD"] not in READING:
                self._check_edit(environ)
        except _Refused as refusal:
            return _answer(start_response, "403 Forbidden", "text/plain; charset=utf-8", f"{refusal}\n", [])
        return self._app(environ, _with_headers(start_response, path=str(environ.get("PATH_INFO", ""))))

    def _check_host(self, environ: Mapping[str, Any]) -> None:
        """Raise an error if the host name of the request is unknown.

        A web page of another site can point its own host name to this machine. The browser would then let that page read
        the dashboard.
        """
        asked = _host_name(environ)
        if asked in self._policy.names:
            return
        if is_loopback(self._policy.host):
            known = asked in LOOPBACK_NAMES or asked == self._policy.host.lower()
        else:  # another site can point a host name to this machine, but not an IP address
            known = asked in (self._policy.host.lower(), "localhost") or _ip_address(asked) is not None
        if not known:
            raise _Refused(f"This dashboard is not called {asked[:100] or 'nothing'}: start it with --allow-host to give it that name.")

    def _arrival(self, environ: Mapping[str, Any]) -> Callable[[Callable[..., Any]], Iterable[bytes]] | None:
        """Return the answer to a request that has the token in its address, or None for any other request.

        The answer sets a cookie and sends the browser to the same address without the token.
        """
        if self._policy.token is None or environ["REQUEST_METHOD"] not in READING:
            return None
        given = parse_qs(str(environ.get("QUERY_STRING", ""))).get("token", [""])[0]
        if not given:
            return None
        if not _same(given, self._policy.token):
            raise _Refused("That is not the token of this dashboard.")
        cookie = f"{_cookie_name(environ)}={self._policy.token}; Path=/; HttpOnly; SameSite=Strict"
        # A page, not a redirect. After a redirect from another site the browser would not send the cookie.
        target = re.sub(r"[^A-Za-z0-9/_-]", "", str(environ.get("PATH_INFO", ""))).lstrip("/")
        page = f'<!DOCTYPE html><meta http-equiv="refresh" content="0; url=/{target}"><title>hpsearch</title>\n'
        return lambda start: _answer(
            start, "200 OK", "text/html; charset=utf-8", page, [("Set-Cookie", cookie), ("Cache-Control", "no-store")]
        )

    def _check_token(self, environ: Mapping[str, Any]) -> None:
        if self._policy.token is None:
            return
        try:
            morsel = SimpleCookie(str(environ.get("HTTP_COOKIE", ""))).get(_cookie_name(environ))
        except CookieError:
            morsel = None
        if morsel is None or not _same(morsel.value, self._policy.token):
            raise _Refused("This dashboard asks for its token: open the address that was printed when it was started.")

    def _check_edit(self, environ: dict[str, Any]) -> None:
        if not self._policy.allow_edit:
            raise _Refused("This dashboard only shows: start it with --allow-edit to write notes, fail trials and delete.")
        origin = environ.get("HTTP_ORIGIN")
        # A browser sends the site of the requesting page as Origin. A request without Origin does not come from a browser.
        is_foreign = origin is not None and urlsplit(str(origin)).netloc.lower() != str(environ.get("HTTP_HOST", "")).lower()
        if is_foreign or environ.get("HTTP_SEC_FETCH_SITE", "same-origin") not in ("same-origin", "none"):
            raise _Refused("A page of another site may not change anything here.")
        edit = EDITS.fullmatch(f"{environ['REQUEST_METHOD']} {str(environ.get('PATH_INFO', '')).rstrip('/')}")
        if edit is None:
            raise _Refused("--allow-edit lets notes be written, trials failed, studies and artifacts deleted, and nothing else.")
        if edit["tell"]:
            _check_tell(environ)


def own_names(host: str) -> frozenset[str]:
    """Return the host names that need no `--allow-host`.

    Args:
        host: the address of the server.

    Returns:
        The name of this machine; empty if `host` is a loopback address.
    """
    return frozenset() if is_loopback(host) else frozenset({socket.gethostname().lower()})


def is_loopback(host: str) -> bool:
    """Return whether an address can be reached from this machine only.

    Args:
        host: the address.

    Returns:
        True for `localhost` and loopback addresses.
    """
    address = _ip_address(host)
    return host.lower() == "localhost" or (address is not None and address.is_loopback)


def _check_tell(environ: dict[str, Any]) -> None:
    """Raise an error unless a request only marks a trial as failed.

    Another request could give the trial a value that was never measured.
    """
    length = int(environ.get("CONTENT_LENGTH") or 0)
    body = environ["wsgi.input"].read(min(length, LARGEST_TELL))
    environ["wsgi.input"] = BytesIO(body)
    try:
        state = json.loads(body)["state"].upper()
    except (ValueError, KeyError, TypeError, AttributeError):
        state = ""
    if state != "FAIL":
        raise _Refused("A trial can be failed here, but no value can be given to it.")


def _host_name(environ: Mapping[str, Any]) -> str:
    """Return the host name of a request, without port and brackets."""
    host = str(environ.get("HTTP_HOST", "")).lower()
    name, bracket, _ = host.partition("]")
    return name.lstrip("[") if bracket else host.partition(":")[0]


def _ip_address(name: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        return ipaddress.ip_address(name)
    except ValueError:
        return None


def _cookie_name(environ: Mapping[str, Any]) -> str:
    """Return the name of the cookie. It has the port, because two dashboards on one machine share their cookies."""
    return f"hpsearch-dashboard-{environ.get('SERVER_PORT', '')}"


def _same(given: str, token: str) -> bool:
    """Return whether two tokens are equal. The comparison takes constant time, so no one can guess the token letter by letter."""
    return secrets.compare_digest(given.encode("utf-8", "surrogateescape"), token.encode())


def _answer(start_response: Callable[..., Any], status: str, kind: str, text: str, headers: Headers) -> Iterable[bytes]:
    content = text.encode("utf-8", "replace")
    start_response(
        status, [("Content-Type", kind), ("Content-Length", str(len(content))), *EVERY_ANSWER, ("Content-Security-Policy", PAGE), *headers]
    )
    return [content]


def _with_headers(start_response: Callable[..., Any], *, path: str) -> Callable[..., Any]:
    """Return a `start_response` that adds the headers of every answer, with the policy `SANDBOX` for artifacts."""
    policy = ("Content-Security-Policy", PAGE if OWN_PAGES.fullmatch(path) else SANDBOX)

    def start(status: str, headers: Headers, exc_info: Any = None) -> Any:
        kept = [(name, value) for name, value in headers if name.lower() not in NOT_PASSED_ON]
        return start_response(status, [*kept, *EVERY_ANSWER, policy], *([exc_info] if exc_info else []))

    return start
