"""Web addresses in whole columns of records."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pyarrow as pa


def are_web_addresses(images: "pa.Array | pa.ChunkedArray") -> "pa.Array | pa.ChunkedArray":
    """Which of a column's texts are addresses, as `files.is_web_address` says of one."""
    import pyarrow.compute as pc

    return pc.call_function("match_substring_regex", [images], pc.MatchSubstringOptions("^[hH][tT][tT][pP][sS]?://"))
