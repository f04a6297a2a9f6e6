"""The text of launch/fetch_english: documents out of unpacked Debian packages.

usage: english_text.py PACKAGES OUTPUT

PACKAGES holds one unpacked tree for each package, under the package's name. OUTPUT/train.txt and
OUTPUT/val.txt are set: documents in UTF-8, each ended by the byte 0x1E. One document in 100, by a
hash of its bytes, is held out. Needs nothing but Python 3.9 or later. Same packages, same bytes.
"""

import gzip
import hashlib
import html
import html.parser
import os
import re
import struct
import sys
import zlib

SEPARATOR = b"\x1e"
SHORTEST = 200  # characters; what is shorter is a redirection, a title page, an index
HELD_OUT = 100  # one document in so many is for validation
DICTIONARY_PIECE = 1 << 16  # characters


# ---- files

def files_under(root, wanted):
    """Paths of the regular files whose path fits the pattern, in a fixed order."""
    for folder, folders, names in os.walk(root):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(folder, name)
            if not os.path.islink(path) and re.search(wanted, path):
                yield path


def content(path):
    with (gzip.open if path.endswith((".gz", ".dz")) else open)(path, "rb") as file:
        return file.read()


def decoded(data):
    try:
        return data.decode("utf-8")
    except UnicodeDecodeError:
        return data.decode("latin-1")


def few_blank_lines(text):
    return re.sub(r"\n{3,}", "\n\n", text)


# ---- manuals in HTML

class VisibleText(html.parser.HTMLParser):
    """What a reader of a page sees, blocks on lines of their own, without its navigation."""

    HIDDEN = frozenset("script style nav footer head noscript svg form select".split())
    PARAGRAPHS = frozenset("p h1 h2 h3 h4 pre div section".split())
    BLOCKS = PARAGRAPHS | frozenset(
        "li tr h5 h6 br dt dd table ul ol td th title blockquote hr".split())

    def __init__(self):
        super().__init__()
        self.parts = []
        self.hidden = self.preformatted = 0  # depths

    def handle_starttag(self, tag, attrs):
        self.hidden += tag in self.HIDDEN
        self.preformatted += tag == "pre"
        if tag in self.BLOCKS:
            self.parts.append("\n\n" if tag in self.PARAGRAPHS else "\n")

    def handle_startendtag(self, tag, attrs):
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_endtag(self, tag):
        self.hidden -= tag in self.HIDDEN and self.hidden > 0
        self.preformatted -= tag == "pre" and self.preformatted > 0
        if tag in self.BLOCKS:
            self.parts.append("\n")

    def handle_data(self, data):
        if not self.hidden:
            self.parts.append(data if self.preformatted else re.sub(r"\s+", " ", data))


def page_text(data):
    page = VisibleText()
    page.feed(decoded(data))
    page.close()
    return few_blank_lines(re.sub(r"[ \t]+\n", "\n", "".join(page.parts))).strip()


class NewParagraphs:
    """Drops what an earlier page said already: menus, licences, the same text of many functions."""

    def __init__(self):
        self.seen = set()

    def of(self, text):
        kept = []
        for paragraph in text.split("\n\n"):
            if not paragraph.strip():
                continue
            digest = hashlib.blake2b(paragraph.strip().encode(), digest_size=16).digest()
            if digest not in self.seen:
                self.seen.add(digest)
                kept.append(paragraph)
        return "\n\n".join(kept)


new_paragraphs = NewParagraphs()


def html_manual(root):
    for path in files_under(root, r"\.(html|htm|html\.gz)$"):
        yield new_paragraphs.of(page_text(content(path)))


# ---- dictionaries, in the dictd format: one compressed text, entry after entry

def dictionary(root):
    path = next(files_under(root + "/usr/share/dictd", r"\.dict\.dz$"))
    text = decoded(content(path))
    for begin in range(0, len(text), DICTIONARY_PIECE):
        yield text[begin:begin + DICTIONARY_PIECE]


# ---- SWORD modules (zText and zCom): NAME.?zs lists compressed blocks, NAME.?zv the verses in them,
# NAME.?zz holds the blocks

def verse_index(data, blocks):
    """(block, offset, size) of each verse; sizes have 2 or 4 bytes, and only one of them fits."""
    for form in ("<IIH", "<III"):
        width = struct.calcsize(form)
        if len(data) % width != 0:
            continue
        verses = list(struct.iter_unpack(form, data))
        if all(size == 0 or (block < len(blocks) and begin + size <= len(blocks[block]))
               for block, begin, size in verses):
            return verses
    raise SystemExit("english_text: a SWORD module has an index of unknown form")


def verse_text(markup):
    markup = re.sub(r"<note.*?</note>", "", markup, flags=re.S)
    markup = re.sub(r"<(p|br|lb|div|title|scripRef)\b[^>]*>", " ", markup)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", "", markup))).strip()


