"""The code blocks and commands of README.md and docs/, and how a command line is parsed without running it."""

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
PAGES = [REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md"))]
_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_INLINE = re.compile(r"`((?:distrib|python -m cluster\.lab) [^`\n]+)`")
_COMMENT = re.compile(r"\s{2,}#.*$")


@dataclass(frozen=True)
class Snippet:
    """A code block: its page, first line, language and text."""

    page: Path
    line: int
    language: str
    text: str

    def __str__(self):
        return f"{self.page.name}:{self.line}"


def blocks(language):
    """The code blocks in a language, over all pages."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in _BLOCK.finditer(text):
            if match[1] == language:
                found.append(Snippet(page, text.count("\n", 0, match.start()) + 2, language, match[2]))
    return found


def commands():
    """Every command as (where, words): lines after `$` in console blocks, and commands in the text."""
    found = []
    for snippet in blocks("console"):
        joined = snippet.text.replace("\\\n", " ")
        lines = [line[2:] for line in joined.splitlines() if line.startswith("$ ")]
        found += [(str(snippet), line) for line in lines]
    for page in PAGES:
        text = _BLOCK.sub("", page.read_text(encoding="utf-8"))
        found += [(page.name, match[1]) for match in _INLINE.finditer(text) if "…" not in match[1]]
    return [(where, words) for where, line in found for words in _split(line)]


def _split(line):
    """The simple commands of a line, without comments, redirections and all but the first of `A | B` in options."""
    line = re.sub(r"(--\S+ )(\S+)(?: \| \S+)+", r"\1\2", _COMMENT.sub("", line))
    lexer = shlex.shlex(line, posix=True, punctuation_chars=True)
    lexer.whitespace_split = True
    words, is_redirected = [], False
    for word in [*lexer, ";"]:
        if word in (";", "&&", "|"):
            if words:
                yield words
            words, is_redirected = [], False
        elif word == ">":
            is_redirected = True
        elif not is_redirected:
            words.append(word)
