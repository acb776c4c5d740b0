#!/usr/bin/env python3
"""Prints the rows of one Delta table as JSON lines, read by DuckDB.

    rows.py --lake-table URL-or-path [--version N] [--sql "SELECT ... FROM t"]

In --sql the table is called `t`. With --serve it answers one JSON request per line on stdin with one JSON line:

    {"table": URL, "version": N?, "sql": "SELECT ..."?, "s3": {"endpoint", "key", "secret"}?}
    -> {"columns": [{"name", "type"}], "rows": [[...]]}      or {"error": "..."}

Values: integers, floats, booleans, strings and NULL as JSON has them; NaN and infinities as strings; decimals, dates and
times as strings ("12.50", "2026-01-31", "2026-01-31 10:00:00.500000", with "+00:00" for instants); binary as "\\x" and hex.
"""

import argparse
import datetime
import decimal
import json
import math
import sys
import uuid

import lake


def plain(value):
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else str(value)
    if isinstance(value, (bytes, bytearray, memoryview)):
        return "\\x" + bytes(value).hex()
    if isinstance(value, decimal.Decimal):
        return format(value, "f")
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    if isinstance(value, (datetime.date, datetime.time, datetime.datetime, datetime.timedelta, uuid.UUID)):
        return str(value)
    raise TypeError(f"no plain form for {type(value)}")


def query(con, request):
    lake.use_s3(con, request.get("s3"))
    scan = lake.scan(request["table"], request.get("version"))
    result = con.execute(f"WITH t AS (SELECT * FROM {scan}) {request.get('sql') or 'SELECT * FROM t'}")
    columns = [{"name": item[0], "type": str(item[1])} for item in result.description]
    return columns, result


def serve(con):
    for line in sys.stdin:
        try:
            columns, result = query(con, json.loads(line))
            answer = {"columns": columns, "rows": [[plain(value) for value in row] for row in result.fetchall()]}
        except Exception as error:  # one bad request must not end the service
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer, ensure_ascii=False), flush=True)


def main():
    parser = argparse.ArgumentParser(description="rows of one Delta table as JSON lines")
    parser.add_argument("--lake-table", metavar="URL")
    parser.add_argument("--version", type=int)
    parser.add_argument("--sql")
    parser.add_argument("--serve", action="store_true")
    lake.add_s3_options(parser)
    args = parser.parse_args()
    con = lake.connect()
    if args.serve:
        serve(con)
        return
    if not args.lake_table:
        parser.error("--lake-table is needed")
    request = {"table": args.lake_table, "version": args.version, "sql": args.sql, "s3": lake.s3_from(args)}
    columns, result = query(con, request)
    names = [column["name"] for column in columns]
    while rows := result.fetchmany(10_000):
        for row in rows:
            print(json.dumps(dict(zip(names, map(plain, row))), ensure_ascii=False))


if __name__ == "__main__":
    main()
