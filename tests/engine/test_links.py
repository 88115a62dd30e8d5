"""Links in any text: each wrapping gives back exactly the links that were put into it."""

# ruff: noqa: RUF001
from __future__ import annotations

import csv
import html
import io
import json
import plistlib
import quopri
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from background_downloads.session import links
from background_downloads.transfer import names

SHA256 = "a" * 64
WIKIPEDIA = "https://en.wikipedia.org/wiki/Rock_(geology)"

segment = st.text("abzAZ019-._~%2F!$()*+,:@é漢", max_size=12)
host = st.sampled_from(
    ["h", "example.org", "files.example.org:8080", "127.0.0.1:80", "[::1]", "bücher.example"]
)
query = st.text("abz019-._~%=&/?:@!$(),;", max_size=20)
fragment = st.sampled_from(
    ["", "#top", f"#sha256={SHA256}", f"#sha256:{SHA256}", "#sha256-" + "A" * 43 + "="]
)


@st.composite
def link(draw: st.DrawFn) -> str:
    """A valid link that ends in what no sentence ends in, its brackets in pairs."""
    login = draw(st.sampled_from(["", "", "me:p%40ss@"]))
    path = "/".join(
        ["", *draw(st.lists(segment, max_size=3)), draw(st.sampled_from(["a.zip", "a", "", "(1)"]))]
    )
    asked = draw(query)
    text = f"{draw(st.sampled_from(['https', 'http', 'HTTPS']))}://{login}{draw(host)}{path}"
    text += (f"?{asked}x=" if asked else "") + draw(fragment)
    assume(_is_balanced(text))
    return text


def _is_balanced(text: str) -> bool:
    depth = 0
    for character in text:
        depth += (character == "(") - (character == ")")
        if depth < 0:
            return False
    return depth == 0


def each(template: str, separator: str = "\n") -> Callable[[list[str]], str]:
    return lambda found: separator.join(template.replace("LINK", one) for one in found)


def table(delimiter: str) -> Callable[[list[str]], str]:
    def render(found: list[str]) -> str:
        file = io.StringIO()
        writer = csv.writer(file, delimiter=delimiter)
        writer.writerows([["Rock; of, 2\tkinds", one, "12"] for one in found])
        return file.getvalue()

    return render


def as_mail(found: list[str]) -> str:
    text = "".join(f"This is the rock that you wanted to have, I found it: {one} it is ü\n" for one in found)
    return quopri.encodestring(text.encode()).decode()


def broken(found: list[str]) -> str:
    return "\n".join(f"Rock: <{one[:14]}\r\n   {one[14:]}>, and more" for one in found)


