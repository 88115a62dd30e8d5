"""What an answer means, by its head alone; how to ask, and what may be put together: no socket, no file."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

from background_downloads.transfer.answers import (
    Ask,
    Asked,
    Head,
    Trust,
    Verdict,
    judge,
    redirected,
    refusal,
    timestamp,
)
from background_downloads.transfer.connect import Headers
from background_downloads.transfer.job import TransferError, TryAgain, Validator
from background_downloads.transfer.part import Received
from background_downloads.transfer.ranges import Ranges
from background_downloads.transfer.retry import LATER

SIZE, KEPT, START = 1000, 600, 500  # bytes: of the file, on the disk, where the range begins
OLD = "Thu, 02 Jan 2020 00:00:00 GMT"
OTHER = "Fri, 03 Jan 2020 00:00:00 GMT"
STRONG, WEAK = Validator('"1"'), Validator('W/"1"', OLD)
BY_DATE = Validator("", OLD, is_date_strong=True)
WEAK_DATE = Validator("", OLD)
NOTHING = Validator()
RANGE = Asked(START, KEPT, '"1"')
BARE = Asked(START, KEPT)
APART = Asked(700, 700)
"""A range in the middle of nowhere: nothing of it is there to be compared."""
WHOLE = Asked()
IF_NEWER = Asked(is_conditional=True)


def known(validator: Validator, ranges: list[tuple[int, int]] | None = None, **options: Any) -> Received:
    there = Ranges([(0, KEPT)] if ranges is None else ranges)
    return Received(there, **{"size": SIZE, "validator": validator, **options})


def verdict(
    status: int, asked: Asked, have: Received, *, name: str = "a.bin", digest: bool = False, **headers: str
) -> Verdict:
    length = headers.pop("length", "")
    fields = Headers((key.replace("_", "-"), value) for key, value in headers.items())
    head = Head(status, fields, int(length) if length else None)
    return judge(head, asked, have, name=name, has_digest=digest)


def span(start: int = START, end: int = SIZE, size: int | str = SIZE) -> dict[str, str]:
    return {"Content_Range": f"bytes {start}-{end - 1}/{size}"}


SAID = {"ETag": '"1"'}
SAID_WEAK = {"ETag": 'W/"1"', "Last_Modified": OLD}
SAID_DATE = {"Last_Modified": OLD}
FULL = {"length": str(SIZE)}

RANGES: list[tuple[Asked, Validator, dict[str, str], Verdict]] = [
    # Of the version that If-Range named.
    (RANGE, STRONG, span() | SAID, Verdict.RANGE),
    (RANGE, STRONG, span(), Verdict.RANGE),
    (RANGE, STRONG, span(size="*") | SAID, Verdict.RANGE),
    (RANGE, STRONG, span(end=700) | SAID, Verdict.RANGE),
    (RANGE, BY_DATE, span() | SAID_DATE, Verdict.RANGE),
    # Not the one asked for.
    (RANGE, STRONG, SAID, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span(start=0) | SAID, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span(start=START + 1) | SAID, Verdict.ASK_WHOLE),
    (RANGE, STRONG, {"Content_Range": f"bytes */{SIZE}"}, Verdict.ASK_WHOLE),
    (RANGE, STRONG, {"Content_Range": "lines 500-999/1000"}, Verdict.ASK_WHOLE),
    (RANGE, STRONG, {"Content_Range": "bytes 500-499/1000"}, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span() | {"Content_Encoding": "gzip"}, Verdict.ASK_WHOLE),
    # Of another version.
    (RANGE, STRONG, span(size=SIZE + 1) | SAID, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span() | {"ETag": '"2"'}, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span() | {"ETag": 'W/"1"'}, Verdict.ASK_WHOLE),
    (RANGE, BY_DATE, span() | {"Last_Modified": OTHER}, Verdict.ASK_WHOLE),
    # It brings nothing that is not there.
    (RANGE, STRONG, span(end=KEPT) | SAID, Verdict.ASK_WHOLE),
    (RANGE, STRONG, span(end=KEPT - 1) | SAID, Verdict.ASK_WHOLE),
    # It is cut, and brings less than it repeats; one that was asked for may be as short.
    (RANGE, STRONG, span(end=699) | SAID, Verdict.ASK_WHOLE),
    (Asked(START, KEPT, '"1"', stop=650), STRONG, span(end=650) | SAID, Verdict.RANGE),
    # If-Range was left out: an overlap is compared, or the validator is the very same.
    (BARE, STRONG, span(), Verdict.RANGE),
    (BARE, STRONG, span() | SAID, Verdict.RANGE),
    (BARE, STRONG, span() | {"ETag": '"2"'}, Verdict.ASK_WHOLE),
    (APART, STRONG, span(start=700) | SAID, Verdict.RANGE),
    (APART, STRONG, span(start=700), Verdict.ASK_WHOLE),
    # A weak validator takes part in no If-Range: all must be the same, and an overlap is compared.
    (BARE, WEAK, span() | SAID_WEAK, Verdict.RANGE),
    (BARE, WEAK, span() | {"ETag": 'W/"1"'}, Verdict.ASK_WHOLE),
    (BARE, WEAK, span() | SAID_DATE, Verdict.ASK_WHOLE),
    (BARE, WEAK, span(size="*") | SAID_WEAK, Verdict.ASK_WHOLE),
    (BARE, WEAK, span() | {"ETag": 'W/"2"', "Last_Modified": OLD}, Verdict.ASK_WHOLE),
    (BARE, WEAK_DATE, span() | SAID_DATE, Verdict.RANGE),
    (BARE, WEAK_DATE, span(), Verdict.ASK_WHOLE),
    (BARE, WEAK_DATE, span() | {"Last_Modified": OTHER}, Verdict.ASK_WHOLE),
    (APART, WEAK, span(start=700) | SAID_WEAK, Verdict.ASK_WHOLE),
    # Nothing proves anything.
    (BARE, NOTHING, span() | SAID, Verdict.ASK_WHOLE),
]


@pytest.mark.parametrize(("asked", "validator", "headers", "expected"), RANGES)
def test_a_range(asked: Asked, validator: Validator, headers: dict[str, str], expected: Verdict) -> None:
    assert verdict(206, asked, known(validator), **headers) is expected


@pytest.mark.parametrize("asked", [BARE, APART])
@pytest.mark.parametrize("validator", [STRONG, WEAK, WEAK_DATE, NOTHING])
def test_a_digest_will_show_whether_a_range_belongs_to_the_file(asked: Asked, validator: Validator) -> None:
    start = asked.start or 0
    assert verdict(206, asked, known(validator), digest=True, **span(start)) is Verdict.RANGE
    other = span(start, size=SIZE + 1)
    assert verdict(206, asked, known(validator), digest=True, **other) is Verdict.ASK_WHOLE


def test_a_range_that_is_labelled_as_encoded_because_the_file_is() -> None:
    headers = span() | {"Content_Encoding": "gzip"}
    assert verdict(206, RANGE, known(STRONG), name="a.tar.gz", **headers) is Verdict.RANGE


def test_the_end_once_more_where_all_is_there_brings_nothing_and_is_right() -> None:
    have, asked = known(STRONG, [(0, SIZE)]), Asked(900, SIZE, '"1"')
    assert verdict(206, asked, have, **span(900)) is Verdict.RANGE


def test_a_file_whose_size_was_not_known() -> None:
    assert verdict(206, RANGE, known(STRONG, size=None), **span()) is Verdict.RANGE


WHOLES: list[tuple[Asked, Received, dict[str, str], Verdict]] = [
    (WHOLE, known(NOTHING, [], size=None), FULL, Verdict.WHOLE),
    (WHOLE, known(STRONG), FULL | SAID, Verdict.SAME),
    (WHOLE, known(STRONG), FULL, Verdict.WHOLE),
    (WHOLE, known(STRONG), SAID, Verdict.WHOLE),
    (WHOLE, known(STRONG), {"length": "999"} | SAID, Verdict.WHOLE),
    (WHOLE, known(STRONG), FULL | SAID | {"Content_Encoding": "gzip"}, Verdict.WHOLE),
    (WHOLE, known(STRONG, encoded=True), FULL | SAID, Verdict.WHOLE),
    (WHOLE, known(BY_DATE), FULL | SAID_DATE, Verdict.SAME),
    (WHOLE, known(WEAK), FULL | SAID_WEAK, Verdict.SAME),
    (WHOLE, known(WEAK), FULL | {"ETag": 'W/"1"'}, Verdict.WHOLE),
    (WHOLE, known(NOTHING), FULL, Verdict.WHOLE),
    # In place of a range.
    (RANGE, known(STRONG), FULL | SAID, Verdict.ASK_BARE),
    (RANGE, known(STRONG), FULL | {"ETag": '"2"'}, Verdict.WHOLE),
    (RANGE, known(STRONG), FULL, Verdict.WHOLE),
    (Asked(START, KEPT, OLD), known(BY_DATE), FULL | SAID_DATE, Verdict.ASK_BARE),
    (BARE, known(STRONG), FULL | SAID, Verdict.SAME),
    (BARE, known(STRONG), FULL | {"ETag": '"2"'}, Verdict.WHOLE),
    (BARE, known(WEAK), FULL | SAID_WEAK, Verdict.SAME),
    (BARE, known(WEAK), FULL | {"ETag": 'W/"2"', "Last_Modified": OLD}, Verdict.WHOLE),
]


@pytest.mark.parametrize("status", [200, 201, 203, 226, 299])
@pytest.mark.parametrize(("asked", "have", "headers", "expected"), WHOLES)
def test_the_whole_file(
    status: int, asked: Asked, have: Received, headers: dict[str, str], expected: Verdict
) -> None:
    assert verdict(status, asked, have, **headers) is expected


@pytest.mark.parametrize("validator", [NOTHING, Validator()])
def test_with_a_digest_the_whole_file_is_compared_with_what_is_there(validator: Validator) -> None:
    assert verdict(200, BARE, known(validator), digest=True, **FULL) is Verdict.SAME


# A part that is said to be whole, and one that nobody asked for.


@pytest.mark.parametrize(
    ("status", "length", "said", "is_part", "size", "reach"),
    [
        (206, "500", span(), True, SIZE, SIZE),
        (206, "", span(end=700), True, SIZE, 700),
        (206, "500", {}, True, None, 500),
        (200, "500", span(), True, SIZE, SIZE),
        (203, "700", span(0, 700), True, SIZE, 700),
        (200, "500", span(size="*"), True, None, SIZE),
        (200, "999", span(1), True, SIZE, SIZE),
        (200, "1000", span(0), False, SIZE, SIZE),  # all of it
        (200, "700", span(0, 700, 700), False, 700, 700),
        (200, "700", span(0, 700, "*"), False, 700, 700),
        (200, "1000", span(), False, SIZE, SIZE),  # what it brings is no range
        (200, "499", span(), False, 499, 499),
        (200, "501", span(), False, 501, 501),
        (200, "", span(), False, None, None),
        (404, "500", span(), False, 500, 500),
    ],
)
def test_a_part_whatever_its_status(
    status: int, length: str, said: dict[str, str], is_part: bool, size: int | None, reach: int | None
) -> None:
    fields = Headers((key.replace("_", "-"), value) for key, value in said.items())
    head = Head(status, fields, int(length) if length else None)
    assert (head.is_part, head.size, head.reach) == (is_part, size, reach)


@pytest.mark.parametrize("asked", [WHOLE, IF_NEWER])
@pytest.mark.parametrize("status", [200, 206])
def test_of_a_part_that_nobody_asked_for_only_a_beginning_is_taken(status: int, asked: Asked) -> None:
    beginning, nothing = span(0, 700) | {"length": "700"}, known(NOTHING, [])
    assert verdict(status, asked, nothing, **beginning) is Verdict.WHOLE
    wrong = [
        span() | {"length": "500"},
        span(1, 700) | {"length": "699"},
        beginning | {"Content_Encoding": "gzip"},
    ]
    if status == 206:
        wrong += [span(0, 700, "*") | {"length": "700"}, beginning | {"length": "699"}, {}]
    for said in wrong:
        with pytest.raises(TransferError, match="only a part of the file") as error:
            verdict(status, asked, nothing, **said)
        assert not isinstance(error.value, TryAgain)


@pytest.mark.parametrize(
    ("length", "said", "expected"),
    [
        (SIZE - START, {}, Verdict.ASK_WHOLE),  # as long as the range
        (SIZE - START + 1, {}, Verdict.WHOLE),
        (SIZE - START - 1, {}, Verdict.WHOLE),
        (SIZE - START, SAID, Verdict.ASK_WHOLE),
        (77, SAID, Verdict.ASK_WHOLE),  # this very version in another size
        (SIZE - START, {"ETag": '"2"'}, Verdict.WHOLE),
        (77, {"ETag": '"2"'}, Verdict.WHOLE),
        (SIZE, SAID, Verdict.ASK_BARE),
    ],
)
def test_what_is_said_to_be_whole_may_be_the_range(
    length: int, said: dict[str, str], expected: Verdict
) -> None:
    assert verdict(200, RANGE, known(STRONG), length=str(length), **said) is expected
    if expected is Verdict.ASK_WHOLE:
        assert verdict(200, RANGE, known(STRONG, size=None), length=str(length), **said) is not expected
        assert verdict(200, WHOLE, known(STRONG), length=str(length), **said) is Verdict.WHOLE


@pytest.mark.parametrize(("start", "stop"), [(0, 300), (700, 800), (500, 999), (1, 2)])
def test_a_range_with_an_end_that_is_said_to_be_the_file_is_none(start: int, stop: int) -> None:
    """Of a server that says nothing else: one of several ranges became the file."""
    have = known(NOTHING, [(300, KEPT)])
    asked, length = Asked(start, start, stop=stop), str(stop - start)
    assert verdict(200, asked, have, length=length) is Verdict.ASK_WHOLE
    assert verdict(200, asked, have, length=length, ETag='"2"') is Verdict.ASK_WHOLE
    assert verdict(200, asked, known(STRONG), length=length, ETag='"2"') is Verdict.WHOLE
    assert verdict(200, asked, have, length="777") is Verdict.WHOLE


def test_a_strong_etag_is_enough_where_dates_differ() -> None:
    said = span() | SAID | {"Last_Modified": OTHER}
    assert verdict(206, BARE, known(Validator('"1"', OLD)), **said) is Verdict.RANGE
    weak = span() | {"ETag": 'W/"1"', "Last_Modified": OTHER}
    assert verdict(206, BARE, known(WEAK), **weak) is Verdict.ASK_WHOLE
    other_size = span(size=SIZE + 1) | SAID | {"Last_Modified": OTHER}
    assert verdict(206, BARE, known(Validator('"1"', OLD)), **other_size) is Verdict.ASK_WHOLE


EXPLAINED = {202, 204, 400, 401, 403, 404, 407, 408, 410, 416, 425, 429, 451, *range(500, 600)}
EXPLAINED -= {501, 505, 506, 507, 508, 509, 510, 526}


def test_each_refusal_that_people_meet_has_a_sentence_of_its_own() -> None:
    said = {status: str(refusal(Head(status, {}))) for status in range(201, 600)}
    assert {status for status, text in said.items() if "answered with an error" not in text} == EXPLAINED


@pytest.mark.parametrize(
    ("challenge", "said"),
    [
        ("", "does not accept the user name and the password (401). Check both"),
        ('Basic realm="files"', "does not accept the user name and the password (401). Check both"),
        ("Negotiate, BASIC", "does not accept the user name and the password (401). Check both"),
        ('Digest realm="a basic one"', "does not accept the user name and the password (401). Check both"),
        ('Digest realm="files", nonce="x"', "wants another kind of login than Blender can give it. Use your"),
        ("Negotiate, NTLM", "wants another kind of login than Blender can give it. Use your browser"),
    ],
)
def test_a_password_is_not_called_wrong_where_the_server_wants_none(challenge: str, said: str) -> None:
    fields = Headers([("WWW-Authenticate", challenge)])
    head = Head(401, fields, url="http://files.example/a.zip", login="Basic bWU6c2VjcmV0")
    assert said in str(refusal(head))


@pytest.mark.parametrize("field", ["CF-Mitigated", "X-Amzn-Waf-Action"])
@pytest.mark.parametrize("status", [202, 401, 403, 405, 429, 503])
def test_a_page_that_tries_the_browser_is_neither_asked_for_again_nor_a_link_that_expired(
    status: int, field: str
) -> None:
    error = refusal(Head(status, Headers([(field, "challenge")])))
    assert not isinstance(error, TryAgain)
    assert str(error) == f"The server wants to be sure that a person asks ({status}). Use your browser"


@pytest.mark.parametrize("status", [304, 400, 403, 405, 409, 412, 416, 421, 431, 499, 501])
def test_what_is_said_of_ranges_may_not_hold_for_the_whole_file(status: int) -> None:
    assert verdict(status, RANGE, known(STRONG)) is Verdict.ASK_WHOLE
    with pytest.raises(TransferError, match=str(status)):
        verdict(status, WHOLE, known(STRONG))


@pytest.mark.parametrize("status", [204, 300, 401, 402, 404, 407, 410, 451, 505, 511])
def test_what_is_said_of_the_file_holds_for_ranges_too(status: int) -> None:
    with pytest.raises(TransferError) as error:
        verdict(status, RANGE, known(STRONG))
    assert not isinstance(error.value, TryAgain)


def test_only_what_was_asked_for_can_be_unchanged() -> None:
    assert verdict(304, IF_NEWER, known(NOTHING, [])) is Verdict.UNCHANGED
    with pytest.raises(TransferError, match="304"):
        verdict(304, WHOLE, known(STRONG))


@pytest.mark.parametrize("status", [202, 408, 425, 429, 500, 502, 504, 520, 521, 523, 525, 529, 599, 600])
@pytest.mark.parametrize("asked", [WHOLE, RANGE, BARE])
def test_what_passes(status: int, asked: Asked) -> None:
    with pytest.raises(TryAgain) as error:
        verdict(status, asked, known(STRONG), Retry_After="7")
    assert error.value.retry_after == 7


@pytest.mark.parametrize("status", [204, 206, 300, 401, 404, 407, 410, 418, 421, 505, 507, 509, 526])
def test_what_does_not(status: int) -> None:
    with pytest.raises(TransferError) as error:
        verdict(status, WHOLE, known(STRONG), Retry_After="7")
    assert not isinstance(error.value, TryAgain)


# -- Redirects (RFC 9110, section 10.2.2).

FROM = "https://me:p%2Fw@files.example:8443/a/b.zip?v=1"


@pytest.mark.parametrize(
    ("location", "target"),
    [
        # User and password stay with their server: scheme, host and port.
        ("/c.zip", "https://me:p%2Fw@files.example:8443/c.zip"),
        ("c.zip", "https://me:p%2Fw@files.example:8443/a/c.zip"),
        ("?w=https://x", "https://me:p%2Fw@files.example:8443/a/b.zip?w=https://x"),
        ("https://FILES.example:8443/c", "https://me:p%2Fw@files.example:8443/c"),
        ("//files.example:8443/c", "https://me:p%2Fw@files.example:8443/c"),
        ("https://you@files.example:8443/c", "https://you@files.example:8443/c"),
        ("http://files.example:8443/c", "http://files.example:8443/c"),
        ("https://files.example/c", "https://files.example/c"),
        ("//files.example/c", "https://files.example/c"),
        ("https://other.example:8443/c", "https://other.example:8443/c"),
        # Backslashes as browsers read them, but in the query.
        ("\\d\\c.zip?w=a\\b", "https://me:p%2Fw@files.example:8443/d/c.zip?w=a\\b"),
        ("d\\c.zip", "https://me:p%2Fw@files.example:8443/a/d/c.zip"),
        ("https:\\\\other.example\\c", "https://other.example/c"),
        ("HTTPS:///other.example//c?w=https:///x", "https://other.example//c?w=https:///x"),
        ("https://other.example\\@files.example:8443/c", "https://other.example/@files.example:8443/c"),
        # As it was written, as far as it may stand so.
        ("https://o.example/%2f%2Fa%20b?x=%2D", "https://o.example/%2f%2Fa%20b?x=%2D"),
        ("https://o.example/a b", "https://o.example/a%20b"),
        ("https://o.example/\xc3\xa4", "https://o.example/%C3%A4"),  # UTF-8
        ("https://o.example/\xe4\x80\x7e", "https://o.example/%E4%80~"),  # which it is not
    ],
)
def test_where_a_redirect_leads(location: str, target: str) -> None:
    assert redirected(FROM, location) == target


@pytest.mark.parametrize(("scheme", "port"), [("http", 80), ("https", 443)])
def test_the_port_that_is_the_schemes_own_may_be_said_or_not(scheme: str, port: int) -> None:
    bare, said = f"{scheme}://a.example", f"{scheme}://a.example:{port}"
    for one, other in ((bare, said), (said, bare)):
        url = one.replace("://", "://me:pw@")
        assert redirected(f"{url}/b", f"{other}/c") == other.replace("://", "://me:pw@") + "/c"
        assert redirected(f"{url}/b", f"{other}:1/c".replace(f":{port}:", ":")) == f"{bare}:1/c"
    other_scheme = {"http": "https", "https": "http"}[scheme]
    target = f"{other_scheme}://a.example:{port}/c"
    assert redirected(f"{scheme}://me:pw@a.example/b", target) == target


def test_a_user_without_a_password_goes_along_and_nobody_where_there_was_none() -> None:
    assert redirected("http://me@a.example/b", "c") == "http://me@a.example/c"
    assert redirected("http://:@a.example/b", "c") == "http://:@a.example/c"
    assert redirected("http://a.example/b", "c") == "http://a.example/c"


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("ftp://a.example/b", "not a web address"),
        ("file:///etc/passwd", "not a web address"),
        ("javascript:alert(1)", "not a web address"),
        ("http://[", "cannot be read"),
        ("https://a.example:x/b", "cannot be read"),
        ("https://exa mple:99999/", "cannot be read"),
    ],
)
def test_where_no_redirect_can_lead(location: str, words: str) -> None:
    with pytest.raises(TransferError, match=words) as error:
        redirected(FROM, location)
    assert str(error.value).endswith(LATER)
    assert "p%2Fw" not in str(error.value)


@pytest.mark.parametrize(
    ("date", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:01:00 GMT", 60.0),
        ("Thu, 01 Jan 1970 00:01:00", 60.0),
        ("Thursday, 01-Jan-70 00:01:00 GMT", 60.0),
        ("Thu Jan  1 00:01:00 1970", 60.0),
        ("yesterday", None),
        ("", None),
        ("Thu, 01 Jan 99999999999 00:01:00 GMT", None),
    ],
)
def test_a_date(date: str, seconds: float | None) -> None:
    assert timestamp(date) == seconds


# -- If-Range (RFC 9110, sections 8.8.2.2 and 13.1.5).


@pytest.mark.parametrize(
    ("headers", "if_range"),
    [
        ({"ETag": '"1"', "Last-Modified": OLD, "Date": OTHER}, '"1"'),
        ({"ETag": 'W/"1"', "Last-Modified": OLD, "Date": OTHER}, ""),
        ({"ETag": 'w/"1"', "Last-Modified": OLD, "Date": OTHER}, ""),
        ({"Last-Modified": OLD, "Date": OTHER}, OLD),
        ({"Last-Modified": OLD, "Date": "Thu, 02 Jan 2020 00:00:01 GMT"}, OLD),
        ({"Last-Modified": OLD, "Date": OLD}, ""),
        ({"Last-Modified": OTHER, "Date": OLD}, ""),
        ({"Last-Modified": OLD}, OLD),
        ({"Last-Modified": OLD, "Date": "yesterday"}, OLD),
        ({"Last-Modified": "yesterday", "Date": OLD}, ""),
        ({}, ""),
    ],
)
def test_what_may_stand_in_if_range(headers: dict[str, str], if_range: str) -> None:
    assert Head(200, Headers(headers.items())).validator.if_range == if_range


# -- States.


def test_trust_only_goes_forward() -> None:
    for old, new in itertools.product(Trust, Trust):
        assert old.forward(new) is max(old, new)


def test_what_was_thrown_away_is_trusted_again_unless_it_did_not_fit() -> None:
    assert [trust.anew() for trust in Trust] == [Trust.ONE, Trust.ONE, Trust.ONE, Trust.ALONE]


def test_a_whole_file_is_asked_for_until_something_new_has_come() -> None:
    assert [ask.after_progress() for ask in Ask] == [Ask.RANGE, Ask.BARE, Ask.RANGE]
