#!/usr/bin/env python3
"""Transactions larger than memory, end to end: applied in one Delta commit, with memory within the budget.

    huge_transaction.py --lakeward PATH --out benches/results/huge.json [--kinds mariadb,postgres] [--budget-mib 512]
                        [--rows 10000000] [--wide-mib 2048]

On each server two transactions, each committed while lakeward follows the log from a first load on:

  rows     --rows inserts of three columns, then updates of a tenth of them, deletes of a hundredth, in one transaction
  wide     --wide-mib MiB of rows of 8 KiB

Printed: rows and bytes (of their values as text, when all is done), the seconds from process start to the end of catching
up, the process's peak memory (VmHWM as the kernel gives it), the budget, the overhead that the README states (the process
itself, and the key index per row, up to its budget), and whether it stayed within. Source and lake are compared by count, bytes and the sum of
each row's MD5 (its first 32 bits), computed by the source's SQL and by DuckDB; exactly one Delta commit may have been made.
The exit code is 1 when any of this fails.
"""

import os
import shutil
import subprocess
import sys
import tempfile

import databases
import harness

# README, "Limits".
PROCESS_MIB = 96
INDEX_MIB_MAX = 256
INDEX_BYTES_PER_ROW = 40
WIDE_BYTES = 8192


def measure(source, name, statements, columns, args):
    """Runs one transaction on table `name`, lets lakeward catch up, and says how that went."""
    folder = tempfile.mkdtemp(prefix="lakeward-huge-", dir=args.folder)
    run = f"{source.name}_{name}"
    memory = f'[memory]\nbudget = "{args.budget_mib}MiB"\nspill_dir = "spill"'
    config = harness.configure(folder, source.source_toml([name]), name=run, settings=memory)
    catch_up = [args.lakeward, "run", "--until-caught-up", "--config", config, "--log-level", "warn"]
    subprocess.run(catch_up, check=True, stdout=subprocess.DEVNULL)
    source.run("BEGIN", *statements, "COMMIT")
    used = harness.timed(catch_up, stdout=subprocess.DEVNULL)
    peak = used["peak_memory_mib"]
    table = f"{folder}/lake/{run}/{source.schema}/{name}"
    commits = harness.batches(table)
    rows, wanted_bytes, wanted = source.sums(name, columns)
    found = source.sums_of_lake(table, columns)
    overhead = PROCESS_MIB + min(INDEX_MIB_MAX, rows * INDEX_BYTES_PER_ROW / 2**20)
    result = {"kind": source.kind, "server": source.version, "transaction": name, "rows": rows,
              "bytes": int(wanted_bytes), **used, "budget_mib": args.budget_mib,
              "stated_overhead_mib": overhead, "within": peak <= args.budget_mib + overhead,
              "equal": (rows, wanted_bytes, wanted) == tuple(found), "commits": commits,
              "left_on_disk": len(os.listdir(f"{folder}/spill")) if os.path.isdir(f"{folder}/spill") else 0}
    source.run(f"DROP TABLE {name}")
    source.forget()
    shutil.rmtree(folder)
    return result


def transactions(source, args):
    numbers = f"{source.numbers(1, args.rows)} s"
    source.run("CREATE TABLE many_rows (id BIGINT PRIMARY KEY, room INT, note VARCHAR(40))")
    yield measure(source, "many_rows", [
        f"INSERT INTO many_rows SELECT id, id % 500, CONCAT('guest ', id) FROM {numbers}",
        "UPDATE many_rows SET room = room + 1 WHERE id % 10 = 0",
        "DELETE FROM many_rows WHERE id % 100 = 7"], ["id", "room", "note"], args)
    text = "id::text" if source.is_postgres else "id"
    wide_rows = max(1, args.wide_mib * 2**20 // WIDE_BYTES)
    source.run("CREATE TABLE wide_rows (id BIGINT PRIMARY KEY, body TEXT)")
    yield measure(source, "wide_rows",
                  [f"INSERT INTO wide_rows SELECT id, REPEAT(MD5({text}), {WIDE_BYTES // 32}) FROM {source.numbers(1, wide_rows)} s"], ["id", "body"], args)


def main():
    parser = harness.parser(__doc__, kinds="mariadb,postgres", rounds=None)
    parser.add_argument("--budget-mib", type=int, default=512)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--wide-mib", type=int, default=2048)
    args = parser.parse_args()
    results = []
    for connect in databases.each(args.kinds):
        source = connect()
        try:
            for result in transactions(source, args):
                results.append(result)
                good = result["within"] and result["equal"] and result["commits"] == 1 and not result["left_on_disk"]
                print(f"{result['kind']:9} {result['server'][:24]:24} {result['transaction']:9} {result['rows']:>11,} rows  {result['bytes'] / 2**20:7,.0f} MiB  "
                      f"{result['seconds']:6.1f} s   peak {result['peak_memory_mib']:.0f} MiB = budget {args.budget_mib} + overhead "
                      f"{result['peak_memory_mib'] - args.budget_mib:.0f} (stated: {result['stated_overhead_mib']:.0f})   "
                      f"commits {result['commits']}   {'equal' if result['equal'] else 'DIFFERENT'}   "
                      f"{'ok' if good else 'FAILED'}", flush=True)
        finally:
            source.close()
    harness.write(args.out, results=results)
    good = [result["within"] and result["equal"] and result["commits"] == 1 for result in results]
    sys.exit(0 if good and all(good) else 1)


if __name__ == "__main__":
    main()
