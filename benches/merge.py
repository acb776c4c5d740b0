#!/usr/bin/env python3
"""What a batch costs in a small and in a large table: 10 000 upserts at a time, beside delta-rs MERGE.

    merge.py --lakeward PATH --out benches/results/merge.json [--rows 1000000,10000000] [--merge-rows-max 10000000] [--rounds 5]

For each size a MariaDB table is loaded, and `lakeward run` follows it. Each round one transaction updates 9 000 rows picked at random
and inserts 1 000; counted are the CPU seconds of the process until the batch is in the table's log, and the seconds from the
commit until then (of which up to one is the commit interval). Then deltalake-py merges the same number of rows into a copy of the
table, on its own. Source and lake are compared in every column of every row at the end. Seeded: every run picks the same rows.
"""

import itertools
import json
import shutil
import subprocess
import sys
import tempfile
import time

import databases
import harness
import workloads

UPDATES, INSERTS = 9_000, 1_000
MERGE = """
import json, os, resource, sys, time
import deltalake, pyarrow, pyarrow.parquet
folder, copy, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3])
sys.path.insert(0, sys.argv[4])
import lake, random
con = lake.connect()
rows = con.execute(f"SELECT * FROM {lake.scan(folder)}").to_arrow_reader(500_000)
deltalake.write_deltalake(copy, rows, mode="overwrite")
table = deltalake.DeltaTable(copy)
count = con.execute(f"SELECT max(id) FROM {lake.scan(folder)}").fetchone()[0]
chance = random.Random(7)
used = lambda: sum(resource.getrusage(resource.RUSAGE_SELF)[:2])
for number in range(rounds):
    ids = chance.sample(range(count), %d) + [count + 1 + number * %d + n for n in range(%d)]
    batch = con.execute(f"SELECT i AS id, 1::INT AS guest, 2::INT AS room, 3::DECIMAL(12,2) AS price, 'x' AS note, TIMESTAMP '2026-01-01' AS at_time "
                        f"FROM (SELECT unnest({ids}) i)").to_arrow_table()
    started, cpu = time.monotonic(), used()
    (table.merge(batch, predicate="t.id = s.id", source_alias="s", target_alias="t", streamed_exec=False)
     .when_matched_update_all().when_not_matched_insert_all().execute())
    print(json.dumps({"cpu_seconds": used() - cpu, "seconds": time.monotonic() - started}), flush=True)
""" % (UPDATES, INSERTS, INSERTS)


class Load(workloads.Updates):
    """The table, and the batches."""

    def __init__(self, rows):
        super().__init__(rows)
        self.next = rows

    def batch(self, source):
        ids = ",".join(map(str, self.chance.sample(range(self.size), UPDATES)))
        inserts = f"SELECT id, 1, 2, 3, 'new', '2026-01-01' FROM {source.numbers(self.next, INSERTS)} s"
        self.next += INSERTS
        source.run("BEGIN", f"UPDATE events SET room = room + 1, price = price + 1 WHERE id IN ({ids})", f"INSERT INTO events {inserts}", "COMMIT")


def measure(source, rows, args):
    workload = Load(rows)
    workload.create(source)
    folder = tempfile.mkdtemp(prefix="lakeward-bench-", dir=args.folder)
    try:
        config = harness.configure(folder, source.source_toml(["events"]), settings="[commit]\ninterval_seconds = 1")
        table = f"{folder}/lake/bench/{source.name}/events"
        arguments = ["--config", config, "--log-level", "warn"]
        load = harness.timed([args.lakeward, "run", "--until-caught-up", *arguments], stdout=subprocess.DEVNULL)
        daemon = subprocess.Popen([args.lakeward, "run", *arguments], stdout=subprocess.DEVNULL)
        batches = []
        # The first one waits for the start, and is not counted.
        for number in range(args.rounds + 1):
            before = harness.batches(table)
            workload.batch(source)
            started, cpu = time.monotonic(), harness.cpu_seconds(daemon.pid)
            while harness.batches(table) == before:
                if daemon.poll() is not None or time.monotonic() - started > 300:
                    sys.exit("lakeward does not follow")
                time.sleep(0.01)
            if number:
                batches.append({"cpu_seconds": harness.cpu_seconds(daemon.pid) - cpu, "seconds": time.monotonic() - started})
        peak = harness.peak_memory(daemon.pid)
        daemon.terminate()
        daemon.wait()
        workload.compare(source, f"{folder}/lake/bench")
        merges = []
        if rows <= args.merge_rows_max:
            command = [sys.executable, "-c", MERGE, table, f"{folder}/copy", str(args.rounds), f"{harness.ROOT}/tests/oracle"]
            printed = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout
            merges = [json.loads(line) for line in printed.splitlines()]
    finally:
        source.close()
        shutil.rmtree(folder, ignore_errors=True)
    return {"rows": rows, "load": load, "peak_memory_mib": peak, "batches": batches, "merges": merges,
            "batch": harness.medians(batches), "merge": harness.medians(merges) if merges else None}


def main():
    parser = harness.parser(__doc__, rounds=5)
    parser.add_argument("--rows", default="1000000,10000000")
    parser.add_argument("--merge-rows-max", type=int, default=10_000_000, help="no delta-rs MERGE into larger tables: memory")
    args = parser.parse_args()
    results = []
    for rows, connect in itertools.product(map(int, args.rows.split(",")), databases.each("mariadb")):
        result = measure(connect(), rows, args)
        results.append(result)
        batch, merge = result["batch"], result["merge"]
        against = f"   delta-rs MERGE {merge['cpu_seconds']:.2f} CPU-s, {merge['cpu_seconds'] / batch['cpu_seconds']:.0f} times as much" if merge else ""
        print(f"{rows:>12,} rows   10 000 upserts {batch['cpu_seconds']:.3f} CPU-s, {batch['cpu_seconds'] / results[0]['batch']['cpu_seconds']:.2f} of the "
              f"smallest   peak {result['peak_memory_mib']:.0f} MiB{against}", flush=True)
    harness.write(args.out, updates=UPDATES, inserts=INSERTS, results=results)


if __name__ == "__main__":
    main()
