"""Links and names: strangers write them, so most of these tests are hostile."""

from __future__ import annotations

import os
import re
from urllib.parse import quote

import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from rules import is_safe

from background_downloads.transfer import names
from background_downloads.transfer.job import Digest, TransferError

SHA256 = "a" * 64
OTHER_SHA256 = "b" * 64

any_text = st.text(st.characters(exclude_categories=()))  # lone surrogates too
long_text = st.text(st.characters(exclude_categories=()), max_size=400) | st.builds(
    str.__mul__, st.text("aé漢😀. -ก\u0301", min_size=1, max_size=5), st.integers(1, 300)
)
url_like = st.text("hHtps:/ab.[]@#?&=%;\\ \t\n\u200b\u202eéßa\u0301\ud800漢0:", max_size=60) | st.builds(
    "http://{}".format, st.text("ab.[]@#?&=%;\\ \u202eéß\ud800漢0:/", max_size=40)
)
secret = st.text("ABCDEFGHIJKLMNOPQRSTUVWXYZ!$%/?#@:&=+[]<ß ", min_size=3, max_size=20).map("Q{}Z".format)


# --- parse_links -------------------------------------------------------------------------------


def links(text: str) -> list[tuple[str, Digest | None]]:
    found, problems = names.parse_links(text)
    assert problems == []
    return [(link.url, link.digest) for link in found]


@given(st.from_regex(names._PLAIN, fullmatch=True))
def test_a_link_that_gets_no_closer_look_would_pass_it(url: str) -> None:
    names.check(url)
    assert links(url) == [(url, None)]


@pytest.mark.parametrize("separator", [" ", "\n", "\r\n", "\t", "  \n\n ", "\u2028", "\u00a0"])
def test_links_are_split_at_white_space_and_keep_their_order(separator: str) -> None:
    text = separator.join(["", "https://h/b", "http://h/a?x=1", ""])
    assert links(text) == [("https://h/b", None), ("http://h/a?x=1", None)]


def test_no_links_in_nothing() -> None:
    assert names.parse_links(" \n\u200b ") == ([], [])


@pytest.mark.parametrize(
    "entry", ["<https://h/a>", "\ufeffhttps://h/a\u200b", '"https://h/a"', "“https://h/a”"]
)
def test_what_surrounds_pasted_links_is_dropped(entry: str) -> None:
    assert links(entry) == [("https://h/a", None)]


def test_the_fragment_gives_the_digest_and_is_no_part_of_the_url() -> None:
    assert links(f"https://u:p@h/a?q=1#sha256={SHA256}") == [
        ("https://u:p@h/a?q=1", Digest("sha256", SHA256))
    ]
    assert links("https://h/a#page=2 https://h/b#") == [("https://h/a", None), ("https://h/b", None)]


def test_duplicates_are_one_link_with_the_digest_that_either_has() -> None:
    with_digest = [("https://h/a", Digest("sha256", SHA256))]
    assert links(f"https://h/a https://h/a#sha256={SHA256}") == with_digest
    assert links(f"https://h/a#sha256={SHA256} https://h/a https://h/a#top") == with_digest
    assert links("https://h/a?x=1 https://h/a?x=2 https://h/a?x=1") == [
        ("https://h/a?x=1", None),
        ("https://h/a?x=2", None),
    ]


def test_two_digests_for_one_link_are_reported_and_the_first_counts() -> None:
    found, problems = names.parse_links(f"https://h/a#sha256={SHA256} https://h/a#sha256={OTHER_SHA256}")
    assert [link.digest for link in found] == [Digest("sha256", SHA256)]
    assert len(problems) == 1
    assert "two digests" in problems[0]


def test_a_bad_entry_never_spoils_the_good_ones() -> None:
    found, problems = names.parse_links(
        "https://h/a ftp://u:pw@h/x?key=1 model.blend https://h/b#md5=12 https://h/c"
    )
    assert [link.url for link in found] == ["https://h/a", "https://h/c"]
    assert problems == [
        "ftp://h/x: Only http and https links can be downloaded, this one starts with “ftp:”",
        "model.blend: A link begins with “https://” or “http://”, this one does not",
        "https://h/b: The checksum after # is incomplete. Copy the whole link",
    ]


def test_a_link_does_not_print_its_secrets() -> None:
    assert "secret" not in repr(names.parse_links("https://u:secret@h/?key=secret")[0])


