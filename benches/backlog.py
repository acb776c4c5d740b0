#!/usr/bin/env python3
"""Backlog drain, end to end: how fast committed rows of a real server get from its log into Delta tables.

    backlog.py --lakeward PATH --out benches/results/backlog.json [--kinds mariadb,mysql,postgres] [--workloads inserts,updates,mix]
               [--rounds 3] [--table-rows 10000000]

Each round commits the same backlog while nobody reads the log (what it is made of: workloads.py). Then, on the same machine and the
same backlog, one after the other:

  raw      the server's own tool streams the log to nowhere (mariadb-binlog --raw, mysqlbinlog --raw, pg_recvlogical)
  landed   `lakeward run --until-caught-up`: log to committed Delta tables, process start and first connect included

and source and lake are compared in every column of every row. Printed: medians over the rounds and landed/raw, the
ratio that is comparable between machines. Compaction is off here; merge.py and steady.py have it. Peak memory is the process's VmHWM as the kernel gives it.
"""

import shutil
import subprocess
import tempfile

import databases
import harness
import workloads


def measure(source, name, workload, args):
    folder = tempfile.mkdtemp(prefix="lakeward-bench-", dir=args.folder)
    workload.create(source)
    # Beside the commits of a run that ends by itself a compaction would come by chance.
    config = harness.configure(folder, source.source_toml(workload.tables), settings="[maintenance]\ncompact = false")
    catch_up = [args.lakeward, "run", "--until-caught-up", "--config", config, "--log-level", "warn"]
    load = harness.timed(catch_up, stdout=subprocess.DEVNULL)
    samples = []
    for _ in range(args.rounds):
        source.prepare_backlog()
        rows = workload.backlog(source)
        raw = source.raw_backlog(folder)
        used = harness.timed(catch_up, stdout=subprocess.DEVNULL)
        samples.append({
            "rows": rows, **used, "raw_rows_per_second": rows / raw, "landed_rows_per_second": rows / used["seconds"],
            "landed_to_raw": raw / used["seconds"], "cpu_seconds_per_million_rows": used["cpu_seconds"] / rows * 1e6,
        })
    workload.compare(source, f"{folder}/lake/bench")
    shutil.rmtree(folder)
    return {"kind": source.kind, "server": source.version, "workload": name, "load": load, "samples": samples} | harness.medians(samples)


def main():
    parser = harness.parser(__doc__, kinds="mariadb,mysql,postgres")
    parser.add_argument("--workloads", default="inserts,updates,mix")
    parser.add_argument("--table-rows", type=int, default=10_000_000, help="of the table that `updates` works on")
    args = parser.parse_args()
    make = {"inserts": workloads.Inserts, "updates": lambda: workloads.Updates(args.table_rows), "mix": workloads.Mix}
    results = []
    for connect in databases.each(args.kinds):
        for name in args.workloads.split(","):
            source = connect()
            try:
                result = measure(source, name, make[name](), args)
            finally:
                source.close()
            results.append(result)
            print(f"{result['kind']:9} {result['server'][:16]:16} {name:8} raw {result['raw_rows_per_second']:>10,.0f} rows/s   landed "
                  f"{result['landed_rows_per_second']:>9,.0f} rows/s   landed/raw {result['landed_to_raw']:.3f}   "
                  f"{result['cpu_seconds_per_million_rows']:.1f} CPU-s per M rows   peak {result['peak_memory_mib']:.0f} MiB", flush=True)
    harness.write(args.out, table_rows=args.table_rows, results=results)


if __name__ == "__main__":
    main()
