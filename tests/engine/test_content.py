"""What a body looks like."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from background_downloads.transfer import content
from background_downloads.transfer.job import TransferError

SENTENCE = (
    "The server sent a web page instead of a file; you may need to sign in."
    " Copy the link of the download button there"
)
PAGES = [
    b"<!DOCTYPE html><html>",
    b"<!doctype HTML PUBLIC '-//W3C//DTD HTML 4.01//EN'>",
    b"<html lang=en>",
    b"<HTML>",
    b"<head\n>",
    b"<body/>",
    b"\xef\xbb\xbf\r\n\t <!-- sign in --><!---->\n<!DOCTYPE html>",
    b'<?xml version="1.0"?><!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
    b"<script>location='/login'</script>",
    b"<h1>403</h1>",
    b"<html",
    "<!DOCTYPE html>ü".encode("utf-16"),
]
GOOD = [
    ("a.blend", b"BLENDER-v405"),
    ("a.blend", b"BLENDER17-01v0500"),
    ("a.blend", b"\x1f\x8b\x08"),
    ("a.blend", b"\x28\xb5\x2f\xfd\x00"),
    ("A.BLEND", b"BLENDER_v279"),
    ("a.zip", b"PK\x03\x04"),
    ("a.zip", b"PK\x05\x06" + bytes(18)),
    ("a.png", b"\x89PNG\r\n\x1a\n"),
    ("a.jpg", b"\xff\xd8\xff\xe0"),
    ("a.jpeg", b"\xff\xd8\xff\xdb"),
    ("a.gif", b"GIF89a"),
    ("a.webp", b"RIFF\n\x00\n\x00WEBPVP8 "),
    ("a.exr", b"\x76\x2f\x31\x01\x02"),
    ("a.hdr", b"#?RADIANCE\n"),
    ("a.hdr", b"#?RGBE\n"),
    ("a.tif", b"II*\x00"),
    ("a.tiff", b"MM\x00*"),
    ("a.tif", b"MM\x00+"),
    ("a.psd", b"8BPS\x00\x01"),
    ("a.glb", b"glTF\x02\x00"),
    ("a.gltf", b'{"asset":{}}'),
    ("a.fbx", b"Kaydara FBX Binary  \x00\x1a\x00"),
    ("a.fbx", b"; FBX 7.4.0 project file\n"),
    ("a.usdc", b"PXR-USDC\x00"),
    ("a.usda", b"#usda 1.0\n"),
    ("a.usd", b"#usda 1.0\n"),
    ("a.usdz", b"PK\x03\x04"),
    ("a.abc", b"Ogawa\xff"),
    ("a.abc", b"\x89HDF\r\n\x1a\n"),
    ("a.vdb", b" BDV\x00\x00\x00\x00"),
    ("a.tar.gz", b"\x1f\x8b\x08"),
    ("a.7z", b"7z\xbc\xaf\x27\x1c"),
    ("a.mp4", b"\x00\x00\x00\x20ftypisom"),
    ("a.mov", b"\x00\x00\n\x08wide"),
    ("a.mkv", b"\x1a\x45\xdf\xa3"),
    ("a.ply", b"ply\r\nformat ascii 1.0"),
    ("a.svg", b"<svg xmlns='http://www.w3.org/2000/svg'>"),
    ("a.svg", b"<?xml version='1.0'?>\n<!-- Inkscape -->\n<svg>"),
    ("a.svg", b"<!-- " + b"x" * content.HEAD_SIZE),
    ("a.dae", b"\xef\xbb\xbf<?xml version='1.0'?><COLLADA>"),
    ("a.x3d", b"<?xml version='1.0'?><!DOCTYPE X3D PUBLIC><X3D>"),
    ("a.sbs", b'<?xml version="1.0" encoding="UTF-8"?>\n<package>'),
    ("a.obj", b"# Blender"),
    ("a.stl", b"solid x"),
    ("a.unknown", b"\x00\x01"),
    ("download", b"\x00\x01"),
]


@pytest.mark.parametrize(("name", "head"), GOOD)
def test_a_body_that_is_what_it_says_gets_no_note(name: str, head: bytes) -> None:
    assert content.judge(head, name, "application/octet-stream") == ""
    assert content.judge(head[: content.HEAD_SIZE], name, "") == ""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", sorted({name for name, _ in GOOD} - {"a.unknown", "download"}))
def test_a_web_page_in_place_of_a_file_is_an_error(name: str, page: bytes) -> None:
    with pytest.raises(TransferError) as caught:
        content.judge(page, name, "")
    assert str(caught.value) == SENTENCE


@pytest.mark.parametrize(
    "extension", ["3dm", "c4d", "ckpt", "dxf", "exe", "jxl", "kra", "ma", "opus", "psb", "sbs", "step", "txz"]
)
def test_a_web_page_in_place_of_a_model_an_image_or_an_archive_is_an_error(extension: str) -> None:
    with pytest.raises(TransferError):
        content.judge(PAGES[0], f"a.{extension}", "text/html", asked=extension)


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("extension", ["unknown", "zpl", "blend9"])
def test_a_web_page_in_place_of_a_file_of_a_type_that_nobody_knows_gets_a_note(
    extension: str, page: bytes
) -> None:
    assert content.judge(page, f"a.{extension}", "", asked=extension) == content.PAGE_NOTE


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("extension", ["html", "htm", "txt", "xml", "md", "vue", "log"])
def test_a_web_page_is_fine_where_it_may_be_one(extension: str, page: bytes) -> None:
    assert content.judge(page, f"a.{extension}", "text/html", asked=extension) == ""


@pytest.mark.parametrize("page", PAGES)
@pytest.mark.parametrize("name", ["a.html", "a.php", "download", "v1.2", "a.aspx"])
def test_a_web_page_in_answer_to_a_link_that_names_no_file_gets_a_note(name: str, page: bytes) -> None:
    assert content.judge(page, name, "text/html") == content.PAGE_NOTE
    assert content.judge(page, name, "") == content.PAGE_NOTE


@pytest.mark.parametrize("asked", ["blend", "zip", "png", "stl", "bin"])
def test_a_web_page_in_answer_to_a_link_to_a_file_is_an_error_whatever_its_name(asked: str) -> None:
    with pytest.raises(TransferError):
        content.judge(PAGES[0], "sign-in.html", "text/html", asked=asked)


@pytest.mark.parametrize("name", ["a.blend", "a.obj", "a.bin", "a.csv", "a.unknown", "download"])
def test_a_pointer_to_a_file_gets_a_note(name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 12345\n"
    assert "Git LFS" in content.judge(pointer, name, "text/plain")


MESSAGES = [
    b'{"error": "not found"}',
    b' {\n  "message": 1}',
    b"{}",
    b'[{"code": 1}]',
    b"\xef\xbb\xbf[]",
    b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
    b"<Error><Code>NoSuchKey</Code></Error>",
]


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize(
    "extension", ["tga", "stl", "bin", "iso", "tar", "obj", "3ds", "ttf", "max", "zip", "blend"]
)
def test_a_message_in_place_of_a_file_gets_a_note(message: bytes, extension: str) -> None:
    note = content.judge(message, f"a.{extension}", "application/json")
    assert note == f"This does not look like a .{extension} file"


@pytest.mark.parametrize("message", MESSAGES)
@pytest.mark.parametrize("extension", ["json", "csv", "py", "txt", "unknown"])
def test_what_looks_like_a_message_may_be_a_text(message: bytes, extension: str) -> None:
    assert content.judge(message, f"a.{extension}", "", asked=extension) == ""


def test_the_content_type_tells_where_the_first_bytes_do_not() -> None:
    head = b"<!-- " + b"x" * content.HEAD_SIZE
    for name in ("a.blend", "a.obj"):
        with pytest.raises(TransferError):
            content.judge(head, name, "Text/HTML; charset=utf-8")
    assert content.judge(head, "a.blend", "") == "This does not look like a .blend file"


WORDS = [b"Please sign in", b'{"error": 1}', "für Mitglieder".encode("latin-1"), "sign in".encode("utf-16")]


@pytest.mark.parametrize("words", WORDS)
def test_words_are_a_page_where_the_server_says_so_and_no_text_was_to_come(words: bytes) -> None:
    for name in ("a.html", "download"):
        assert content.judge(words, name, "text/html") == content.PAGE_NOTE
        assert content.judge(words, name, "text/plain") == ""
    for name in ("a.obj", "a.csv", "a.cfg"):
        assert content.judge(words, name, "text/html", asked=name[2:]) != content.PAGE_NOTE
    with pytest.raises(TransferError):
        content.judge(words, "a.blend", "text/html")
    assert content.judge(b"PK\x03\x04\0\0", "download", "text/html") == ""  # as programs say it of anything


def test_a_wrong_content_type_alone_is_no_error() -> None:
    assert content.judge(b"BLENDER-v405", "a.blend", "text/html") == ""
    assert content.judge(b"<svg>", "a.svg", "text/html") == ""
    assert content.judge(b"# Blender", "a.obj", "text/html") == ""


@pytest.mark.parametrize(
    ("name", "head", "note"),
    [
        ("a.blend", b'{"error": "no such file"}', "This does not look like a .blend file"),
        ("a.ZIP", b"Not found", "This does not look like a .zip file"),
        ("a.blend.zip", b"BLENDER", "This does not look like a .zip file"),
        ("a.png", b"\x89PNG", "This does not look like a .png file"),
        ("a.webp", b"RIFF\x00\x00\x00\x00WAVE", "This does not look like a .webp file"),
        ("a.fbx", b"ascii", "This does not look like a .fbx file"),
        ("a.svg", b"svg", "This does not look like a .svg file"),
    ],
)
def test_a_known_format_with_wrong_first_bytes_gets_a_note(name: str, head: bytes, note: str) -> None:
    assert content.judge(head, name, "") == note


@pytest.mark.parametrize("name", ["a.blend", "a.html", "download"])
def test_an_empty_file_gets_a_note(name: str) -> None:
    assert content.judge(b"", name, "text/html") == "The file is empty"


@pytest.mark.parametrize("filler", [b"<!---->", b"<!--", b"<?", b"<??>", b" ", b"<!-->", b"\n<!-- -->"])
def test_hostile_heads_are_judged_at_once(filler: bytes) -> None:
    head = (filler * content.HEAD_SIZE)[: content.HEAD_SIZE]
    assert content.judge(head, "a.blend", "") == "This does not look like a .blend file"


@given(st.binary(max_size=content.HEAD_SIZE), st.sampled_from([name for name, _ in GOOD]), st.text())
def test_judge_raises_nothing_but_the_sentence(head: bytes, name: str, content_type: str) -> None:
    try:
        note = content.judge(head, name, content_type)
    except TransferError as error:
        note = str(error)
    assert note in ("", SENTENCE, content.PAGE_NOTE, "The file is empty") or note.startswith("This ")


# -- How it comes packed.


@pytest.mark.parametrize(
    ("header", "codings"),
    [
        ("", []),
        (" , ,", []),
        ("identity", []),
        ("None", []),
        ("UTF-8, binary", []),
        ("aws-chunked", []),
        ("ISO-8859-1, base64, application/octet-stream", []),
        ("null, undefined, raw", []),
        ("gzip", ["gzip"]),
        ("X-GZip", ["gzip"]),
        ("deflate , gzip", ["deflate", "gzip"]),
        ("gzip,aws-chunked,identity", ["gzip"]),
    ],
)
def test_codings(header: str, codings: list[str]) -> None:
    assert content.codings(header, "a.blend") == codings


@pytest.mark.parametrize(
    "header", ["br", "gzip, br", "zstd, identity", "compress", "gzip;q=1", "gz ip", "," + "gzip," * 6]
)
def test_codings_that_cannot_be_undone(header: str) -> None:
    with pytest.raises(TransferError, match="Use your browser"):
        content.codings(header, "a.blend")


@pytest.mark.parametrize("name", ["a.tar.gz", "A.TGZ", "a.svgz"])
@pytest.mark.parametrize(
    ("header", "codings"),
    [("gzip", []), ("x-gzip", []), ("gzip, deflate", ["deflate"]), ("deflate", ["deflate"]), ("none", [])],
)
def test_a_gzip_file_stays_one(name: str, header: str, codings: list[str]) -> None:
    assert content.codings(header, name) == codings
    with pytest.raises(TransferError):
        content.codings("br", name)


@pytest.mark.parametrize(
    ("name", "header"),
    [
        *(("a.tar.bz2", "bzip2"), ("a.tbz2", "x-bzip2"), ("a.tar.xz", "xz"), ("A.Z", "x-compress")),
        *(("a.tar.zst", "zstd"), ("a.br", "br")),
    ],
)
def test_a_packed_file_stays_one(name: str, header: str) -> None:
    assert content.codings(header, name) == []
    with pytest.raises(TransferError):
        content.codings(header, "a.blend")