@given(any_text | url_like)
def test_parse_links_never_raises(text: str) -> None:
    found, problems = names.parse_links(text)
    assert len(found) + len(problems) <= len(text.split())
    assert all("#" not in link.url for link in found)
    for link in found:
        names.check(link.url)
        assert names.quoted(link.url).isascii()
        # Without login: requests takes no password beyond ISO-8859-1.
        assert requests.Request("GET", names.quoted(names.shown(link.url))).prepare().url


# --- check -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://h",
        "HTTPS://EXAMPLE.com:8443/a.blend",
        "http://127.0.0.1:8000/file-1.blend",
        "http://[::1]:80/",
        "http://[2001:db8::7]/",
        "http://user:pass%20word@h/",
        "http://h:/",
        "https://bücher.example/straße/模型.blend?ü=ö",
        "https://a_b.example./x",
        f"https://h/#sha256={SHA256.upper()}",
        "https://h/a\\b|c'd[1].zip",
    ],
)
def test_check_lets_good_links_pass(url: str) -> None:
    names.check(url)


@pytest.mark.parametrize(
    ("url", "sentence"),
    [
        ("", "empty"),
        ("https://h/" + "a" * 8192, "longer than 8192"),
        ("https://h/a b", "space"),
        ("https://h/a\nb", "control"),
        ("https://h/a\x00", "control"),
        ("https://h/a\x9f", "control"),
        ("https://h/\ud800", "control"),
        ("ftp://h/x", "starts with “ftp:”"),
        ("file:///etc/passwd", "starts with “file:”"),
        ("javascript:alert(1)", "starts with “javascript:”"),
        ("C:\\models\\x.blend", "starts with “c:”"),
        ("www.example.com/x.blend", "begins with “https://”"),
        ("www.example.com:80/x.blend", "begins with “https://”"),
        ("//h/x", "begins with “https://”"),
        ("user:pw@h/x", "begins with “https://”"),
        ("https:///x", "no server"),
        ("https:x", "no server"),
        ("https://user:pw@/x", "no server"),
        ("https://:80/x", "no server"),
        ("https://h:0/", "port"),
        ("https://h:65536/", "port"),
        ("https://h:8x/", "port"),
        ("https://h:-1/", "port"),
        ("https://h:٨٠/", "port"),
        ("https://[::1/", "cannot be read"),
        ("https://::1]/", "cannot be read"),
        ("https://[:::::]/", "cannot be read"),
        ("https://[v1.x]/", "cannot be read"),
        ("https://[:0.%d6]/", "cannot be read"),
        ("https://[1::2::3]/", "broken"),
        ("https://[fe80::1%25eth0]/", "“%” in its address"),
        ("https://[fe80::1%eth0]/", "“%” in its address"),
        ("https://a[::1]/", "cannot be read"),
        ("https://[::1]b/", "cannot be read"),
        ("https://a..b/", "no server of that name"),
        ("https://.a/", "no server of that name"),
        ("https://*.a/", "no server of that name"),
        ("https://a%41/", "no server of that name"),
        ("https://a\\b/", "no server of that name"),
        ("https://" + "a" * 64 + "/", "no server of that name"),
        ("https://" + "a." * 127 + "a/", "no server of that name"),
        ("https://\u202ea/", "no server of that name"),
        ("https://\uff48\uff0f\uff58.com/", "cannot be read"),
        ("https://h/#sha256=12", "incomplete"),
        ("https://h/#sha256=" + "g" * 64, "no sha256"),
    ],
)
def test_check_says_what_is_wrong(url: str, sentence: str) -> None:
    with pytest.raises(TransferError, match=re.escape(sentence)):
        names.check(url)


@pytest.mark.parametrize(
    "url",
    [
        "ftp://uSecret:pSecret@h/?qSecret",
        "http://uSecret:pSecret@h:99999/?qSecret",
        "http://uSecret:pSecret@/?qSecret",
        "http://uSecret:pSecret@[::/?qSecret",
        "http://uSecret:pSecret@\uff48\uff0f\uff58/?qSecret",
        "http://uSecret:pSecret@a..b/?qSecret",
        "http://uSecret:p/Secret@h/?qSecret",
        "http://uSecret:p#Secret@h/?qSecret",
        "http://uSecret:p?Secret@h/?qSecret",
        "http:uSecret:pSecret@h/?qSecret",
        "uSecret:pSecret@h/?qSecret",
        "uSecret@h:/?qSecret",
        "http://h:x?qSecret",
        "http://uSecret:pSecret@h/#sha256=qSecret",
    ],
)
def test_no_sentence_holds_a_secret(url: str) -> None:
    found, problems = names.parse_links(url)
    assert found == []
    assert len(problems) == 1
    assert "secret" not in problems[0].lower()
    assert "secret" not in names.shown(url).lower()


