#!/usr/bin/env python3
"""Backlog drain, end to end: how fast committed rows of a real server get from its log into Delta tables.

    backlog.py --lakeward PATH --out benches/results/backlog.json [--kinds mariadb,mysql,postgres] [--rounds 3]

Each round commits the same backlog (500 transactions of 1000 six-column rows) while nobody reads the log. Then, on the
same machine and the same backlog, one after the other:

  raw      the server's own tool streams the log to nowhere (mariadb-binlog --raw, mysqlbinlog --raw, pg_recvlogical)
  landed   `lakeward run --until-caught-up`: log to committed Delta table, process start and first connect included

and source and lake are compared in every column of every row. Printed: medians over the rounds and landed/raw, the
ratio that is comparable between machines. Peak memory is the process's VmHWM as the kernel gives it.
"""

import os
import shutil
import subprocess
import tempfile
import time

import harness
import psycopg

TRANSACTIONS = 500
ROWS = 1000
TABLE_SQL = """CREATE TABLE events (id BIGINT PRIMARY KEY, guest INT, room INT, price DECIMAL(12,2),
               note VARCHAR(60), at_time {timestamp})"""


class MySql(harness.MySqlDatabase):
    """MariaDB or MySQL."""

    def __init__(self, kind, port):
        super().__init__(port)
        self.kind, self.version, self.table = kind, self.scalar("SELECT version()"), f"{self.name}.events"
        self.run(TABLE_SQL.format(timestamp="DATETIME(6)"))

    def scalar(self, sql):
        return self.run(sql)[0]

    def source_toml(self):
        return super().source_toml("events", 77001)

    def binlog_status(self):
        return self.run("SHOW MASTER STATUS" if self.kind == "mariadb" else "SHOW BINARY LOG STATUS")[:2]

    def prepare_backlog(self):
        self.run("FLUSH BINARY LOGS")
        self.start = self.binlog_status()

    def insert(self, first):
        sequence = f"(SELECT {first} + a.n * 100 + b.n AS id FROM bench_ten a, bench_hundred b)"
        return (f"INSERT INTO events SELECT id, id % 9973, id % 500, id * 0.25, CONCAT('guest of room ', id % 500, ' 예약'),"
                f" '2026-01-01' + INTERVAL id SECOND FROM {sequence} s")

    def load(self, first):
        self.run("CREATE TABLE IF NOT EXISTS bench_ten (n INT)", "CREATE TABLE IF NOT EXISTS bench_hundred (n INT)")
        if self.scalar("SELECT count(*) FROM bench_ten") == 0:
            self.run("INSERT INTO bench_ten VALUES " + ",".join(f"({n})" for n in range(10)),
                     "INSERT INTO bench_hundred VALUES " + ",".join(f"({n})" for n in range(100)))
        for transaction in range(TRANSACTIONS):
            self.run(self.insert(first + transaction * ROWS))

    def raw(self, folder):
        if self.kind == "mariadb":
            command = ["mariadb-binlog"]
        else:
            root = os.environ["LAKEWARD_BENCH_MYSQL_ROOT"]
            libraries = f"{root}/usr/lib/x86_64-linux-gnu"
            command = [f"{libraries}/ld-linux-x86-64.so.2", "--library-path", libraries, f"{root}/usr/bin/mysqlbinlog"]
        file, _ = self.start
        command += ["--no-defaults", "--read-from-remote-server", "--raw", "--host=127.0.0.1", f"--port={self.port}",
                    "--user=cdc", "--password=cdc", f"--result-file={folder}/raw-", "--to-last-log", file]
        if self.kind == "mysql":
            command.append("--get-server-public-key")
        started = time.monotonic()
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL)
        return time.monotonic() - started


