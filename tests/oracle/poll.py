#!/usr/bin/env python3
"""Reads a Delta table over and over while it changes, and notes every state that must not be seen.

    poll.py duckdb|polars TABLE-FOLDER ROWS SUM

The table has ROWS rows with columns `id`, `v` (whose sum is SUM) and perhaps, as a whole, `n`, which is 7 in every row. Ends when
stdin is closed, and prints one JSON line: {"reads": N, "with_n": N, "violations": [...]}.
"""

import json
import sys
import threading

import lake


def duckdb_state(con, table):
    scan = lake.scan(table)
    # One scan: one version of the table.
    names = [row[0] for row in con.execute(f"DESCRIBE SELECT * FROM {scan}").fetchall()]
    n = "count(*) FILTER (WHERE n = 7)" if "n" in names else "NULL"
    try:
        return names, con.execute(f"SELECT count(*), sum(v)::BIGINT, {n} FROM {scan}").fetchone()
    except Exception as error:
        # The version that was described is not the one that was read.
        if "n" in names or "Binder" not in type(error).__name__:
            raise
        return None


def polars_state(table):
    import polars

    frame = polars.scan_delta(table).collect()
    n = int((frame["n"] == 7).sum()) if "n" in frame.columns else None
    return frame.columns, (len(frame), int(frame["v"].sum() or 0), n)


def main():
    engine, table, rows, total = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
    ended = threading.Event()
    threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
    con = lake.connect() if engine == "duckdb" else None
    reads = with_n = 0
    violations = []
    while not ended.is_set():
        try:
            state = duckdb_state(con, table) if con else polars_state(table)
        except Exception as error:
            violations.append(f"{type(error).__name__}: {error}"[:300])
            continue
        if state is None:
            continue
        names, (count, found, n) = state
        reads += 1
        with_n += "n" in names
        if count != rows or found != total or ("n" in names and n != rows):
            violations.append(f"{count} rows, sum {found}, columns {names}, {n} with n")
    print(json.dumps({"reads": reads, "with_n": with_n, "violations": violations[:5]}), flush=True)


if __name__ == "__main__":
    main()