def sentence(url: str) -> str:
    try:
        names.check(url)
    except TransferError as error:
        return str(error)
    return ""


@given(any_text | url_like)
def test_check_raises_nothing_but_transfer_errors(url: str) -> None:
    assert sentence(url).isprintable()


# --- shown -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("https://user:password@h:8080/a/b.blend?token=1#sha256=2", "https://h:8080/a/b.blend"),
        ("HTTPS://h", "https://h"),
        ("https://u@[::1]:80/x", "https://[::1]:80/x"),
        ("https://h/@scope/x", "https://h/@scope/x"),
        ("https://h:443/@scope/x", "https://h:443/@scope/x"),
        ("https://bücher.example/模型.blend", "https://bücher.example/模型.blend"),
        ("https://h/evil\u202egpj.exe\x00", "https://h/evil%E2%80%AEgpj.exe%00"),
        ("https://h/a b", "https://h/a%20b"),
        ("model.blend?x", "model.blend"),
        ("", ""),
        ("x" * 9000, "x" * 200),
    ],
)
def test_shown_is_for_people(url: str, text: str) -> None:
    assert names.shown(url) == text


@given(any_text | url_like)
def test_shown_never_raises_and_can_be_printed(url: str) -> None:
    assert names.shown(url).isprintable()
    names.shown(url).encode()


@given(user=secret, password=secret, query=secret, fragment=secret, path=st.text("ab/@:.%", max_size=9))
def test_shown_never_contains_credentials_or_query(
    user: str, password: str, query: str, fragment: str, path: str
) -> None:
    login = f"{quote(user, safe='')}:{quote(password, safe='')}"
    text = names.shown(f"https://{login}@h.example/{path}?{query}#{fragment}")
    assert text.startswith("https://h.example/")
    for hidden in (user, password, query, fragment):
        assert hidden not in text
        assert quote(hidden, safe="") not in text


plain = st.text("ABCdef.-", min_size=1)


@given(user=plain, password=secret)
def test_shown_hides_credentials_that_were_never_escaped(user: str, password: str) -> None:
    text = names.shown(f"https://{user}:{password}@h.example/x?key={password}")
    assert password not in text
    assert quote(password, safe="/") not in text


# --- quoted ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "wire"),
    [
        ("HTTP://EXAMPLE.com", "http://example.com/"),
        ("https://h/a b.zip?c d", "https://h/a%20b.zip?c%20d"),
        ("https://h/模.blend?ü", "https://h/%E6%A8%A1.blend?%C3%BC"),
        ("https://h/%7ea%2f%2D%c3%bC%5f", "https://h/%7ea%2f%2D%c3%bC%5f"),
        ("https://h//a///b/./../c//", "https://h//a///b/./../c//"),
        ("https://h/a?", "https://h/a?"),
        ("https://h?a=/b", "https://h/?a=/b"),
        ("https://h/a?#b", "https://h/a?"),
        ("https://h/a#b?c", "https://h/a"),
        ("https://h/%%41%4", "https://h/%25%41%254"),
        ("https://h/a?b=%2B+%20&c;d=[1]|'e'", "https://h/a?b=%2B+%20&c;d=[1]|'e'"),
        ('https://h/a"<>^`{}\\|[]', "https://h/a%22%3C%3E%5E%60%7B%7D%5C|[]"),
        ('https://h/?a"<>^`{}\\|[]', "https://h/?a%22%3C%3E^`{}\\|[]"),
        ("https://h/100%.zip?50%&a=%20", "https://h/100%25.zip?50%25&a=%20"),
        ("https://bücher.example:8080/", "https://xn--bcher-kva.example:8080/"),
        ("https://straße.example/", "https://xn--strae-oqa.example/"),
        ("https://u:pä@h/#sha256=x", "https://u:p%C3%A4@h/"),
        ("https://[::1]:0443/x", "https://[::1]:443/x"),
        ("https://h:/x", "https://h/x"),
        ("https://h/a;b=1,c@d:e?f/g?h[]", "https://h/a;b=1,c@d:e?f/g?h[]"),
    ],
)
def test_quoted_is_what_goes_on_the_wire(url: str, wire: str) -> None:
    assert names.quoted(url) == wire
    assert names.quoted(wire) == wire


