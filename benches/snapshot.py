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

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time

import backlog
from huge_transaction import peak_memory


class MySql(backlog.MySql):
    def count(self):
        return self.scalar("SELECT count(*) FROM events")

    def forget(self):
        """Nothing of lakeward's stays at the server."""

    def raw_command(self):
        client = ["mariadb"]
        if self.kind == "mysql":
            root = os.environ["LAKEWARD_BENCH_MYSQL_ROOT"]
            libraries = f"{root}/usr/lib/x86_64-linux-gnu"
            client = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{root}/usr/bin/mysql"]
        command = client + ["--no-defaults", "--host=127.0.0.1", f"--port={self.port}", "--user=cdc", "--password=cdc", "--quick",
                            "--batch", "--skip-column-names", "-e", f"SELECT * FROM {self.table}"]
        return command + (["--get-server-public-key"] if self.kind == "mysql" else [])


class Postgres(backlog.Postgres):
    def count(self):
        return self.connection.execute("SELECT count(*) FROM events").fetchone()[0]

    def forget(self):
        self.admin_in().execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [self.name])
        publications = self.connection.execute("SELECT pubname FROM pg_publication").fetchall()
        for (name,) in publications:
            self.connection.execute(f'DROP PUBLICATION "{name}"')

    def raw_command(self):
        return ["psql", "-X", "-q", self.url(self.name), "-c", "COPY (SELECT * FROM events) TO STDOUT (FORMAT binary)"]


def timed(command, **options):
    """Seconds, and what the process used."""
    started = time.monotonic()
    process = subprocess.Popen(command, **options)
    peak, status, usage = peak_memory(process)
    if status != 0:
        sys.exit(f"{command} ended with {status}")
    return {"seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_memory_mib": peak}


def raw(source):
    started = time.monotonic()
    reader = subprocess.Popen(source.raw_command(), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    count = subprocess.run(["wc", "-c"], stdin=reader.stdout, stdout=subprocess.PIPE, check=True)
    reader.stdout.close()
    if reader.wait() != 0:
        sys.exit(f"{source.kind}: the raw client ended with {reader.returncode}")
    return time.monotonic() - started, int(count.stdout)


def measure(source, args):
    for first in range(0, args.rows, backlog.TRANSACTIONS * backlog.ROWS):
        source.load(first)
    rows = source.count()
    samples = []
    for number in range(args.rounds):
        folder = tempfile.mkdtemp(prefix="lakeward-bench-", dir=args.folder)
        config = os.path.join(folder, "config.toml")
        with open(os.path.join(folder, "password"), "w") as file:
            file.write("cdc")
        with open(config, "w") as file:
            file.write(f'[lake]\nurl = "lake"\n[[source]]\nname = "bench{number}"\npassword_file = "password"\n{source.source_toml()}')
        raw_seconds, raw_bytes = raw(source)

        def lakeward(*arguments):
            command = [args.lakeward, *arguments, "--config", config, "--log-level", "warn"]
            return timed(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

        samples.append({
            "raw": {"seconds": raw_seconds}, "bytes": raw_bytes,
            "load": lakeward("run", "--until-caught-up"),
            "resync": lakeward("resync", source.table),
            "verify": lakeward("verify", source.table),
        })
        if number == args.rounds - 1:
            compare = subprocess.run([sys.executable, f"{backlog.ROOT}/tests/oracle/compare.py", "--source", source.oracle_url,
                                      "--lake", f"{folder}/lake/bench{number}", "--table", source.table])
            if compare.returncode != 0:
                sys.exit("source and lake differ: the figures mean nothing")
        shutil.rmtree(folder)
        source.forget()
    raw_seconds = statistics.median(sample["raw"]["seconds"] for sample in samples)
    megabytes = samples[0]["bytes"] / 1e6
    result = {"kind": source.kind, "server": source.version, "rows": rows, "megabytes": megabytes, "rounds": args.rounds,
              "samples": samples, "raw_rows_per_second": rows / raw_seconds, "raw_megabytes_per_second": megabytes / raw_seconds}
    for what in ("load", "resync", "verify"):
        middle = {key: statistics.median(sample[what][key] for sample in samples) for key in samples[0][what]}
        result[what] = {
            "rows_per_second": rows / middle["seconds"], "megabytes_per_second": megabytes / middle["seconds"],
            "to_raw": raw_seconds / middle["seconds"], "cpu_seconds_per_million_rows": middle["cpu_seconds"] / rows * 1e6,
            "peak_memory_mib": middle["peak_memory_mib"],
        }
    return result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lakeward", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--kinds", default="mariadb,mysql,postgres")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--rows", type=int, default=2_000_000)
    parser.add_argument("--folder", help="where the lake is made; the system's temporary folder")
    args = parser.parse_args()
    results = []
    for kind in args.kinds.split(","):
        port = os.environ.get(f"LAKEWARD_TEST_{kind.upper()}_PORT")
        if not port:
            print(f"SKIPPED {kind}: no server", file=sys.stderr)
            continue
        source = (Postgres if kind == "postgres" else MySql)(kind, int(port))
        try:
            result = measure(source, args)
        finally:
            source.close()
        results.append(result)
        print(f"{kind:9} {result['server'][:24]:24} {result['rows']:,} rows, {result['megabytes']:.0f} MB   raw "
              f"{result['raw_rows_per_second']:,.0f} rows/s, {result['raw_megabytes_per_second']:.0f} MB/s")
        for what in ("load", "resync", "verify"):
            of = result[what]
            print(f"{'':9} {what:8} {of['rows_per_second']:>10,.0f} rows/s {of['megabytes_per_second']:>6.0f} MB/s   to raw {of['to_raw']:.3f}"
                  f"   {of['cpu_seconds_per_million_rows']:.1f} CPU-s per M rows   peak {of['peak_memory_mib']:.0f} MiB")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release()}
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    with open(args.out, "w") as file:
        json.dump({"machine": machine, "results": results}, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
