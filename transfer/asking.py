"""How a download asks for its file, and whom: the mirror until that fails it, then the server itself."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import TYPE_CHECKING

from . import answers, content, names, retry
from .answers import Ask, Head
from .body import Body
from .control import Control
from .job import Finished, LateError, Phase, Skipped, TransferError, TryAgain
from .mirrors import Mirror, NotThere

if TYPE_CHECKING:
    from requests.cookies import RequestsCookieJar

    from .connect import Answer, Client

MAX_REDIRECTS = 20
_CONDITIONS = {"If-None-Match", "If-Modified-Since"}


class Asking:
    """What one download has found out about asking. For the worker that asks; see `Client.get`."""

    def __init__(self, url: str, note: str = "") -> None:
        self.how = Ask.RANGE
        self.note = note
        """Why the server itself is asked, where there is a mirror; a sentence for people."""
        self._url = url
        self._mirror: Mirror | None = None  # by which something came
        self._place = ""  # on another server, where the link led and something came from
        self._cookies: RequestsCookieJar | None = None  # in memory alone

    def via(self, client: Client) -> str:
        """The mark of the mirror that is asked next; empty: the server is."""
        return client.mirror.mark if not self.note and client.mirror.takes(self._url) else ""

    def send(
        self,
        client: Client,
        control: Control,
        headers: Mapping[str, str],
        check: Callable[[], None],
        *,
        tie: str | None = None,
    ) -> Answer:
        """Send a request to wherever it leads; `check` is called at each turn.

        `tie`: by which mirror (its mark; empty: by none) the rest has to come, of a file that could not
        be told from another version of it. Raises TransferError, Stopped; NotThere where a mirror has
        brought some of the file, but not this.
        """
        if tie != "" and self.via(client):
            if _CONDITIONS & headers.keys():  # whether it has changed its server knows best, if it answers
                with suppress(TryAgain):
                    return self._follow(client, control, headers, check)
            try:
                return self._mirrored(client, control, headers, check)
            except NotThere as error:
                if self._mirror or tie:
                    self._mirror = client.mirror
                    raise
                self.note = str(error)
        try:
            at_place = self._at_place(client, control, headers)
            return at_place or self._follow(client, control, headers, check)
        except TryAgain as error:
            if not self.note:
                raise
            raise TryAgain(f"{error}. {self.note}", retry_after=error.retry_after) from error

    def _follow(
        self, client: Client, control: Control, headers: Mapping[str, str], check: Callable[[], None]
    ) -> Answer:
        """Ask the server, with the cookies that came with the file: by them the same node answers again, of
        several that have names of their own for the same version.
        """
        answer = _follow(client, control, self._url, headers, check, cookies=self._cookies)
        if answer.status_code in answers.BRINGING:
            self._cookies = answer.cookies(answer.jar) if "set-cookie" in answer.headers else answer.jar
        return answer

    def came_from(self, url: str) -> None:
        """Some of the file comes from there."""
        is_led = url not in ("", self._url) and names.origin(url) != names.origin(self._url)
        self._place = url if is_led else ""

    def _at_place(self, client: Client, control: Control, headers: Mapping[str, str]) -> Answer | None:
        """Ask for more of the file where some of it came from: a link may lead elsewhere each time, and each
        of those servers has names of its own for the same version. None: this one does not bring it.
        """
        place = self._place
        if not place or "Range" not in headers:
            return None
        with suppress(TransferError):
            answer = client.get(place, headers, control)
            if answer.status_code == 206:
                return answer
            skip(answer, client)
        self._place = ""
        return None

    def _mirrored(
        self, client: Client, control: Control, headers: Mapping[str, str], check: Callable[[], None]
    ) -> Answer:
        """Raises NotThere, Stopped."""
        try:
            answer = _follow(client, control, self._url, headers, check, mirror=client.mirror)
        except NotThere:
            raise
        except TransferError as error:
            raise client.mirror.why("leads nowhere") from error
        if why := _misses(Head.of(answer), headers):
            answer.close()
            raise client.mirror.why(why)
        self._mirror, answer.via = client.mirror, client.mirror.mark
        return answer

    def noted(self, outcome: Finished | Skipped) -> Finished | Skipped:
        """How it ended, and who was asked."""
        if self._mirror and not self.note:
            self._mirror.stands()
        if not self.note:
            return outcome
        return replace(outcome, note=". ".join(filter(None, (outcome.note, self.note))))

    def leave_mirror(self, why: str | TransferError, failures: int = 0) -> bool:
        """Ask the server itself from now on; False: that was done already, or there is no mirror.

        A mirror may cut an answer once: `failures` in a row were before this one. After a LateError
        nobody waits for it soon again.
        """
        if self._mirror is None or self.note:
            return False
        match why:
            case NotThere():
                self.note = str(why)
                return True
            case LateError():
                self._mirror.rest()
                why = "stopped sending"
            case TryAgain() if not failures:
                return False
            case TransferError():
                if isinstance(why, TryAgain):
                    self._mirror.stumble()
                why = "does not bring all of it"
        self.note = str(self._mirror.why(why))
        return True


def _follow(
    client: Client,
    control: Control,
    url: str,
    headers: Mapping[str, str],
    check: Callable[[], None],
    *,
    mirror: Mirror | None = None,
    cookies: RequestsCookieJar | None = None,
) -> Answer:
    """Send the request, and again to where redirects lead (RFC 9110, section 15.4); `check` each time."""
    linked = refused = ""
    for _ in range(MAX_REDIRECTS + 1):
        if mirror and mirror.takes(url) and mirror.link(url) != refused:
            refused = mirror.link(url)  # if it leads back: then it is the server's to answer
            response = _ask(mirror, client, url, headers, control)
        else:
            response = client.get(url, headers, control, cookies=cookies)
        if linked := response.headers.get("x-linked-etag") or linked:
            response.headers["x-linked-etag"] = linked
        if response.status_code not in answers.REDIRECTS or "location" not in response.headers:
            response.jar = cookies
            return response
        skip(response, client)
        check()
        cookies = response.cookies(cookies)
        url = answers.redirected(str(response.url), response.headers["location"])
    raise TransferError(f"The server sends this download round in circles. {retry.LATER}")


def skip(answer: Answer, client: Client) -> None:
    """Nobody wants its body: where there is none, the connection may serve another request."""
    try:
        Body(answer, "").finish(client)
    except TransferError:  # packed in a way that nobody knows
        answer.close()


def _ask(mirror: Mirror, client: Client, url: str, headers: Mapping[str, str], control: Control) -> Answer:
    """Ask a mirror for a link, as whose answer it counts. Raises NotThere, Stopped."""
    if mirror.rests:
        raise mirror.why("does not answer")
    try:
        answer = client.get(mirror.link(url), headers, control)
    except TransferError as error:
        may_pass = isinstance(error, TryAgain)
        is_bad = not may_pass and isinstance(error.__cause__, OSError)  # as its certificate
        if is_bad or isinstance(error, LateError) or control.phase in (Phase.LOOKUP, Phase.CONNECT):
            mirror.rest()
        elif may_pass:
            mirror.stumble()
        raise mirror.why("does not answer" if may_pass else "cannot be used") from error
    if answer.status_code in (502, 504):  # it waits for somebody itself
        mirror.stumble()
    elif answer.status_code not in answers.BRINGING:  # of which it may cut the body
        mirror.stands()
    answer.url = _led(url, answer)
    return answer


def _led(url: str, answer: Answer) -> str:
    """Where a mirror was led that has followed redirects itself: a link may have no name in it."""
    with suppress(TransferError):
        if answer.status_code in answers.BRINGING and (found := answer.headers.get("content-location")):
            target = names.resolved(names.quoted(url), found)
            names.check(target)
            return names.quoted(target)
    return url


def _misses(head: Head, asked: Mapping[str, str]) -> str:
    """What is wrong with a mirror's answer, as far as its head tells; empty if nothing is.

    A page may be one to sign in on: the server itself says what it has. So it does where this is not for
    certain what was asked for: the server may have brought what is there of the file.
    """
    wanted, version = asked.get("Range", ""), asked.get("If-Range", "")
    fitting = answers.WHOLE | ({206} if wanted else set()) | ({304} if _CONDITIONS & asked.keys() else set())
    if head.status not in fitting:
        return f"answered {head.status}"
    if version and (head.status != 206 or version not in (head.validator.etag, head.validator.last_modified)):
        return "has another version"
    if head.status == 206 and not (head.span and wanted.startswith(f"bytes={head.span[0]}-")):
        return "sent another part of it"
    return "sent a web page" if content.is_html(head.content_type) else ""