RAW = ["a", "B", "0", *"-._~!$&'()*+,;=:@/[]|", "%41", "%2f", "%c3%BC", "%7E", "//", "/../", "/./"]
ESCAPED = [*' "<>éß漢😀', "\x01"]
PIECES = {piece: piece for piece in RAW} | {piece: quote(piece) for piece in ESCAPED}
pieces = st.lists(st.sampled_from(list(PIECES)), max_size=30)


@given(pieces, pieces)
def test_quoted_escapes_only_what_may_not_stand_raw(path: list[str], query: list[str]) -> None:
    url = f"https://h.example/a{''.join(path)}?{''.join(query)}"
    wire = f"https://h.example/a{''.join(map(PIECES.get, path))}?{''.join(map(PIECES.get, query))}"
    assert names.quoted(url) == names.quoted(wire) == wire


@pytest.mark.parametrize(
    ("reference", "target"),
    [
        ("https://other/%2f//x", "https://other/%2f//x"),
        ("//other//x", "http://other//x"),
        ("/b//%2f/../c?", "http://u:p@h/b//%2f/../c?"),
        ("//", "http://"),
        ("b%2f?c", "http://u:p@h//a/./b%2f?c"),
        ("./b", "http://u:p@h//a/./b"),
        ("../b", "http://u:p@h//a/b"),
        (".././../b/../c", "http://u:p@h//b/../c"),
        ("../../../../../b", "http://u:p@h/b"),
        ("..", "http://u:p@h//a/"),
        ("..?x", "http://u:p@h//a/?x"),
        ("...", "http://u:p@h//a/./..."),
        (".b", "http://u:p@h//a/./.b"),
        ("?b", "http://u:p@h//a/./x?b"),
        ("", "http://u:p@h//a/./x?q=/y"),
        ("#b", "http://u:p@h//a/./x?q=/y#b"),
        ("ftp://h/x", "ftp://h/x"),
        ("javascript:x", "javascript:x"),
        ("b/c:d", "http://u:p@h//a/./b/c:d"),
    ],
)
def test_where_a_reference_leads(reference: str, target: str) -> None:
    assert names.resolved("http://u:p@h//a/./x?q=/y", reference) == target


# What looks ahead makes no examples, and spoils most.
bare_link = st.from_regex(re.sub(r"\(\?=[^)]*\)", "", names._BARE), fullmatch=True).filter(names._is_bare)


@given(bare_link)
def test_links_that_are_taken_as_they_stand_would_come_out_so(url: str) -> None:
    parts = names._split(url)
    assert f"{parts.scheme}://{names._place(parts)}{parts.path}" == url
    assert names._escaped(parts.path, "/") == parts.path
    names.check(url)
    assert names.quoted(url) == names.shown(url) == url


@given(st.from_regex(names._SAFE, fullmatch=True))
def test_names_that_are_taken_as_they_stand_are_safe(name: str) -> None:
    assert is_safe(name)


@given(any_text | url_like)
def test_quoted_is_ascii_without_spaces_or_says_why_not(url: str) -> None:
    try:
        wire = names.quoted(url)
    except TransferError:
        return
    assert wire.isascii()
    assert not re.search(r"\s", wire)
    assert "#" not in wire


