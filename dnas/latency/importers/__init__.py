"""Reading the latency tables of others: one module per format, each with ``read(path, wanted) -> Found``."""

from __future__ import annotations

from dnas.latency.importers.common import FORMATS, Found, Imported, Left, Record, Wanted, import_table

__all__ = ["FORMATS", "Found", "Imported", "Left", "Record", "Wanted", "import_table"]
