#!/usr/bin/env python3
"""Content oracle: is a lake table equal to its source table, in every column of every row?

    compare.py --source mysql://app:app@127.0.0.1:3306/ --lake PATH-or-URL/booking --table booking.reservations ...
    compare.py --source postgres://postgres:postgres@127.0.0.1:5432/loyalty --lake .../loyalty --table public.points

The lake table lies at <lake>/<database or schema>/<table>. Exit code: 0 all equal, 1 a difference, 2 cannot compare.

It shares no code with lakeward: SQL reads the source (sources.py says how each type must arrive in the lake), DuckDB
reads the lake, both become the same canonical Python values, and rows are compared as multisets, so that a row that is
there twice is a difference too. Only a hash of each row is kept; a second pass fetches the rows that differ.
The source must be at rest while it runs.

With --serve it answers one JSON request per line on stdin with one JSON line:

    {"source": URL, "lake": URL, "tables": ["db.table"], "s3": {...}?, "exclude": ["db.table.column"]?}
    -> {"equal": bool, "tables": [{"table", "equal", "rows", "lake_rows", "columns", "differences": [...]}]}
"""

import argparse
import hashlib
import json
import sys

import lake
import sources

DIFFERENCES_MAX = 10
# Rows that differ are kept in memory to be paired by key: enough to explain, bounded if everything differs.
DIFFERING_ROWS_MAX = 20_000


def row_hash(row):
    return hashlib.blake2b(repr(row).encode("utf-8", "surrogatepass"), digest_size=16).digest()


class LakeTable:
    def __init__(self, con, url, columns):
        self.con, self.scan, self.columns = con, lake.scan(url), columns
        self.types = {row[0]: row[1] for row in con.execute(f"DESCRIBE SELECT * FROM {self.scan}").fetchall()}

    def schema_differences(self):
        """Names and types. Rows are only comparable when there are none."""
        expected = {column.name: column.kind.lake_type for column in self.columns}
        for name, wanted in expected.items():
            if name not in self.types:
                yield f"column {name}: not in the lake, expected as {wanted}"
            elif self.types[name] != wanted:
                yield f"column {name}: lake type is {self.types[name]}, expected {wanted}"
        for name in self.types:
            if name not in expected:
                yield f"column {name}: in the lake ({self.types[name]}), not in the source"

    def rows(self):
        fields = ", ".join(column.kind.lake_sql(sources.double_quoted(column.name)) for column in self.columns)
        result = self.con.execute(f"SELECT {fields} FROM {self.scan}")
        canons = [column.kind.lake_canon for column in self.columns]
        while batch := result.fetchmany(10_000):
            for row in batch:
                yield tuple(
                    value if canon is None or value is None else canon(value) for canon, value in zip(canons, row)
                )


def compare_table(source, con, lake_url, table, exclude):
    columns = [column for column in source.columns(table) if f"{table}.{column.name}" not in exclude]
    if not columns:
        return {"table": table, "equal": False, "differences": ["no such table in the source"]}
    namespace, name = table.split(".", 1)
    try:
        lake_table = LakeTable(con, f"{lake_url.rstrip('/')}/{namespace}/{name}", columns)
    except Exception as error:
        return {"table": table, "equal": False, "differences": [f"cannot read the lake table: {error}"]}
    result = {"table": table, "equal": False, "columns": len(columns)}
    if differences := list(lake_table.schema_differences()):
        return result | {"differences": differences}

    balance = {}  # row hash -> occurrences in the source minus occurrences in the lake
    rows = lake_rows = 0
    for row in source.rows(table, columns):
        rows += 1
        digest = row_hash(row)
        balance[digest] = balance.get(digest, 0) + 1
    for row in lake_table.rows():
        lake_rows += 1
        digest = row_hash(row)
        count = balance.get(digest, 0) - 1
        if count:
            balance[digest] = count
        else:
            del balance[digest]  # most rows cancel out; memory stays small
    result |= {"rows": rows, "lake_rows": lake_rows}
    if not balance:
        return result | {"equal": True, "differences": []}

    only_source = [row for row in source.rows(table, columns) if balance.get(row_hash(row), 0) > 0][:DIFFERING_ROWS_MAX]
    only_lake = [row for row in lake_table.rows() if balance.get(row_hash(row), 0) < 0][:DIFFERING_ROWS_MAX]
    return result | {"differences": explain(columns, source.key(table), only_source, only_lake, balance)}