# --- safe --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("model.blend", "model.blend"),
        ("My Model (final) v1.2.blend", "My Model (final) v1.2.blend"),
        ("日本　語.blend", "日本　語.blend"),
        ("../../etc/passwd", "_.._etc_passwd"),
        ("..\\..\\boot.ini", "_.._boot.ini"),
        ("/etc/passwd", "_etc_passwd"),
        ("C:\\x.txt", "C__x.txt"),
        ("a\x00b\r\nc\x7f\x85.txt", "abc.txt"),
        ("invoice\u202egpj.exe", "invoicegpj.exe"),
        ("\u2066a\u2069\u200b\ufeff.txt", "a.txt"),
        ("می\u200cروم.txt", "می\u200cروم.txt"),
        ("👩\u200d🎨.png", "👩\u200d🎨.png"),
        ("\u200da\u200c", "a"),
        ('<>:"|?*.zip', "_______.zip"),
        (".htaccess", "htaccess"),
        ("-rf", "rf"),
        (" - . -x", "x"),
        ("a. . ", "a"),
        ("a.blend...", "a.blend"),
        ("CON", "_CON"),
        ("con.blend", "_con.blend"),
        ("NUL .tar.gz", "_NUL .tar.gz"),
        ("Aux.", "_Aux"),
        ("COM¹.txt", "_COM¹.txt"),
        ("lpt9", "_lpt9"),
        ("CONIN$", "_CONIN$"),
        ("conout$.x", "_conout$.x"),
        ("COM0", "COM0"),
        ("COM10", "COM10"),
        ("CONSOLE.txt", "CONSOLE.txt"),
        ("cafe\u0301.png", "café.png"),
        ("e\u200b\u0301.png", "é.png"),
        ("a\ud800b.png", "a_b.png"),
        ("", ""),
        (".", ""),
        ("..", ""),
        (" . ", ""),
        ("///", ""),
        ("???", ""),
        ("\u200d", ""),
    ],
)
def test_safe_name(name: str, expected: str) -> None:
    assert names.safe(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("a" * 300 + ".blend", "a" * 249 + ".blend"),
        ("a" * 300 + ".tar.gz", "a" * 248 + ".tar.gz"),
        ("a" * 300, "a" * 255),
        ("é" * 200 + ".zip", "é" * 125 + ".zip"),
        ("😀" * 100 + ".png", "😀" * 62 + ".png"),
        ("a" * 250 + " " * 9 + ".zip", "a" * 250 + ".zip"),
        ("CON" + " " * 300 + "x.txt", "_CON.txt"),
        ("a." + "b" * 300, "a." + "b" * 253),
        ("a" * 250 + ". b c d e", "a" * 250 + ". b c"),
        ("a\u0301\u0316" * 100_000 + ".blend", "á\u0316" * 62 + ".blend"),
    ],
)
def test_safe_shortens_the_stem_and_keeps_the_extension(name: str, expected: str) -> None:
    assert names.safe(name) == expected
    assert names.safe(expected) == expected


@given(any_text | long_text)
@example("CON" + " " * 300 + "x.txt")
@example("\u0344" * 200)  # grows under NFC
def test_safe_names_are_safe_and_stay_as_they_are(name: str) -> None:
    result = names.safe(name)
    assert result == "" or is_safe(result)
    assert names.safe(result) == result