def sword_module(root):
    """A document is a block: a book, or a chapter."""
    for path in files_under(root, r"\.[bc]zs$"):
        stem = path[:-1]
        compressed = content(stem + "z")
        blocks = [zlib.decompress(compressed[begin:begin + size])
                  for begin, size, _ in struct.iter_unpack("<III", content(stem + "s"))]
        lines, current, last = [], None, None
        for block, begin, size in verse_index(content(stem + "v"), blocks):
            if size == 0 or (block, begin) == last:  # several verses may share a comment
                continue
            last = (block, begin)
            if block != current and lines:
                yield "\n".join(lines)
                lines = []
            current = block
            text = verse_text(blocks[block][begin:begin + size].decode("utf-8", "replace"))
            if text:
                lines.append(text)
        if lines:
            yield "\n".join(lines)


# ---- the novels of r-cran-janeaustenr: compressed chunks of R's serialisation, a novel each

def character_vector(data):
    """The strings of an R character vector in XDR form, versions 2 and 3."""
    version, = struct.unpack_from(">I", data, 2)
    at = 14
    if version == 3:  # the name of an encoding comes first
        at += 4 + struct.unpack_from(">I", data, 14)[0]
    kind, count = struct.unpack_from(">II", data, at)
    if kind & 0xFF != 16:
        raise SystemExit("english_text: r-cran-janeaustenr holds something else than texts")
    at += 8
    for _ in range(count):
        _, length = struct.unpack_from(">Ii", data, at)
        at += 8
        length = max(length, 0)  # -1: NA
        yield data[at:at + length].decode("utf-8")
        at += length


def novels(root):
    data = content(root + "/usr/lib/R/site-library/janeaustenr/data/Rdata.rdb")
    at = 0
    while at < len(data):
        chunk = zlib.decompressobj()  # after the length that it will have
        text = chunk.decompress(data[at + 4:])
        at = len(data) - len(chunk.unused_data)
        yield "\n".join(character_vector(text))


# ---- manual pages, in roff

ROFF_NAMES = (("\\-", "-"), ("\\(aq", "'"), ("\\(dq", '"'), ("\\e", "\\"), ("\\(bu", "*"),
              ("\\(em", "-"), ("\\(en", "-"), ("\\ ", " "))


def roff_text(data):
    lines = []
    for line in decoded(data).split("\n"):
        if line.startswith(('.\\"', "'\\\"", ".so ")):  # comments, and pages that stand elsewhere
            continue
        if line.startswith("."):
            line = re.sub(r"^\.[A-Za-z]+ ?", "", line).replace('"', "")
        line = re.sub(r"\\f(\(..|\[[^]]*\]|.)|\\[&/,|^]|\\s[-+]?\d", "", line)  # fonts, sizes
        for name, character in ROFF_NAMES:
            line = line.replace(name, character)
        lines.append(line)
    return few_blank_lines("\n".join(lines))


def manual_pages(root):
    for path in files_under(root + "/usr/share/man", r"\.gz$"):
        yield roff_text(content(path))


# ---- plain text

def plain(folder, wanted):
    def read(root):
        for path in files_under(root + folder, wanted):
            yield decoded(content(path))
    return read


SOURCES = (
    [(name, dictionary) for name in ("dict-gcide", "dict-wn", "dict-foldoc")]
    + [(name, sword_module) for name in ("sword-comm-tdavid", "sword-comm-mhcc", "sword-text-kjv",
                                         "sword-text-web")]
    + [(name, html_manual) for name in (
        "anarchism", "git-doc", "sqlite3-doc", "erlang-doc", "libboost1.74-doc",
        "qtbase5-doc-html", "cppreference-doc-en-html", "llvm-14-doc", "rust-doc",
        "libreoffice-help-en-us")]
    + [("r-cran-janeaustenr", novels),
       ("fortunes", plain("/usr/share/games/fortunes", r"/[^./]*$")),
       ("manpages", manual_pages),
       ("manpages-dev", manual_pages),
       ("vim-runtime", plain("/usr/share/vim", r"/doc/.*\.txt(\.gz)?$"))])


def is_held_out(document):
    digest = hashlib.blake2b(document, digest_size=8).digest()
    return int.from_bytes(digest, "big") % HELD_OUT == 0


def main(packages, output):
    with open(output + "/train.txt", "wb") as train, open(output + "/val.txt", "wb") as val:
        for name, documents in SOURCES:
            count = size = 0
            for text in documents(os.path.join(packages, name)):
                if len(text) < SHORTEST:
                    continue
                document = (text.strip("\n") + "\n\n\n").encode("utf-8")
                document = document.replace(SEPARATOR, b"") + SEPARATOR
                (val if is_held_out(document) else train).write(document)
                count += 1
                size += len(document)
            print(f"  {name:26} {count:6} documents {size / 1e6:8.2f} MB", flush=True)


if __name__ == "__main__":
    if sys.argv[1:] == ["--packages"]:
        print("\n".join(name for name, _ in SOURCES))
    elif len(sys.argv) == 3:
        main(*sys.argv[1:])
    else:
        raise SystemExit(__doc__)