WRAPPINGS: dict[str, Callable[[list[str]], str]] = {
    template: each(template)
    for template in [
        "LINK", "LINK.", "See LINK, it is good", "Is it LINK?", "Rocks (LINK)!", "(see LINK).", "LINK: rocks",
        "<LINK>", "<URL:LINK>", '"LINK"', "'LINK'", "“LINK”", "„LINK“", "«LINK»", "‹LINK›",
        "「LINK」", "『LINK』",
        "‘LINK’", "`LINK`", "```\nLINK\n```", "(LINK)", "[LINK]", "{LINK}",
        "（LINK）", "【LINK】", "《LINK》",
        "[rock](LINK)", "![rock](LINK)", '[rock](LINK "Rock")', "[LINK](LINK)", "[1]: LINK",
        "**LINK**", "__LINK__",
        "*LINK*", "~~LINK~~", "> LINK", "> > LINK", "| LINK | 12 |", "|LINK|12|", "[[LINK][rock]]",
        "[LINK rock]",
        "[url]LINK[/url]", "[url=LINK]rock[/url]", '[url="LINK"]rock[/url]', "[img]LINK[/img]",
        "[URL=LINK]LINK[/URL]",
        "<LINK|rock>", "[rock|LINK]", "[LINK|smart-link]", "\\url{LINK}", "\\href{LINK}{rock}", "url(LINK)",
        "- LINK", "* LINK", "• LINK", "•LINK", "1. LINK", "1) LINK", "(1) LINK", "→ LINK",
        "—LINK—", "Rock:LINK",
        "下载LINK。", "下载：LINK，好", "\ufeffLINK", "\u200bLINK\u200b", "\u00a0LINK\u00a0",
        "\u202aLINK\u202c", "LINK…",
        "rock = LINK;", "wget 'LINK'", "curl -LO \"LINK\" && ls", "rock\tLINK\t12", "URL=LINK",
        "LINK\r", "\n\nLINK\n",
    ]
} | {
    "commas": each("LINK", ", "),
    "commas alone": each("LINK", ","),
    "semicolons": each("LINK", "; "),
    "spaces": each("LINK", " "),
    "Markdown in a row": each("[rock](LINK)", ""),
    "quotes in a row": each('"LINK"', ","),
    "JSON": lambda found: json.dumps({"files": [{"url": one, "size": 12} for one in found]}),
    "JSON, escaped": lambda found: json.dumps(found).replace("/", "\\/").replace("&", "\\u0026"),
    "JSON in JSON": lambda found: json.dumps(json.dumps([f"See {one}\nand" for one in found])),
    "Python": lambda found: repr(found),
    "HTML": lambda found: "".join(f'<p><a class="x" href="{html.escape(one)}">rock</a>' for one in found),
    "HTML, apostrophes": lambda found: "".join(f"<img src='{html.escape(one)}'>" for one in found),
    "HTML, names": lambda found: "".join(
        f'<a href="{html.escape(one)}">{html.escape(one[:9])}…</a>' for one in found
    ),
    "HTML, shown": lambda found: html.escape("".join(f'<a href="{one}">' for one in found)),
    "XML": lambda found: "".join(f"<loc>{html.escape(one)}</loc>" for one in found),
    "CSV": table(","),
    "CSV, German": table(";"),
    "tabs": table("\t"),
    "mail": as_mail,
    "broken lines": broken,
    "zero width inside": lambda found: "\n".join(f"{one[:10]}\u200b{one[10:]}" for one in found),
    "twice": lambda found: " ".join(found + found),
}  # fmt: skip


@pytest.mark.parametrize("wrapping", WRAPPINGS)
def test_each_wrapping_gives_back_exactly_its_links(wrapping: str) -> None:
    wanted = [
        "https://example.org/rock.zip",
        f"http://me:p%40ss@h:8080/a,b;c=d/?q=1&r=2#sha256={SHA256}",
        WIKIPEDIA,
        "https://h/it's/here/",
    ]
    assert links.find_links(WRAPPINGS[wrapping](wanted)) == wanted


@settings(max_examples=500)
@given(st.sampled_from(sorted(WRAPPINGS)), st.lists(link(), min_size=1, max_size=3, unique=True))
def test_any_links_come_back_from_any_wrapping(wrapping: str, wanted: list[str]) -> None:
    assert links.find_links(WRAPPINGS[wrapping](wanted)) == wanted


