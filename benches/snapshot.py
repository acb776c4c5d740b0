#!/usr/bin/env python3
"""Loads, end to end: how fast the rows of a table get into a Delta table, and are proven to be there.

    snapshot.py --lakeward PATH --out benches/results/snapshot.json [--kinds mariadb,mysql,postgres] [--rounds 3] [--rows 2000000]

Each round, on the same machine and the same table, one after the other:

  raw      the server's own client reads the whole table to nowhere: PostgreSQL `COPY … TO STDOUT (FORMAT binary)`; MySQL and
           MariaDB an unbuffered SELECT in the text protocol, which is all that their clients speak
  load     `lakeward run --until-caught-up` with an empty lake: process start, hand-over, rows, log up to the end
  resync   `lakeward resync`: built anew beside the table, and swapped
  verify   `lakeward verify`: every column of every row compared

and in the end source and lake are compared in every column of every row by another reader. Printed: medians over the rounds and
the ratio of the raw reading to each, which is comparable between machines. MB are those that the raw client received.
"""

import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import databases
import harness
import workloads


def raw(source, format="binary"):
    started = time.monotonic()
    reader = subprocess.Popen(source.raw_table("events", format), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    count = subprocess.run(["wc", "-c"], stdin=reader.stdout, stdout=subprocess.PIPE, check=True)
    reader.stdout.close()
    if reader.wait() != 0:
        sys.exit(f"{source.kind}: the raw client ended with {reader.returncode}")
    return time.monotonic() - started, int(count.stdout)


def measure(source, args):
    workloads.Updates(args.rows).create(source)
    rows, table = args.rows, f"{source.schema}.events"
    samples = []
    for number in range(args.rounds):
        folder = tempfile.mkdtemp(prefix="lakeward-bench-", dir=args.folder)
        config = harness.configure(folder, source.source_toml(["events"]), name=f"bench{number}")
        raw_seconds, raw_bytes = raw(source)

        def lakeward(*arguments):
            command = [args.lakeward, *arguments, "--config", config, "--log-level", "warn"]
            return harness.timed(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        samples.append({
            "raw": {"seconds": raw_seconds}, "bytes": raw_bytes,
            # Why PostgreSQL is read as text: docs/decisions/014-copy-in-text.md.
            "raw_text": {"seconds": raw(source, "text")[0] if source.kind == "postgres" else raw_seconds},
            "load": lakeward("run", "--until-caught-up"),
            "resync": lakeward("resync", table),
            "verify": lakeward("verify", table),
        })
        if number == args.rounds - 1:
            source.compare(f"{folder}/lake/bench{number}", "events")
        shutil.rmtree(folder)
        source.forget()
    raw_seconds = statistics.median(sample["raw"]["seconds"] for sample in samples)
    megabytes = samples[0]["bytes"] / 1e6
    result = {"kind": source.kind, "server": source.version, "rows": rows, "megabytes": megabytes, "rounds": args.rounds,
              "samples": samples, "raw_rows_per_second": rows / raw_seconds,
              "raw_text_rows_per_second": rows / statistics.median(sample["raw_text"]["seconds"] for sample in samples),
              "raw_megabytes_per_second": megabytes / raw_seconds}
    for what in ("load", "resync", "verify"):
        middle = harness.medians([sample[what] for sample in samples])
        result[what] = {
            "rows_per_second": rows / middle["seconds"], "megabytes_per_second": megabytes / middle["seconds"],
            "to_raw": raw_seconds / middle["seconds"], "cpu_seconds_per_million_rows": middle["cpu_seconds"] / rows * 1e6,
            "peak_memory_mib": middle["peak_memory_mib"],
        }
    return result


def main():
    parser = harness.parser(__doc__, kinds="mariadb,mysql,postgres")
    parser.add_argument("--rows", type=int, default=2_000_000)
    args = parser.parse_args()
    results = []
    for connect in databases.each(args.kinds):
        source = connect()
        try:
            result = measure(source, args)
        finally:
            source.close()
        results.append(result)
        print(f"{result['kind']:9} {result['server'][:24]:24} {result['rows']:,} rows, {result['megabytes']:.0f} MB   raw "
              f"{result['raw_rows_per_second']:,.0f} rows/s, {result['raw_megabytes_per_second']:.0f} MB/s   "
              f"in text {result['raw_text_rows_per_second']:,.0f} rows/s")
        for what in ("load", "resync", "verify"):
            of = result[what]
            print(f"{'':9} {what:8} {of['rows_per_second']:>10,.0f} rows/s {of['megabytes_per_second']:>6.0f} MB/s   to raw {of['to_raw']:.3f}"
                  f"   {of['cpu_seconds_per_million_rows']:.1f} CPU-s per M rows   peak {of['peak_memory_mib']:.0f} MiB")
    harness.write(args.out, results=results)


if __name__ == "__main__":
    main()
