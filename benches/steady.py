#!/usr/bin/env python3
"""A steady load: how old the newest rows of the lake are, what a commit asks of the store, and what doing nothing costs.

    steady.py --lakeward PATH --out benches/results/steady.json [--seconds 60] [--changes 5000] [--interval 5] [--tables 64]

  fresh    MariaDB, --changes row changes a second (half inserts, half updates, transactions of 50); every change carries the moment it
           was made. A reader sees each commit of the Delta log when it is there, reads its file, and takes the age of every row.
  store    the same load into a lake on S3, by way of a proxy that counts requests: those of the table by its commits (compactions are
           among them), those of the source's ledger by minute
  idle     --tables tables, of which none changes: CPU and memory of the process over half the time
"""

import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import time

import databases
import harness
import proxy
import pyarrow.parquet

PER_TRANSACTION = 50


class Writer(threading.Thread):
    """Keeps to the pace; when it falls behind, it catches up."""

    def __init__(self, source, changes, seconds, table):
        super().__init__(daemon=True)
        self.connection, self.changes, self.seconds, self.table = source.connect(), changes, seconds, table
        self.connection.select_db(source.name)
        self.made = 0

    def run(self):
        started, number = time.monotonic(), 0
        pause = PER_TRANSACTION / self.changes
        with self.connection.cursor() as cursor:
            while time.monotonic() - started < self.seconds:
                now, first = time.time_ns() // 1000, number * PER_TRANSACTION
                # The ones before the last are updated.
                ids = range(first, first + PER_TRANSACTION // 2)
                old = range(first - PER_TRANSACTION * 20, first - PER_TRANSACTION * 20 + PER_TRANSACTION // 2)
                rows = ",".join(f"({n},{n % 9973},'note {n}',{now})" for n in [*ids, *(n for n in old if n >= 0)])
                cursor.execute(f"INSERT INTO {self.table} VALUES {rows} ON DUPLICATE KEY UPDATE made = VALUES(made)")
                number += 1
                self.made += PER_TRANSACTION if old[0] >= 0 else PER_TRANSACTION // 2
                time.sleep(max(0.0, started + number * pause - time.monotonic()))


def start(args, source, folder, lake='url = "lake"'):
    config = harness.configure(folder, source.source_toml(["*"]), lake=lake, settings=f"[commit]\ninterval_seconds = {args.interval}")
    arguments = ["--config", config, "--log-level", "warn"]
    subprocess.run([args.lakeward, "run", "--until-caught-up", *arguments], check=True, stdout=subprocess.DEVNULL)
    daemon = subprocess.Popen([args.lakeward, "run", *arguments], stdout=subprocess.DEVNULL)
    time.sleep(2)
    return daemon, arguments


def stop(daemon):
    daemon.terminate()
    if daemon.wait() != 0:
        sys.exit(f"lakeward ended with {daemon.returncode}")


def fresh(args, source, folder):
    source.run("CREATE TABLE steady (id BIGINT PRIMARY KEY, guest INT, note VARCHAR(40), made BIGINT)")
    daemon, _ = start(args, source, folder)
    table = f"{folder}/lake/bench/{source.name}/steady"
    version = max(int(name[:20]) for name in os.listdir(f"{table}/_delta_log") if name.endswith(".json")) + 1
    cpu = harness.cpu_seconds(daemon.pid)
    writer = Writer(source, args.changes, args.seconds, "steady")
    writer.start()
    started, ages, commits = time.monotonic(), [], 0
    while writer.is_alive() or time.monotonic() - started < args.seconds + 3 * args.interval:
        entry = harness.log_entry(table, version)
        if entry is None:
            time.sleep(0.01)
            continue
        seen = time.time_ns() // 1000
        adds = [action["add"] for action in entry if "add" in action]
        # A compaction brings nothing new, and a file that lost rows has been seen.
        new = [add["path"] for add in adds if add["dataChange"] and "deletionVector" not in add]
        version, commits = version + 1, commits + bool(new)
        for path in new:
            ages += [(seen - made) / 1e6 for made in pyarrow.parquet.read_table(f"{table}/{path}", columns=["made"])["made"].to_pylist()]
    cpu = harness.cpu_seconds(daemon.pid) - cpu
    peak = harness.peak_memory(daemon.pid)
    stop(daemon)
    source.compare(f"{folder}/lake/bench", "steady")
    ages.sort()
    return {"changes_per_second": writer.made / args.seconds, "rows_seen": len(ages), "commits": commits, "peak_memory_mib": peak,
            "cpu_share_of_a_core": cpu / args.seconds,
            **{f"p{share}_seconds": ages[min(len(ages) - 1, len(ages) * share // 100)] for share in (50, 99)}}


def store(args, source, folder, port):
    counting = proxy.Proxy(port)
    source.run("CREATE TABLE steady (id BIGINT PRIMARY KEY, guest INT, note VARCHAR(40), made BIGINT)")
    daemon, arguments = start(args, source, folder, lake=proxy.lake_toml(f"s3://lake/{source.name}", counting.port))

    def version():
        told = subprocess.run([args.lakeward, "tables", "--json", *arguments], check=True, stdout=subprocess.PIPE).stdout
        return json.loads(told)[0]["version"]

    before = version()
    counting.requests.clear()
    writer = Writer(source, args.changes, args.seconds, "steady")
    writer.start()
    writer.join()
    time.sleep(2 * args.interval)
    requests = dict(counting.requests)
    commits = version() - before
    stop(daemon)
    of = {room: {billed: count for (where, billed), count in requests.items() if where == room} for room in ("table", "ledger")}
    seconds = args.seconds + 2 * args.interval
    return {"commits": commits, "requests": of, "table_requests_per_commit": {billed: count / commits for billed, count in of["table"].items()},
            "ledger_requests_per_minute": {billed: count * 60 / seconds for billed, count in of["ledger"].items()}}


def idle(args, source, folder):
    source.run(*(f"CREATE TABLE idle_{n} (id BIGINT PRIMARY KEY, note VARCHAR(40))" for n in range(args.tables)),
               *(f"INSERT INTO idle_{n} VALUES (1, 'a'), (2, 'b')" for n in range(args.tables)))
    daemon, _ = start(args, source, folder)
    time.sleep(5)
    cpu, seconds = harness.cpu_seconds(daemon.pid), args.seconds / 2
    time.sleep(seconds)
    result = {"tables": args.tables, "cpu_share_of_a_core": (harness.cpu_seconds(daemon.pid) - cpu) / seconds,
              "peak_memory_mib": harness.peak_memory(daemon.pid)}
    stop(daemon)
    return result


def main():
    parser = harness.parser(__doc__, rounds=None)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("--changes", type=int, default=5_000)
    parser.add_argument("--interval", type=int, default=5)
    parser.add_argument("--tables", type=int, default=64)
    args = parser.parse_args()
    port, s3_port = harness.port("mariadb"), harness.port("s3")
    results = {}
    for name, run in (("fresh", fresh), ("store", lambda *rest: store(*rest, s3_port)), ("idle", idle)):
        if not port or (name == "store" and not s3_port):
            continue
        source = databases.MySql("mariadb", port)
        folder = tempfile.mkdtemp(prefix="lakeward-bench-", dir=args.folder)
        try:
            results[name] = run(args, source, folder)
        finally:
            source.close()
            shutil.rmtree(folder, ignore_errors=True)
        told = (f"{key.replace('_', ' ')} {value:,.3f}" if isinstance(value, float) else f"{key.replace('_', ' ')} {value}" for key, value in results[name].items())
        print(f"{name:6} " + "   ".join(told), flush=True)
    load = {name: getattr(args, name) for name in ("seconds", "changes", "interval", "tables")}
    harness.write(args.out, load=load, results=results)


if __name__ == "__main__":
    main()