@pytest.mark.parametrize(
    "text",
    [
        WIKIPEDIA,
        f"({WIKIPEDIA})",
        f"(see {WIKIPEDIA}).",
        f"[Rock]({WIKIPEDIA})",
        f"[Rock]({WIKIPEDIA}), ([stone]({WIKIPEDIA}))",
        f"{WIKIPEDIA}, ({WIKIPEDIA})",
    ],
)
def test_brackets_in_pairs_belong_to_the_link(text: str) -> None:
    assert links.find_links(text) == [WIKIPEDIA]


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://a/x.zip,https://b/y.zip", ["https://a/x.zip", "https://b/y.zip"]),
        ("https://a/x.ziphttps://b/y.zip", ["https://a/x.zip", "https://b/y.zip"]),
        ("https://a/x.zip,example.org/y.zip", ["https://a/x.zip", "https://example.org/y.zip"]),
        ("https://a/1,2.zip", ["https://a/1,2.zip"]),
        ("https://a/get.php;id=1?files=a.zip,b.zip", ["https://a/get.php;id=1?files=a.zip,b.zip"]),
        ("https://web.archive.org/web/2020/https://b/y", ["https://web.archive.org/web/2020/https://b/y"]),
        ("https://proxy/?url=https://b/y&z=1", ["https://proxy/?url=https://b/y&z=1"]),
        ("Rock,https://h/a.zip,12\nhttps://h/b.zip,Rock,1", ["https://h/a.zip", "https://h/b.zip"]),
        ("点击https://h/rock.zip下载", ["https://h/rock.zip"]),
        ("https://h/rock.zip(12 MB)", ["https://h/rock.zip"]),
        ("https://h/rock.zip(1)", ["https://h/rock.zip(1)"]),
        ("https://h/a/\u200bhttps://h/b/", ["https://h/a/", "https://h/b/"]),
        ("wget https://h/rock.zip\\\n  -O rock", ["https://h/rock.zip"]),
        ("https://fa.example/می\u200cخواهم", ["https://fa.example/می\u200cخواهم"]),
        (r"https://h/my\_rock\-2.zip", ["https://h/my_rock-2.zip"]),
        ("https://h/?a=1&copy=2&amp;lt=3", ["https://h/?a=1&copy=2&lt=3"]),
        ("https://h/?sig=ab=\nhttps://h/b", ["https://h/?sig=ab=", "https://h/b"]),
        ("https://h/?sig=ab=\nThanks, Bob", ["https://h/?sig=ab="]),
        ("https://h/ro=\nck.zip and more", ["https://h/rock.zip"]),
        ("<https://h/a\nhttps://h/b>", ["https://h/a", "https://h/b"]),
        (
            "https://example.org/a/long/folder/that/a/mail/program/breaks/in-\nto-two/lines.zip\nBye",
            ["https://example.org/a/long/folder/that/a/mail/program/breaks/in-to-two/lines.zip"],
        ),
        (
            "https://example.org/a/long/folder/that/no/program/breaks/rock.zip\nstone.zip",
            ["https://example.org/a/long/folder/that/no/program/breaks/rock.zip"],
        ),
        (f"http://u:p@h:8080/?q=1#sha256={SHA256}.", [f"http://u:p@h:8080/?q=1#sha256={SHA256}"]),
    ],
)
def test_where_a_link_ends(text: str, wanted: list[str]) -> None:
    assert links.find_links(text) == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("example.org/rock.zip", ["https://example.org/rock.zip"]),
        ("See example.org/rock.zip.", ["https://example.org/rock.zip"]),
        ("(www.example.org)", ["https://www.example.org"]),
        ("WWW.Example.org/a?b=c#d, ok", ["https://WWW.Example.org/a?b=c#d"]),
        ("nas.local:8080.", ["http://nas.local:8080"]),
        ("NAS.local/rock.zip local.example/a.localhost.example/b", [
            "http://NAS.local/rock.zip", "https://local.example/a.localhost.example/b"
        ]),
        ("10.example/a.zip", ["https://10.example/a.zip"]),
        ("localhost:8000/rock.zip", ["http://localhost:8000/rock.zip"]),
        ("nas:8080/rock.zip", ["http://nas:8080/rock.zip"]),
        ("192.168.0.5/rock.zip", ["http://192.168.0.5/rock.zip"]),
        ("192.168.0.5:8000", ["http://192.168.0.5:8000"]),
        ("bücher.example/ü.zip", ["https://bücher.example/ü.zip"]),
        ('<script src="//cdn.example.org/a.zip">', ["https://cdn.example.org/a.zip"]),
        ("[url=example.org/rock.zip]rock[/url]", ["https://example.org/rock.zip"]),
        ("[example.org/r…](https://example.org/rock.zip)", ["https://example.org/rock.zip"]),
        ('<a href="https://example.org/rock.zip">example.org/r…</a>', ["https://example.org/rock.zip"]),
        ('<a href="https://h.org/rock.zip">https://h.org/r…</a>', ["https://h.org/rock.zip"]),
        ("<p>https://example.org/rock.zip…</p>", ["https://example.org/rock.zip"]),
        ("<https://example.org/rock.zip|example.org/rock.zip>", ["https://example.org/rock.zip"]),
    ],
)
def test_what_looks_like_a_host_gets_https_and_one_at_home_http(text: str, wanted: list[str]) -> None:
    assert links.find_links(text) == wanted


