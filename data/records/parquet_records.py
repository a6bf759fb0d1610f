"""The records of a Parquet file that stands in for a JSON list: a row is a record, a column a field."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from data.records.formats import Format
from data.records.json_values import AnnotationError
from data.records.parquet import batches, open_parquet, readable, values_of
from data.records.parquet_columns import column_type, field_column, listed, wanted_names


def parquet_records(source: Path, format: Format | None = None) -> Iterator[dict[str, Any]]:
    """The rows as records: with the fields of `format` (missing values left out), or with every column as it is.

    A row without a text in the field that the format needs has an empty one, so that it is left out and counted.
    """
    file = open_parquet(source)
    if format is None:
        columns = {name: name for name in file.schema_arrow.names if column_type(source, file.schema_arrow, name)}
    else:
        columns = _columns(source, file.schema_arrow, format)
    needed = format.needed if format else ""
    for batch in batches(source, file, list(columns.values())):
        with readable(source):
            values = [values_of(batch.column(column)) for column in columns.values()]
        for row in zip(*values, strict=True):
            record = {name: value for name, value in zip(columns, row, strict=True) if value is not None}
            if needed:
                record.setdefault(needed, "")
            yield record


def _columns(source: Path, schema: Any, format: Format) -> dict[str, str]:
    """Field -> column. Raises AnnotationError where a required field has none."""
    named = dict(format.columns_of)
    found = {field.name: field_column(source, schema, field.name, named.get(field.name, "")) for field in format.fields}
    lacking = [field.name for field in format.fields if field.required and not found[field.name]]
    if format.either and not any(found[name] for name in format.either):
        lacking.append(" or ".join(format.either))
    if lacking:
        names = "; ".join(f"{field} ({wanted_names(field)})" for field in lacking)
        raise AnnotationError(f"{source} has no column of {names}; {listed(schema)}")
    return {field: column for field, column in found.items() if column}