# --- from_disposition --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        # RFC 6266, section 5
        ("Attachment; filename=example.html", "example.html"),
        ('INLINE; FILENAME= "an example.html"', "an example.html"),
        ("attachment; filename*= UTF-8''%e2%82%ac%20rates", "€ rates"),
        ("attachment; filename=\"EURO rates\"; filename*=utf-8''%e2%82%ac%20rates", "€ rates"),
        # RFC 8187, section 3.2.3
        ("attachment; filename*=iso-8859-1'en'%A3%20rates", "£ rates"),
        ("attachment; filename*=UTF-8''%c2%a3%20and%20%e2%82%ac%20rates", "£ and € rates"),
        # the order does not matter, broken filename* falls back
        ("attachment; filename*=UTF-8''a.zip; filename=b.zip", "a.zip"),
        ("attachment; filename*=UTF-8''%ff.zip; filename=b.zip", "b.zip"),
        ("attachment; filename*=KOI8-R''%C6.zip; filename=b.zip", "ф.zip"),
        ("attachment; filename*=gbk''%C4%A3.blend; filename=b.zip", "模.blend"),
        ("attachment; filename*=Shift_JIS'ja'%93%fa.zip; filename=b.zip", "日.zip"),
        ("attachment; filename*=windows-1252''%80.zip; filename=b.zip", "€.zip"),
        ("attachment; filename*=gb-none''a.zip; filename=b.zip", "b.zip"),
        ("attachment; filename*=punycode''a.zip; filename=b.zip", "b.zip"),
        ("attachment; filename*=hex''61; filename=b.zip", "b.zip"),
        ("attachment; filename*=a.zip; filename=b.zip", "b.zip"),
        ("attachment; filename*=UTF-8''; filename=b.zip", "b.zip"),
        ("attachment; filename*=\"UTF-8''a%20b.zip\"", "a b.zip"),
        # quoted strings and tokens
        (r'attachment; filename="a\"b\\c.txt"', "c.txt"),
        (r'attachment; filename="f\oo.html"', "foo.html"),
        ('attachment; filename="a;b=c.html"', "a;b=c.html"),
        ('attachment; name="; filename=no.html"; filename=yes.html', "yes.html"),
        ("attachment; filename=foo bar.html ; size=3", "foo bar.html"),
        ("attachment; filename='foo.bar'", "foo.bar"),
        ("attachment; filename='foo bar.zip' ; size=3", "foo bar.zip"),
        ("attachment; filename='90s.zip", "'90s.zip"),
        ("attachment; filename='", "'"),
        ("attachment; filename*=UTF-8''%27a%27; filename=b.zip", "'a'"),
        ("attachment;filename=a.zip;filename=b.zip", "a.zip"),
        ('attachment; filename="foo-%41.html"', "foo-%41.html"),
        ('attachment; filename="unclosed.zip', "unclosed.zip"),
        ('attachment; filename="a.zip",', "a.zip"),
        ('attachment; filename="a.zip" , ; size=3', "a.zip"),
        ('attachment; filename="a", "b.zip"', "a_, _b.zip"),
        ("filename=a.zip", "a.zip"),
        # quotes that are forgotten, or stand within: no name is cut to its first letters
        ("attachment; filename=ro;ck.zip", "ro;ck.zip"),
        ("attachment; filename=ro;ck;.zip ; size=3", "ro;ck;.zip"),
        ('attachment; filename="ro;ck.zip', "ro;ck.zip"),
        ('attachment; filename="ro"ck".zip"', "ro_ck_.zip"),
        ('attachment; filename="5" pipe.blend"; size=3', "5_ pipe.blend"),
        ("attachment; filename=\"a.zip\" ; filename*=UTF-8''b.zip", "b.zip"),
        ("attachment; filename=ro;ck.zip; filename*=UTF-8''b.zip", "b.zip"),
        ('form-data; name="x"; filename="a.zip"', "a.zip"),
        # what http.client makes of UTF-8 and of ISO-8859-1
        ('attachment; filename="' + "模型.blend".encode().decode("latin-1") + '"', "模型.blend"),
        ('attachment; filename="caf\xe9.png"', "café.png"),
        ('attachment; filename="模型.blend"', "模型.blend"),
        # what mail libraries write (RFC 2047), and browsers read
        ('attachment; filename="=?UTF-8?B?YS56aXA=?="', "a.zip"),
        ("attachment; filename==?utf-8?Q?r=C3=B6ck_1.zip?=", "röck 1.zip"),
        ('attachment; filename="=?utf-8?q?r=C3=B6?= =?utf-8?q?ck.zip?="', "röck.zip"),
        ('attachment; filename="=?GB2312?B?xKM=?=.blend"', "模.blend"),
        ('attachment; filename="=?iso-8859-1*de?Q?=FC.zip?="', "ü.zip"),
        ('attachment; filename="=?UTF-8?Q?..=2F..=5Cx.blend?="', "x.blend"),
        ('attachment; filename="what=?.zip"', "what=_.zip"),
        ('attachment; filename="=?UTF-8?B?_w==?="', ""),
        (r'attachment; filename="\\ux =?UTF-8?Q?a.zip?="', ""),
        ('attachment; filename="=?UTF-8?Q?=FF.zip?="', ""),
        ('attachment; filename="=?nonsense?Q?a.zip?="', ""),
        ('attachment; filename="=?punycode?Q?a.zip?="', ""),
        # paths
        ('attachment; filename="../../etc/passwd"', "passwd"),
        (r'attachment; filename="C:\\dir\\x.blend"', "x.blend"),
        ("attachment; filename*=UTF-8''..%2f..%5cx.blend", "x.blend"),
        ('attachment; filename="/dir/"', ""),
        ('attachment; filename=".."', ""),
        ("attachment; filename=CON", "_CON"),
        # no name
        ("", ""),
        ("attachment", ""),
        ("attachment; filename", ""),
        ("attachment; filename=", ""),
        ('attachment; filename=""', ""),
        ("attachment; xfilename=a.zip", ""),
        ("attachment; filename*0=a; filename*1=.zip", ""),
        (";;;===\"'", ""),
    ],
)
def test_name_in_content_disposition(header: str, expected: str) -> None:
    assert names.from_disposition(header) == expected


@given(any_text | st.text("attachment;filename*=UTF-8'\"\\%/.=? éa\u0301\x00", max_size=80))
@example("\ud800")
def test_from_disposition_never_raises(header: str) -> None:
    for text in (header, f"attachment; filename={header}", f"attachment; filename*=UTF-8''{header}"):
        result = names.from_disposition(text)
        assert result == "" or is_safe(result)


@given(any_text)
def test_a_name_comes_back_from_both_forms(name: str) -> None:
    name = names.safe(name)
    escaped = name.replace("\\", "\\\\").replace('"', '\\"').encode().decode("latin-1")
    if "=?" not in name:
        assert names.from_disposition(f'attachment; filename="{escaped}"') == name
    assert names.from_disposition(f"attachment; filename*=UTF-8''{quote(name)}") == name


