"""What a body is: how it comes packed, and whether it begins like what was asked for."""

from __future__ import annotations

import os.path
import re

from .job import TransferError

PAGE_NOTE = (
    "The server sent a web page. If it should be a file, you may need to sign in:"
    " copy the link of the download button there"
)
PAGE = (
    "The server sent a web page instead of a file; you may need to sign in."
    " Copy the link of the download button there"
)
MESSAGE = "The server sent a message instead of the rest of the file. Try later, or get a new link"
HEAD_SIZE = 1024  # bytes that `judge` wants to see, fewer if the file is shorter

_FIRST_BYTES = {
    extension: pattern
    for extensions, pattern in {
        "abc": rb"Ogawa|\x89HDF\r\n\x1a\n",
        "avi": rb"RIFF....AVI ",
        "avif heic": rb"....ftyp",
        "blend blend1": rb"BLENDER|\x1f\x8b|\x28\xb5\x2f\xfd",
        "bmp": rb"BM",
        "bz2": rb"BZh",
        "cin": rb"\x80\x2a\x5f\xd7|\xd7\x5f\x2a\x80",
        "dae sbs svg x3d": rb"(\xef\xbb\xbf|\xff\xfe|\xfe\xff)?[\s\x00]*<",
        "dds": rb"DDS ",
        "dpx": rb"SDPX|XPDS",
        "exr": rb"\x76\x2f\x31\x01",
        "fbx": rb"Kaydara FBX Binary|(\xef\xbb\xbf)?\s*;",
        "flac": rb"fLaC|ID3",
        "gif": rb"GIF8",
        "glb": rb"glTF",
        "gltf": rb"(\xef\xbb\xbf)?\s*\{",
        "gz svgz tgz": rb"\x1f\x8b",
        "hdr": rb"#\?",
        "jp2": rb"\x00\x00\x00\x0cjP  |\xff\x4f\xff\x51",
        "jpeg jpg": rb"\xff\xd8\xff",
        "ktx ktx2": rb"\xabKTX ",
        "mkv webm": rb"\x1a\x45\xdf\xa3",
        "mov mp4": rb"....(ftyp|moov|mdat|wide|free|skip|pnot)",
        "ogg": rb"OggS",
        "pdf": rb"\s*%PDF-",
        "ply": rb"ply",
        "png": rb"\x89PNG\r\n\x1a\n",
        "psd": rb"8BPS",
        "rar": rb"Rar!\x1a\x07",
        "tif tiff": rb"II[*+]\x00|MM\x00[*+]",
        "usd": rb"PXR-USDC|#usda",
        "usda": rb"#usda",
        "usdc": rb"PXR-USDC",
        "usdz whl zip 3mf": rb"PK(\x03\x04|\x05\x06|\x07\x08)",
        "vdb": rb" BDV",
        "wav": rb"RIFF|RF64|BW64",
        "webp": rb"RIFF....WEBP",
        "xz": rb"\xfd7zXZ\x00",
        "zst": rb"\x28\xb5\x2f\xfd",
        "7z": rb"7z\xbc\xaf\x27\x1c",
    }.items()
    for extension in extensions.split()
}
"""How files of each type begin: a regular expression for each extension."""

_NEVER_HTML = (
    "3dm 3ds aac aif aiff apk appimage bgeo bin blend2 bvh c4d cab ckpt clip csv cube dat deb dll dmg dwg"
    " dxf e57 exe flv gguf hip hiplc hipnc icns ico ies iges igs iso jar json jxl kra las laz lwo lz4 lzma"
    " m4a m4v ma max mb mdd mp2 mp3 mpeg mpg msi mtl mxf npy npz obj off onnx opus otf pbm pc2 pfm pgm pkg"
    " pnm ppm psb pt pth py rar rpm safetensors sbsar sgi skp spp step stl stp tar tbz tbz2 tga ttc ttf tx"
    " txz uasset unitypackage vox vrm wma wmv woff woff2 xcf xyz zpr ztl"
)
_NO_FIRST_BYTES = frozenset(_NEVER_HTML.split())
"""Types whose first bytes say too little, but which are no web page."""
_MARKUP = (
    "ejs eml hbs htm html j2 jinja js log markdown md mht mhtml rst shtml svelte text tmpl tpl txt vue xht"
    " xhtml xml xsl xslt"
)
_MAY_BE_HTML = frozenset(_MARKUP.split())
_TEXTS = frozenset(("csv", "json", "py"))  # which may begin as a message does
_POINTER = b"version https://git-lfs.github.com/spec/"
_MESSAGE = rb"""(?s)(?:\xef\xbb\xbf)?\s*(?:\{\s*["}]|\[\s*[{"\]]|<\?xml\s|<Error>)"""
"""JSON or XML: what servers say where something went wrong."""

