#!/usr/bin/env python3
"""ADD COLUMN … DEFAULT on a large table: column splice against writing every row anew.

    add_column.py --lakeward PATH --out benches/results/add_column.json [--rows 5000000] [--rounds 3]

A MariaDB table is loaded into a lake on S3. Then `lakeward run --until-caught-up` runs twice: once with nothing to do, which
is what a start costs (the key index is read), and once after `ALTER TABLE … ADD COLUMN … NOT NULL DEFAULT …`. Printed is
the difference of the two: CPU seconds of the process as the kernel gives them, and bytes to and from the store, counted
by a proxy in front of it. Both ways are the same daemon, by `[lake] column_splice` of config.toml; source and lake are compared in
every column of every row after each.
"""

import shutil
import subprocess
import tempfile

import databases
import harness
import proxy


class Bench(databases.MySql):
    def __init__(self, lakeward, rows, port, s3_port):
        super().__init__("mariadb", port)
        self.lakeward, self.rows, self.s3_port = lakeward, rows, s3_port
        self.proxy = proxy.Proxy(s3_port)

    def fill(self):
        self.run("CREATE TABLE events (id BIGINT PRIMARY KEY, guest INT, room INT, price DECIMAL(12,2),"
                 " note VARCHAR(60), at_time DATETIME(6))")
        step = 100_000
        for first in range(0, self.rows, step):
            last = min(first + step, self.rows) - 1
            self.run("INSERT INTO events SELECT seq, seq * 7919 % 99991, seq % 500, seq * 0.25,"
                     " CONCAT('guest ', MD5(seq)), '2026-01-01' + INTERVAL seq SECOND"
                     f" FROM seq_{first}_to_{last}")

    def catch_up(self, config):
        """One `run --until-caught-up`: seconds of CPU and of the clock, bytes over the proxy."""
        self.proxy.sent = self.proxy.received = 0
        used = harness.timed([self.lakeward, "run", "--until-caught-up", "--config", config, "--log-level", "warn"],
                             stdout=subprocess.DEVNULL)
        return used | {"bytes_sent": self.proxy.sent, "bytes_received": self.proxy.received}

    def measure(self, splice, number):
        folder = tempfile.mkdtemp(prefix="lakeward-bench-")
        lake = f"s3://lake/{self.name}-{number}"
        at_store = proxy.lake_toml(lake, self.proxy.port, column_splice=splice)
        config = harness.configure(folder, self.source_toml(["events"]), lake=at_store)
        load = self.catch_up(config)
        idle = self.catch_up(config)
        self.run("ALTER TABLE events ADD COLUMN tier INT NOT NULL DEFAULT 7")
        change = self.catch_up(config)
        harness.compare(self.oracle_url, f"{lake}/bench", f"{self.name}.events", "--s3-endpoint",
                        f"http://127.0.0.1:{self.s3_port}", "--s3-key", proxy.KEY, "--s3-secret", proxy.KEY)
        self.run("ALTER TABLE events DROP COLUMN tier")
        shutil.rmtree(folder)
        cost = {key: change[key] - idle[key] for key in ("cpu_seconds", "seconds", "bytes_sent", "bytes_received")}
        return {"load": load, "idle": idle, "change": change, "cost": cost}


def main():
    parser = harness.parser(__doc__)
    parser.add_argument("--rows", type=int, default=5_000_000)
    args = parser.parse_args()
    ports = [harness.port(kind) for kind in ("mariadb", "s3")]
    if not all(ports):
        return
    bench = Bench(args.lakeward, args.rows, *ports)
    results = {}
    try:
        bench.fill()
        for number in range(args.rounds):
            for way, splice in (("splice", True), ("rewrite", False)):
                results.setdefault(way, []).append(bench.measure(splice, f"{number}-{way}"))
    finally:
        bench.close()
    middle = {way: harness.medians([sample["cost"] for sample in samples]) for way, samples in results.items()}
    for way, cost in middle.items():
        print(f"{way:8} {cost['cpu_seconds']:8.2f} CPU-s {cost['seconds']:8.2f} s   "
              f"sent {cost['bytes_sent'] / 1e6:8.2f} MB   received {cost['bytes_received'] / 1e6:8.2f} MB")
    harness.write(args.out, rows=args.rows, median_cost=middle, samples=results)


if __name__ == "__main__":
    main()