# --- from_url and choose -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("https://h/a/model.blend?x=/y.zip#z", "model.blend"),
        ("https://h/a%20b%C3%BC.zip", "a bü.zip"),
        ("https://h/%FF%20x.zip", "%FF%20x.zip"),
        ("https://h/100%.zip", "100%.zip"),
        ("https://h/a%2F..%5Cb.zip", "a_.._b.zip"),
        ("https://h/%2e%2e", ""),
        ("https://h/..", ""),
        ("https://h/a/", ""),
        ("https://h", ""),
        ("https://h?x=model.blend", ""),
        ("https://[broken/x", ""),
        ("", ""),
    ],
)
def test_name_in_url(url: str, expected: str) -> None:
    assert names.from_url(url) == expected


@pytest.mark.parametrize(
    ("disposition", "asked", "final", "content_type", "expected"),
    [
        ("attachment; filename=a.zip", "https://h/b.zip", "https://h/c.zip", "image/png", "a.zip"),
        ("attachment; filename=a", "https://h/b.zip", "https://h/c.zip", "image/png", "a"),
        ("attachment", "https://h/b.zip", "https://h/c.zip", "image/png", "b.zip"),
        # what was asked for stays what it is called
        ("", "https://h/rock.zip", "https://h/0f3a.bin", "text/html", "rock.zip"),
        ("", "https://h/rock.zip?file=x.png", "https://h/login.php", "", "rock.zip"),
        ("", "https://h/a.tar.gz", "https://h/c.zip", "", "a.tar.gz"),
        ("", "https://h/scan.7z", "https://h/c.zip", "", "scan.7z"),
        ("", "https://h/rock..zip", "https://h/c.zip", "application/zip", "rock..zip"),
        ("", "https://h/rock.zip;jsessionid=12AB", "https://h/c.zip", "", "rock.zip"),
        ("", "https://h/a;b.zip", "https://h/c.zip", "", "a;b.zip"),
        # the final address, where the link's own last part is no file's name
        ("", "https://h/", "https://h/c.zip", "image/png", "c.zip"),
        ("", "https://h/get", "https://h/c.zip?x=y", "image/png", "c.zip"),
        ("", "https://h/get.php?id=7", "https://h/c.zip", "", "c.zip"),
        ("", "https://h/Get.ASPX", "https://h/c.zip", "", "c.zip"),
        ("", "https://h/releases/v2.0", "https://h/rock-2.0.zip", "", "rock-2.0.zip"),
        ("", "https://h/12345", "https://h/c.blend", "", "c.blend"),
        # the query
        ("", "https://h/get?file=rocks.zip", "https://h/get?file=rocks.zip", "", "rocks.zip"),
        ("", "https://h/get.php?a=1&FileName=My%20Rocks.zip", "https://h/x", "image/png", "My Rocks.zip"),
        ("", "https://h/get?name=rocks", "https://h/x?name=r%C3%B6cks.blend", "", "röcks.blend"),
        ("", "https://h/get?name=..%2F..%2Fetc%2Fa.zip", "https://h/get", "", "a.zip"),
        ("", "https://h/get?file=a.php&name=b.png", "https://h/get", "", "b.png"),
        ("", "https://h/get?file=&filename=b.png", "https://h/get", "", "b.png"),
        ("", "https://h/get?File_Name=b.png", "https://h/get", "", "b.png"),
        ("", "https://h/get?profile=a.png&file-name=b.png&files=c.png", "https://h/get", "", "b.png"),
        ("", "https://h/get?profile=a.zip&id=b.zip", "https://h/get", "image/png", "get.png"),
        ("", "https://h/get?file=%FF.zip", "https://h/get", "image/png", "get.png"),
        # an extension from the content type
        ("", "https://h/get/4711", "https://h/get/4711", "application/zip", "4711.zip"),
        ("", "https://h/get.php", "https://h/get.php", "application/zip", "get.zip"),
        ("", "https://h/get.php", "https://h/get.php", "application/octet-stream", "get.php"),
        ("", "https://h/v2.0", "https://h/v2.0", "application/zip", "v2.0.zip"),
        ("", "https://h/" + "a" * 300, "https://h/x", "image/png", "a" * 251 + ".png"),
        ("", "https://h/", "https://h/", "image/png; q=1", "download.png"),
        ("", "https://h/", "https://h/", "Model/GLTF-Binary", "download.glb"),
        ("", "https://h/", "https://h/", "application/octet-stream", "download"),
        ("", "https://h/get", "https://h/get", "", "get"),
        ("", "https://h/", "https://h/", "", "download"),
    ],
)
def test_choose_takes_the_first_that_has_a_name(
    disposition: str, asked: str, final: str, content_type: str, expected: str
) -> None:
    chosen = names.choose(disposition=disposition, asked=asked, final=final, content_type=content_type)
    assert chosen == expected


