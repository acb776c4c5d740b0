#!/usr/bin/env python3
"""Do DuckDB, Polars and deltalake read the same rows from a Delta table?

    readers.py --serve

answers one JSON request per line on stdin with one JSON line:

    {"table": path, "version": N?}
    -> {"equal": bool, "rows": N, "columns": [...], "differences": [...], "reader_features": [...]}

Polars and deltalake are engines of their own beside DuckDB; rows are compared as multisets of canonical Python values.
A table that asks for no deletion vectors is also read by pyarrow's datasets, which do not know them.
"""

import collections
import datetime
import decimal
import json
import sys
import uuid

import deltalake
import polars

import lake


def canonical(value):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    if isinstance(value, datetime.datetime):
        if value.tzinfo:
            value = value.astimezone(datetime.timezone.utc)
        return value.isoformat()
    if isinstance(value, (datetime.date, datetime.time, uuid.UUID)):
        return str(value)
    if isinstance(value, dict):
        return tuple((key, canonical(item)) for key, item in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(canonical(item) for item in value)
    raise TypeError(f"no canonical form for {type(value)}")


def duckdb_rows(con, request):
    result = con.execute(f"SELECT * FROM {lake.scan(request['table'], request.get('version'))}")
    names = [item[0] for item in result.description]
    return names, result.fetchall()


def polars_rows(request):
    frame = polars.scan_delta(request["table"], version=request.get("version")).collect()
    return frame.columns, frame.rows()


def deltalake_rows(request):
    table = deltalake.DeltaTable(request["table"], version=request.get("version"))
    # Its own query engine: the other way to read, by pyarrow's datasets, does not know deletion vectors.
    query = deltalake.QueryBuilder().register("t", table)
    batches = query.execute("SELECT * FROM t").read_all()
    names = list(batches.schema.names)
    columns = [column_values(batches.column(index)) for index in range(len(names))]
    return names, list(zip(*columns)) if columns else []


def pyarrow_rows(request):
    table = deltalake.DeltaTable(request["table"], version=request.get("version")).to_pyarrow_table()
    columns = [table.column(index).to_pylist() for index in range(table.num_columns)]
    return table.column_names, list(zip(*columns)) if columns else []


def column_values(column):
    import pyarrow

    return pyarrow.chunked_array(column).to_pylist()


def compare(con, request):
    protocol = deltalake.DeltaTable(request["table"]).protocol()
    found = {"duckdb": duckdb_rows(con, request)}
    readers = [("polars", polars_rows), ("deltalake", deltalake_rows)]
    if "deletionVectors" not in (protocol.reader_features or []):
        readers.append(("pyarrow", pyarrow_rows))
    for name, read in readers:
        found[name] = read(request)
    names, rows = found["duckdb"]
    wanted = collections.Counter(tuple(map(canonical, row)) for row in rows)
    differences = []
    for name, (other_names, other_rows) in found.items():
        if list(other_names) != list(names):
            differences.append(f"{name}: columns {other_names}, DuckDB has {names}")
            continue
        other = collections.Counter(tuple(map(canonical, row)) for row in other_rows)
        if other != wanted:
            missing, more = list((wanted - other).elements())[:3], list((other - wanted).elements())[:3]
            differences.append(f"{name}: {len(other_rows)} rows, DuckDB {len(rows)}; lacks {missing!r}, has {more!r}")
    return {
        "equal": not differences,
        "rows": len(rows),
        "columns": list(names),
        "differences": differences,
        "reader_features": sorted(protocol.reader_features or []),
    }


def serve():
    con = lake.connect()
    for line in sys.stdin:
        try:
            answer = compare(con, json.loads(line))
        except Exception as error:  # one bad request must not end the service
            answer = {"equal": False, "differences": [f"{type(error).__name__}: {error}"]}
        print(json.dumps(answer, ensure_ascii=False), flush=True)


if __name__ == "__main__":
    if sys.argv[1:] != ["--serve"]:
        sys.exit(__doc__)
    serve()