@pytest.mark.parametrize(
    "text",
    [
        "", "file.txt", "rock.zip", "e.g. this", "e.g./i.e.", "Version 1.2.3", "1.2.3/4",
        "10.0.0.0/8", "and/or",
        "me@example.org", "mailto:me@example.org", "me@example.org/x", "me@example.org:22",
        "ftp://example.org/x",
        "file:///home/example.org/x", "C:\\models\\rock.org\\x", "C:/models/example.org/x",
        "\\\\nas.local\\rock",
        "/home/example.org/x", "~/example.org/x", "./example.org/x", "//textures/wood.png",
        "textures/wood.png",
        "rock.blend/Collection/Cube", "wood.png/x", "main.py:12", "node.js/x", "12:30", "16:10/9",
        "Date:12/05/2020",
        "Date:2024/05/01", "std::vector", "https://", "https://…", "https:// example",
        "https://example.org/…/rock.zip", "https://example.org/files/ro…4k.zip", "example.org/…/rock.zip",
        "Blender.org is good",
    ],
)  # fmt: skip
def test_what_is_no_link(text: str) -> None:
    assert links.find_links(text) == []


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://h.org/a.zip\n-- \nJane, www.jane.example", ["https://h.org/a.zip"]),
        ("h.org/a.zip, and www.b.org\r\n--\r\nwww.jane.example/", ["https://h.org/a.zip", "https://www.b.org"]),
        ("Hello\n-- \nJane, www.jane.example", ["https://www.jane.example"]),
        ("h.org/a.zip\n-- \nwww.jane.example/b.zip", ["https://h.org/a.zip", "https://www.jane.example/b.zip"]),
        ("h.org/a.zip\n-- \nhttps://jane.example", ["https://h.org/a.zip", "https://jane.example"]),
        ("h.org/a.zip -- www.jane.example", ["https://h.org/a.zip", "https://www.jane.example"]),
    ],
)
def test_a_home_page_in_a_signature_is_wanted_only_where_nothing_else_is(
    text: str, wanted: list[str]
) -> None:
    assert links.find_links(text) == wanted


@pytest.mark.parametrize(
    ("page", "link"),
    [
        ('<a href="https://h.org/my rock (4k).zip">x</a>', "https://h.org/my%20rock%20(4k).zip"),
        ("<a class=x href = ' https://h.org/a  b.zip '>x</a>", "https://h.org/a%20%20b.zip"),
        ('<img src="https://h.org/a\n   b.png" alt="a b">', "https://h.org/ab.png"),
        ('<img src="//h.org/a b.png">', "https://h.org/a%20b.png"),
        ('href="about us" https://h.org/a.zip b', "https://h.org/a.zip"),
    ],
)
def test_spaces_in_a_pages_own_link_are_its(page: str, link: str) -> None:
    assert links.find_links(page) == [link]


@pytest.mark.parametrize("text", ["http://[::1", "see http://[x", "https://[", "a http://)b", "http://{h}/a"])
def test_what_is_left_of_a_broken_link_is_none_without_a_host(text: str) -> None:
    assert links.find_links(text) == []


def test_what_is_found_can_be_downloaded() -> None:
    found, problems = names.parse_links("\n".join(links.find_links("<example.org/a>, https://h/b.")))
    assert [one.url for one in found] == ["https://example.org/a", "https://h/b"]
    assert problems == []


@given(
    st.text(st.characters(exclude_categories=()))
    | st.text("htps:/w.aorg&;#1=\n<>[]()'\"|,\\u\u200d漢 ", max_size=80)
)
def test_any_text_gives_links_that_a_list_can_hold(text: str) -> None:
    for one in links.find_links(text):
        assert one.lower().startswith(("http://", "https://"))
        assert len(one.split()) == 1
        one.encode()