def explain(columns, key_names, only_source, only_lake, balance):
    """Pairs the differing rows by primary key (by nothing, if there is none) and names the columns that differ."""
    positions = [index for index, column in enumerate(columns) if column.name in key_names]

    def key_of(row):
        return tuple(row[index] for index in positions) if positions else row

    def describe(key):
        names = key_names if positions else [column.name for column in columns]
        return ", ".join(f"{name}={value!r}" for name, value in zip(names, key))

    key_names = [columns[index].name for index in positions]
    lake_by_key = {}
    for row in only_lake:
        lake_by_key.setdefault(key_of(row), []).append(row)

    differences, more = [], 0
    for row in only_source:
        twins = lake_by_key.pop(key_of(row), [])
        if not twins:
            lines = [f"{describe(key_of(row))}: only in the source"]
        elif len(twins) > 1:
            lines = [f"{describe(key_of(row))}: {len(twins)} rows in the lake"]
        else:
            lines = []
            for column, value, lake_value in zip(columns, row, twins[0]):
                if value != lake_value:
                    note = same_json(value, lake_value) if column.kind.is_json else ""
                    lines.append(f"{describe(key_of(row))}: {column.name}: source {value!r}, lake {lake_value!r}{note}")
            # The same content, then: it is there more often on one side.
            lines = lines or [f"{describe(key_of(row))}: occurs {balance[row_hash(row)]:+d} times more in the source"]
        if len(differences) < DIFFERENCES_MAX:
            differences += lines
        else:
            more += 1
    for key, rows in lake_by_key.items():
        if len(differences) < DIFFERENCES_MAX:
            extra = -balance[row_hash(rows[0])]
            differences.append(f"{describe(key)}: only in the lake, or there too often ({extra} too many)")
        else:
            more += 1
    return differences + ([f"and {more} more rows (of the first {DIFFERING_ROWS_MAX} on each side)"] if more else [])


def same_json(left, right):
    try:
        return " (same JSON value, other text)" if json.loads(left) == json.loads(right) else ""
    except (TypeError, ValueError):
        return ""


class Oracle:
    """Keeps DuckDB and the source connections open between requests."""

    def __init__(self):
        self.con = lake.connect()
        self.open_sources = {}

    def compare(self, request):
        lake.use_s3(self.con, request.get("s3"))
        url = request["source"]
        # A server that was restarted since the last request has closed our connection.
        if url in self.open_sources and not self.open_sources[url].alive():
            del self.open_sources[url]
        if url not in self.open_sources:
            self.open_sources[url] = sources.connect(url)
        exclude = set(request.get("exclude") or [])
        tables = [
            compare_table(self.open_sources[url], self.con, request["lake"], table, exclude)
            for table in request["tables"]
        ]
        return {"equal": all(table["equal"] for table in tables), "tables": tables}


def serve():
    oracle = Oracle()
    for line in sys.stdin:
        try:
            answer = oracle.compare(json.loads(line))
        except Exception as error:  # one bad request must not end the service
            answer = {"equal": False, "tables": [], "error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def print_result(table):
    if table["equal"]:
        print(f"equal      {table['table']}  {table['rows']} rows, {table['columns']} columns")
        return
    counts = f"  {table['rows']} rows, {table['lake_rows']} in the lake" if "rows" in table else ""
    print(f"DIFFERENT  {table['table']}{counts}")
    for difference in table["differences"]:
        print(f"    {difference}")


def main():
    parser = argparse.ArgumentParser(description="is the lake equal to the source?")
    parser.add_argument("--source", metavar="URL")
    parser.add_argument("--lake", metavar="URL", help="folder of the source's databases or schemas in the lake")
    parser.add_argument("--table", action="append", default=[], metavar="DB.TABLE")
    parser.add_argument("--exclude", action="append", default=[], metavar="DB.TABLE.COLUMN")
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", action="store_true")
    lake.add_s3_options(parser)
    args = parser.parse_args()
    if args.serve:
        serve()
        return 0
    if not (args.source and args.lake and args.table):
        parser.error("--source, --lake and --table are needed")
    request = {"source": args.source, "lake": args.lake, "tables": args.table, "exclude": args.exclude}
    try:
        result = Oracle().compare(request | {"s3": lake.s3_from(args)})
    except Exception as error:
        print(f"cannot compare: {type(error).__name__}: {error}", file=sys.stderr)
        return 2
    if args.json:
        print(json.dumps(result, ensure_ascii=False))
    else:
        for table in result["tables"]:
            print_result(table)
    return 0 if result["equal"] else 1


if __name__ == "__main__":
    sys.exit(main())