class Postgres:
    def __init__(self, kind, port):
        self.kind, self.port, self.name = kind, port, f"bench_{os.getpid()}"
        admin = psycopg.connect(self.url("postgres"), autocommit=True)
        admin.execute(f"CREATE DATABASE {self.name}")
        admin.execute(f"GRANT CREATE ON DATABASE {self.name} TO cdc")
        self.admin = admin
        self.connection = psycopg.connect(self.url(self.name), autocommit=True)
        self.connection.execute("GRANT CREATE ON SCHEMA public TO cdc")
        self.connection.execute("SET ROLE cdc")
        self.connection.execute(TABLE_SQL.format(timestamp="TIMESTAMP"))
        self.version = self.connection.execute("SHOW server_version").fetchone()[0]
        self.table = "public.events"
        self.oracle_url = self.url(self.name)

    def url(self, database):
        return f"postgres://postgres:postgres@127.0.0.1:{self.port}/{database}"

    def source_toml(self):
        return f'url = "postgres://cdc@127.0.0.1:{self.port}/{self.name}"\ntables = ["public.events"]\nslot = "{self.name}"\n'

    def prepare_backlog(self):
        self.admin_in().execute("SELECT pg_create_logical_replication_slot(%s, 'pgoutput')", [f"{self.name}_raw"])

    def admin_in(self):
        return psycopg.connect(self.url(self.name), autocommit=True)

    def load(self, first):
        for transaction in range(TRANSACTIONS):
            start = first + transaction * ROWS
            self.connection.execute(
                "INSERT INTO events SELECT id, id %% 9973, id %% 500, id * 0.25, 'guest of room ' || id %% 500 || ' 예약',"
                " timestamp '2026-01-01' + id * interval '1 second' FROM generate_series(%s::bigint, %s::bigint) id",
                [start, start + ROWS - 1])

    def raw(self, folder):
        end = self.connection.execute("SELECT pg_current_wal_flush_lsn()").fetchone()[0]
        started = time.monotonic()
        subprocess.run(
            ["pg_recvlogical", "-d", self.url(self.name), "-S", f"{self.name}_raw", "--start", "-f", os.devnull,
             "--endpos", end, "-o", "proto_version=1", "-o", "publication_names=lakeward_bench", "--no-loop"],
            check=True, stderr=subprocess.DEVNULL)
        seconds = time.monotonic() - started
        self.admin_in().execute("SELECT pg_drop_replication_slot(%s)", [f"{self.name}_raw"])
        return seconds

    def close(self):
        self.connection.close()
        self.admin.execute("SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE database = %s", [self.name])
        self.admin.execute(f"DROP DATABASE {self.name} WITH (FORCE)")


def measure(source, lakeward, rounds):
    folder = tempfile.mkdtemp(prefix="lakeward-bench-")
    config = harness.configure(folder, source.source_toml())
    catch_up = [lakeward, "run", "--until-caught-up", "--config", config, "--log-level", "warn"]
    subprocess.run(catch_up, check=True, stdout=subprocess.DEVNULL)
    samples = []
    for number in range(rounds):
        source.prepare_backlog()
        source.load(number * TRANSACTIONS * ROWS)
        raw = source.raw(folder)
        samples.append({"raw_seconds": raw} | harness.timed(catch_up, stdout=subprocess.DEVNULL))
    harness.compare(source.oracle_url, f"{folder}/lake/bench", source.table)
    shutil.rmtree(folder)
    rows = TRANSACTIONS * ROWS
    middle = harness.medians(samples)
    return {"kind": source.kind, "server": source.version, "rows": rows, "rounds": rounds, "samples": samples,
            "raw_rows_per_second": rows / middle["raw_seconds"], "landed_rows_per_second": rows / middle["seconds"],
            "landed_to_raw": middle["raw_seconds"] / middle["seconds"],
            "cpu_seconds_per_million_rows": middle["cpu_seconds"] / rows * 1e6, "peak_memory_mib": middle["peak_memory_mib"]}


def main():
    args = harness.parser(__doc__, kinds="mariadb,mysql,postgres").parse_args()
    results = []
    for kind in args.kinds.split(","):
        port = harness.port(kind)
        if not port:
            continue
        source = (Postgres if kind == "postgres" else MySql)(kind, port)
        try:
            result = measure(source, args.lakeward, args.rounds)
        finally:
            source.close()
        results.append(result)
        print(f"{kind:9} {result['server'][:24]:24} raw {result['raw_rows_per_second']:>10,.0f} rows/s   landed "
              f"{result['landed_rows_per_second']:>9,.0f} rows/s   landed/raw {result['landed_to_raw']:.3f}   "
              f"{result['cpu_seconds_per_million_rows']:.1f} CPU-s per M rows   peak {result['peak_memory_mib']:.0f} MiB")
    harness.write(args.out, transactions=TRANSACTIONS, rows_per_transaction=ROWS, results=results)


if __name__ == "__main__":
    main()