@given(st.lists(st.text("aZ9.-_~/?=%&+#:@,;!(é", max_size=12), min_size=1), st.sampled_from(" \n\t"))
def test_a_text_of_plain_links_is_read_as_any_other(ends: list[str], space: str) -> None:
    """What is quick is right, too: without its short cut the same links are found."""
    text = space.join(f"https://h/{end}" for end in ends)
    found = links.find_links(text)
    if plain := links.plain_links(text):
        assert plain == found
        assert [link.url for link in names.parse_links(text)[0]] == plain
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(links, "_are_plain", lambda text: False)
        assert links.find_links(text) == found


@pytest.mark.parametrize(
    "text", ["", "nothing", f"https://h/a#sha256={SHA256}", "https://h/a,", "see https://h/a"]
)
def test_what_needs_reading_is_not_plain(text: str) -> None:
    assert links.plain_links(text) == []


def test_links_are_counted_as_downloads() -> None:
    assert links.count_links(f"https://h/a https://h/a#sha256={SHA256} and https://h/b.") == 2
    assert links.count_links("nothing") == 0


def test_links_are_added_once_to_what_is_there() -> None:
    assert links.add_links("", "See https://h/a.") == "https://h/a"
    assert links.add_links(" https://h/a ", "https://h/b, https://h/a") == "https://h/a https://h/b"
    assert links.add_links("https://h/a", "nothing") == "https://h/a"


HOSTILE = [
    "a", "a.", "a-", "www.", "a:1", "http", "https://", "https://h/a", "https://h/a,", "https://h/a)", "https://a@",
    "(", ")", "[", "[/", "{", "'", "|", "\\", "\\u", "&", "&amp", "&#1;", "<", "<a ", "<https://h", "[a](https://",
    "[url=https://h]", "href=", 'href="https://h\n', "=\n", "=3D=\n", "a/\n", "https://h/?=\na/", "> ", "漢",
    "\u200d", ".zip,", ".zip(", "https://h/.zip|", "( https://h/a", " ", "./a",
    "origin: https://", "origin", "Referer:", "referer=https:", 'curl "', "^",
    "<!DOCTYPE", "<!DOCTYPE ", 'xmlns="', "xmlns:", "xmlns", "\n[InternetShortcut]\nURL[", "\nURL[a]",
]  # fmt: skip