@pytest.mark.parametrize(
    ("url", "extension"),
    [
        ("https://h/a.Blend?x=y.zip", "blend"),
        ("https://h/a.tar.gz", "gz"),
        ("https://h/a.3ds", "3ds"),
        ("https://h/a.php", ""),
        ("https://h/v1.25", ""),
        ("https://h/v1.2b3", ""),
        ("https://h/a", ""),
        ("https://h/", ""),
        ("https://h/.htaccess", ""),
        ("https://h/get?file=a.zip", ""),
        ("", ""),
    ],
)
def test_the_extension_that_a_link_has(url: str, extension: str) -> None:
    assert names.extension_in(url) == extension


@pytest.mark.parametrize("tail", ["", ".json", ".json~"])
def test_choose_takes_no_name_of_a_partial_file(tail: str) -> None:
    name = names.part_name("https://h/a.bin", "/tmp") + tail
    for text in (name, name.upper()):
        chosen = names.choose(
            disposition=f'attachment; filename="{text}"', asked="https://h/a", final="", content_type=""
        )
        assert chosen == f"{text}_"


@given(any_text, any_text | url_like, url_like, any_text)
def test_choose_is_never_empty(disposition: str, asked: str, final: str, content_type: str) -> None:
    assert is_safe(names.choose(disposition=disposition, asked=asked, final=final, content_type=content_type))


# --- numbered and part_name --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("name.ext", "name (1).ext"),
        ("name", "name (1)"),
        ("a.tar.gz", "a (1).tar.gz"),
        ("a.TAR.XZ", "a (1).TAR.XZ"),
        ("tar.gz", "tar (1).gz"),
        ("v1.2 final", "v1.2 final (1)"),
        ("a (1).ext", "a (1) (1).ext"),
        ("a..txt", "a. (1).txt"),  # nothing is cut where it fits
        ("é" * 125 + ".zip", "é" * 123 + " (1).zip"),
    ],
)
def test_numbered(name: str, expected: str) -> None:
    assert names.numbered(name, 1) == expected


@given(any_text | long_text, st.integers(1, 10**6))
def test_numbered_names_are_safe_and_differ(name: str, number: int) -> None:
    name = names.safe(name) or "download"
    result = names.numbered(name, number)
    assert is_safe(result)
    assert names.safe(result) == result
    assert result != names.numbered(name, number + 1)


def test_the_partial_files_of_some_links_are_found_among_names() -> None:
    urls = [f"https://h/{number}.zip" for number in range(4)]
    mine, other, elsewhere = (
        names.part_name(urls[0], "/folder"),
        names.part_name("https://h/other.zip", "/folder"),
        names.part_name(urls[1], "/elsewhere"),
    )
    renamed = "another" + mine  # the same mark
    assert names.parts_among([mine, other, elsewhere, renamed, ""], urls, "/folder/") == {mine}
    assert names.parts_among([], urls, "/folder") == set()


def test_part_name_is_fixed_by_url_and_folder() -> None:
    name = names.part_name("https://h/a.blend?x=1", "/folder")
    assert re.fullmatch(r"a\.blend\.[0-9a-f]{8}\.part", name)
    # Partial files of older versions must be found again: this value may never change.
    assert name == ("a.blend.1ff06d9a.part" if os.sep == "/" else "a.blend.80765898.part")
    assert name == names.part_name("https://h/a.blend?x=1#sha256=2", "/folder/")
    assert name != names.part_name("https://h/a.blend?x=2", "/folder")
    assert name != names.part_name("https://h/a.blend?x=1", "/other")
    assert names.part_name("https://h/", "/folder").startswith("download.")


@given(url_like | long_text.map("https://h/{}".format), any_text)
def test_part_names_and_sidecars_are_safe(url: str, directory: str) -> None:
    name = names.part_name(url, directory)
    assert is_safe(name + names.SIDECAR + names.UNFINISHED)
    assert names.safe(name) == name


def test_a_partial_files_name_is_cut_no_more_than_its_sidecars_needs() -> None:
    name = names.part_name(f"https://example.org/{'n' * 400}.blend", "/files")
    assert len(name + names.SIDECAR + names.UNFINISHED) == names.NAME_SIZE
    assert re.fullmatch(r"n{200,}\.blend\.[0-9a-f]{8}\.part", name)