# Possessive and atomic: a page full of comments would else cost exponential time.
_BEFORE_HTML = rb"(?is)(?:\xef\xbb\xbf)?(?>\s+|<!--.*?-->|<\?.*?\?>)*+"
_TAGS = rb"html|head|body|title|meta|link|script|style|iframe|div|center|table|font|h1|p|a|b|br"
_WIDE = (b"\xff\xfe", b"\xfe\xff")  # how UTF-16 begins
_BINARY = rb"[\x00-\x08\x0b\x0e-\x1a\x1c-\x1f]"  # in no text (WHATWG MIME Sniffing, section 3)
_HTML = _BEFORE_HTML + rb"<(?:!doctype\s+html|" + _TAGS + rb")(?:[\s/>]|\Z)"


def judge(head: bytes, name: str, content_type: str, *, asked: str = "") -> str:
    """Compare how a body begins with what its name promises.

    :param head: the first `HEAD_SIZE` bytes, decoded if the body came encoded.
    :param content_type: the header as it came, empty if there was none.
    :param asked: the extension that the link has, empty if it names no file.
    :return: a note for people, empty if all is well or nothing is known about the type.
    :raises TransferError: a web page came in place of a file of another type.
    """
    if not head:
        return "The file is empty"
    if head.startswith(_WIDE):
        head = head.decode("utf-16", "ignore").encode()
    extension = os.path.splitext(name)[1][1:].lower()
    pattern = _FIRST_BYTES.get(extension)
    fits = pattern is not None and re.match(pattern, head, re.DOTALL) is not None
    is_known = pattern is not None or extension in _NO_FIRST_BYTES
    if _is_page(head, content_type, fits=fits, may_be_words=pattern is not None or not (is_known or asked)):
        if is_known or asked in _FIRST_BYTES or asked in _NO_FIRST_BYTES:
            raise TransferError(PAGE)
        return "" if asked in _MAY_BE_HTML else PAGE_NOTE
    if head.startswith(_POINTER):
        return "This is only a pointer to the file (Git LFS). Copy the link of the download button"
    is_other = not fits if pattern else is_known and extension not in _TEXTS and is_message(head)
    return f"This does not look like a .{extension} file" if is_other else ""


def is_text(head: bytes) -> bool:
    """Whether words may be all that it is."""
    return not re.search(_BINARY, head)


def is_message(head: bytes) -> bool:
    """Whether it is what servers say where something went wrong."""
    return re.match(_MESSAGE, head) is not None


def is_doubtful(head: bytes, remark: str | TransferError) -> bool:
    """Whether what `judge` remarks may be what only this one server sent: nothing, a message, a page."""
    if isinstance(remark, TransferError):
        return True
    return bool(remark) and (not head or remark == PAGE_NOTE or is_message(head))


def codings(header: str, name: str) -> list[str]:
    """What was done to a body that has to be undone, first things first (RFC 9110, section 8.4).

    Servers use words here that name no coding; they mean nothing. And they say of a .tar.gz that it
    is gzip, of a .tar.xz that it is xz, which they are by themselves.

    :param header: ``Content-Encoding``, empty if there was none.
    :param name: the file's.
    :raises TransferError: it cannot be undone.
    """
    if not header:
        return []
    words = [word.strip().lower().removeprefix("x-") for word in header.split(",")]
    found = [word for word in words if not re.fullmatch(_NO_CODING, word)]
    if found and name.lower().endswith(_BY_ITSELF.get(found[0], ())):
        found = found[1:]
    if len(found) > MAX_CODINGS or not _CODINGS.issuperset(found):
        raise TransferError("The server packed the file in a way that Blender cannot open. Use your browser")
    return found


MAX_CODINGS = 5  # one around the other, as curl has it
_CODINGS = frozenset(("gzip", "deflate"))
# Character sets, types, how it was sent in a mail, or ("aws-chunked") once to where it is kept.
_NO_CODING = (
    r"|identity|none|no|off|null|undefined|default|raw|text|plain|unicode|binary|[78]bit|base64"
    r"|(?:aws-)?chunked|(?:text|image|model|application|binary)/.*|(?:charset=)?(?:utf|iso|us|ascii|latin|windows|cp)-?[\w-]*"
)
_BY_ITSELF = {"gzip": (".gz", ".tgz", ".svgz"), "bzip2": (".bz2", ".tbz", ".tbz2"), "xz": (".xz", ".txz")}
_BY_ITSELF |= {"compress": (".z",), "zstd": (".zst",), "br": (".br",)}
"""Codings by the extensions of files that are so packed."""


def _is_page(head: bytes, content_type: str, *, fits: bool, may_be_words: bool) -> bool:
    """Whether this is HTML (the tags are those of WHATWG's MIME Sniffing, section 7.1)."""
    if re.match(_HTML, head):
        return True
    # Known only by what the server says: such as a page whose first comment is longer than `head`, or, where
    # no text was to come, nothing but words. Programs say so of what is no text, too.
    is_said = is_html(content_type) and not fits
    return is_said and (head.lstrip().startswith(b"<") or (may_be_words and is_text(head)))


def is_html(content_type: str) -> bool:
    """Whether the server says that it is a web page."""
    return content_type.partition(";")[0].strip().lower() in ("text/html", "application/xhtml+xml")