@pytest.mark.parametrize("unit", HOSTILE)
def test_hostile_text_is_read_before_the_deadline(unit: str) -> None:
    """Were its time the square of the text's length, this would take many minutes."""
    much = unit * (100_000 // len(unit))
    links.find_links(f"{much}https://h/{'x' * 60}{much}<https://h/?{'x' * 70}=\n{much}")


# -- Files.


def test_a_text_file_is_read_in_its_encoding(tmp_path: Path) -> None:
    for encoding in ("utf-8", "utf-8-sig", "utf-16", "latin-1"):
        path = tmp_path / "links.txt"
        path.write_bytes("Für dich: https://h/a.zip.".encode(encoding))
        assert links.find_links(links.read_links(str(path))) == ["https://h/a.zip"]


def test_an_internet_shortcut_gives_its_link_and_not_its_icon(tmp_path: Path) -> None:
    text = "[InternetShortcut]\r\nIconFile=https://h/i.ico\r\nURL=https://h/a?b=c\r\n"
    path = tmp_path / "Rock.URL"
    path.write_text(text)
    assert links.read_links(str(path)) == "https://h/a?b=c"
    assert links.find_links(f"\ufeff{text}{text}") == ["https://h/a?b=c"]  # copied from an editor


def test_a_desktop_link_gives_its_link(tmp_path: Path) -> None:
    path = tmp_path / "rock.desktop"
    text = "[Desktop Entry]\nName=https://no\nURL[$e]=https://h/a\nIcon=https://h/i.png\n"
    path.write_text(text)
    assert links.read_links(str(path)) == "https://h/a"
    assert links.find_links(f" {text}") == ["https://h/a"]


@pytest.mark.parametrize("format", [plistlib.FMT_XML, plistlib.FMT_BINARY])
def test_a_macs_link_gives_its_link(tmp_path: Path, format: plistlib.PlistFormat) -> None:
    path = tmp_path / "rock.webloc"
    path.write_bytes(data := plistlib.dumps({"URL": "https://h/a?b=1&c=2"}, fmt=format))
    assert links.read_links(str(path)) == "https://h/a?b=1&c=2"
    if format is plistlib.FMT_XML:
        assert links.find_links(data.decode()) == ["https://h/a?b=1&c=2"]


@pytest.mark.parametrize(
    "source",
    [
        '<!DOCTYPE html PUBLIC "-//W3C//DTD" "http://w3.org/x.dtd">\n<a href="LINK">',
        "<!doctype svg\n'http://www.w3.org/svg11.dtd'\n><a href='LINK'/>",
        '<html xmlns="http://www.w3.org/1999/xhtml" xmlns:x = \'http://www.w3.org/xlink\'><a href="LINK">',
        '{"svg": "<svg xmlns=\\"http://www.w3.org/2000/svg\\">", "file": "LINK"}',
    ],
)
def test_what_names_a_languages_rules_is_no_link(source: str) -> None:
    assert links.find_links(source.replace("LINK", "https://h/a.zip")) == ["https://h/a.zip"]


@pytest.mark.parametrize(
    "command",
    [
        "curl 'LINK?a=1&b=2' \\\n -H 'origin: https://s.com' \\\n -H 'referer: https://s.com/page/'",
        'curl ^"LINK?a=1^&b=2^" ^\n -H ^"origin: https://s.com^" ^\n -H ^"referer: https://s.com/^"',
        'curl -L "LINK?a=1^&b=2" ^\n -H "Referer: https://s.com/"',
        'Invoke-WebRequest -Uri "LINK?a=1&b=2" -Headers @{"Origin"="https://s.com"\n"Referer"="https://s.com/"}',
        'fetch("LINK?a=1&b=2", {\n  "referrer": "https://s.com/",\n  "method": "GET"});',
        'wget --header="Referer: https://s.com/x" --referer=https://s.com/ "LINK?a=1&b=2"',
    ],
)
def test_where_a_browser_came_from_is_no_link(command: str) -> None:
    link = "https://h/a%2Fb.zip"
    escaped = link.replace("%", "^%^") if "^&" in command else link
    assert links.find_links(command.replace("LINK", escaped)) == [f"{link}?a=1&b=2"]


@pytest.mark.parametrize(
    "link",
    ["https://h/a?origin=https://s.com", "https://h/a?x=1&referer=https://s.com/b.zip", "https://h/a^2.zip"],
)
def test_a_link_that_has_such_a_word_stays_whole(link: str) -> None:
    assert links.find_links(f"See {link}, please") == [link]
    assert links.find_links(f"origin: {link}") == [link]


@given(st.binary(max_size=60) | st.binary(max_size=60).map(b"bplist00".__add__))
def test_a_broken_link_file_gives_none(tmp_path_factory: pytest.TempPathFactory, data: bytes) -> None:
    path = tmp_path_factory.mktemp("links", numbered=True) / "rock.webloc"
    path.write_bytes(data)
    assert links.find_links(links.read_links(str(path))) == []


@pytest.mark.parametrize(
    "link",
    [
        "https://h.example/a.obj,b.obj",
        "https://h.example/a.zip,v2?x=1",
        "https://h.example/f?x=&copy;y",
        "https://h.example/f?sig=YWJj=",
        "https://web.archive.org/web/2020/https://h.example/a.zip",
        "http://h.example/a;b/c",
    ],
)
def test_a_list_of_nothing_but_links_is_taken_as_it_stands(link: str) -> None:
    assert links.find_links(link) == [link]
    assert links.find_links(f"{link}\nhttps://h.example/other.zip {link}") == [
        link,
        "https://h.example/other.zip",
    ]
