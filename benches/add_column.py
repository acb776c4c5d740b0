#!/usr/bin/env python3
"""ADD COLUMN … DEFAULT on a large table: column splice against writing every row anew.

    add_column.py --lakeward PATH --out benches/results/add_column.json [--rows 5000000] [--rounds 3]

A MariaDB table is loaded into a lake on S3. Then `lakeward run --until-caught-up` runs twice: once with nothing to do, which
is what a start costs (the key index is read), and once after `ALTER TABLE … ADD COLUMN … NOT NULL DEFAULT …`. Printed is
the difference of the two: CPU seconds of the process as the kernel gives them, and bytes to and from the store, counted
by a proxy in front of it. Both ways are the same daemon, by `[lake] column_splice` of config.toml; source and lake are compared in
every column of every row after each.
"""

import argparse
import json
import os
import platform
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time

import pymysql

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
KEY = "S3RVER"


class Proxy:
    """Passes bytes on and counts them."""

    def __init__(self, port):
        self.target = ("127.0.0.1", port)
        self.sent = self.received = 0
        self.lock = threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            client, _ = self.listener.accept()
            server = socket.create_connection(self.target)
            threading.Thread(target=self.relay, args=(client, server, "sent"), daemon=True).start()
            threading.Thread(target=self.relay, args=(server, client, "received"), daemon=True).start()

    def relay(self, source, target, counter):
        try:
            while block := source.recv(1 << 18):
                target.sendall(block)
                with self.lock:
                    setattr(self, counter, getattr(self, counter) + len(block))
        except OSError:
            pass
        for end in (source, target):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


class Bench:
    def __init__(self, lakeward, rows, port, s3_port):
        self.lakeward, self.rows, self.port, self.s3_port = lakeward, rows, port, s3_port
        self.name = f"bench_{os.getpid()}"
        self.connection = pymysql.connect(host="127.0.0.1", port=port, user="app", password="app", autocommit=True)
        self.proxy = Proxy(s3_port)

    def sql(self, *statements):
        with self.connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
            return cursor.fetchone()

    def fill(self):
        self.sql(f"DROP DATABASE IF EXISTS {self.name}", f"CREATE DATABASE {self.name}", f"USE {self.name}",
                 "CREATE TABLE events (id BIGINT PRIMARY KEY, guest INT, room INT, price DECIMAL(12,2),"
                 " note VARCHAR(60), at_time DATETIME(6))")
        step = 100_000
        for first in range(0, self.rows, step):
            last = min(first + step, self.rows) - 1
            self.sql("INSERT INTO events SELECT seq, seq * 7919 % 99991, seq % 500, seq * 0.25,"
                     " CONCAT('guest ', MD5(seq)), '2026-01-01' + INTERVAL seq SECOND"
                     f" FROM seq_{first}_to_{last}")

    def run(self, config):
        """One `run --until-caught-up`: seconds of CPU and of the clock, bytes over the proxy."""
        self.proxy.sent = self.proxy.received = 0
        started = time.monotonic()
        process = subprocess.Popen([self.lakeward, "run", "--until-caught-up", "--config", config, "--log-level", "warn"],
                                   stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status != 0:
            sys.exit(f"lakeward ended with {status}")
        return {"cpu_seconds": usage.ru_utime + usage.ru_stime, "seconds": time.monotonic() - started,
                "bytes_sent": self.proxy.sent, "bytes_received": self.proxy.received,
                "peak_memory_mib": usage.ru_maxrss / 1024}

    def measure(self, splice, number):
        folder = tempfile.mkdtemp(prefix="lakeward-bench-")
        lake = f"s3://lake/{self.name}-{number}"
        config = os.path.join(folder, "config.toml")
        with open(os.path.join(folder, "password"), "w") as file:
            file.write("cdc")
        with open(config, "w") as file:
            file.write(f"""[lake]
url = "{lake}"
column_splice = {"true" if splice else "false"}
[lake.storage]
aws_endpoint_url = "http://127.0.0.1:{self.proxy.port}"
aws_allow_http = true
aws_region = "us-east-1"
aws_access_key_id = "{KEY}"
aws_secret_access_key = "{KEY}"
[[source]]
name = "bench"
password_file = "password"
url = "mysql://cdc@127.0.0.1:{self.port}"
tables = ["{self.name}.events"]
server_id = 77002
""")
        load = self.run(config)
        idle = self.run(config)
        self.sql("ALTER TABLE events ADD COLUMN tier INT NOT NULL DEFAULT 7")
        change = self.run(config)
        compare = subprocess.run(
            [sys.executable, f"{ROOT}/tests/oracle/compare.py", "--source", f"mysql://app:app@127.0.0.1:{self.port}/",
             "--lake", f"{lake}/bench", "--table", f"{self.name}.events", "--s3-endpoint",
             f"http://127.0.0.1:{self.s3_port}", "--s3-key", KEY, "--s3-secret", KEY])
        if compare.returncode != 0:
            sys.exit("source and lake differ: the figures mean nothing")
        self.sql("ALTER TABLE events DROP COLUMN tier")
        shutil.rmtree(folder)
        cost = {key: change[key] - idle[key] for key in ("cpu_seconds", "seconds", "bytes_sent", "bytes_received")}
        return {"load": load, "idle": idle, "change": change, "cost": cost}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--lakeward", required=True)
    parser.add_argument("--out", required=True)
    parser.add_argument("--rows", type=int, default=5_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    ports = [os.environ.get(f"LAKEWARD_TEST_{kind}_PORT") for kind in ("MARIADB", "S3")]
    if not all(ports):
        print("SKIPPED add_column: needs MariaDB and S3", file=sys.stderr)
        return
    bench = Bench(args.lakeward, args.rows, *map(int, ports))
    results = {}
    try:
        bench.fill()
        for number in range(args.rounds):
            for way, splice in (("splice", True), ("rewrite", False)):
                results.setdefault(way, []).append(bench.measure(splice, f"{number}-{way}"))
    finally:
        bench.sql(f"DROP DATABASE IF EXISTS {bench.name}")
    middle = {way: {key: statistics.median(sample["cost"][key] for sample in samples) for key in samples[0]["cost"]}
              for way, samples in results.items()}
    for way, cost in middle.items():
        print(f"{way:8} {cost['cpu_seconds']:8.2f} CPU-s {cost['seconds']:8.2f} s   "
              f"sent {cost['bytes_sent'] / 1e6:8.2f} MB   received {cost['bytes_received'] / 1e6:8.2f} MB")
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release()}
    os.makedirs(os.path.dirname(args.out), exist_ok=True)
    with open(args.out, "w") as file:
        json.dump({"machine": machine, "rows": args.rows, "median_cost": middle, "samples": results}, file, indent=2)
        file.write("\n")


if __name__ == "__main__":
    main()
