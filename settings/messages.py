"""Messages for a terminal: what came from outside, such as a file's name, can neither control it nor flood it."""

from models import errors

_LONGEST_LINE = 1000  # characters; a path has up to 4,096, and what is wrong stands at the ends


def printable(text: str, encoding: str | None = None) -> str:
    """The text with escapes for what a terminal would obey (control characters) or what its encoding lacks."""
    encoding = encoding or "utf-8"
    return errors.printable(text).encode(encoding, "backslashreplace").decode(encoding)


def printable_lines(text: str, encoding: str | None = None) -> str:
    """As `printable`, but line ends and tabs stay what they are."""
    lines = text.split("\n")
    return "\n".join("\t".join(printable(part, encoding) for part in line.split("\t")) for line in lines)


def message(text: object, encoding: str | None = None) -> str:
    """What a program says of an error: printable, and with the middle of very long lines left out."""
    return "\n".join(map(_shortened, printable_lines(str(text), encoding).split("\n")))


def _shortened(line: str) -> str:
    half = _LONGEST_LINE // 2
    return line if len(line) <= _LONGEST_LINE else f"{line[:half]} [...] {line[-half:]}"
