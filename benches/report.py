#!/usr/bin/env python3
"""What was measured, told to readers: docs/performance.md, its plots, and a section of README.md, from the files of `make bench`.

    report.py benches/results [--root PATH]

The folder has one file for each measurement, as harness.write makes them. Everything is made anew, the section of the README between its
two markers; the same files give the same bytes. A measurement without file or results is told as not measured. The figures
are told as they are, and marked where they miss what was asked for.
"""

import argparse
import json
import math
import os
import re
import sys

import harness
import plots

MEASUREMENTS = ["backlog", "snapshot", "merge", "steady", "add_column", "huge_transaction"]
SERVERS = {"mariadb": "MariaDB", "mysql": "MySQL", "postgres": "PostgreSQL"}
# Of the measurements that have several.
SERVERS_OF = {"backlog": ["mariadb", "mysql", "postgres"], "snapshot": ["mariadb", "mysql", "postgres"], "huge_transaction": ["mariadb", "postgres"]}
RAW_TOOLS = {"mariadb": "mariadb-binlog --raw", "mysql": "mysqlbinlog --raw", "postgres": "pg_recvlogical"}
WORKLOADS = ["inserts", "updates", "mix"]
LOADS = ["load", "resync", "verify"]
MARKERS = "<!-- performance:begin -->", "<!-- performance:end -->"
# Default of config.toml; only huge_transaction says its own.
BUDGET_MIB = 512
NOT_MEASURED = "not measured"


def read(folder):
    """By name; empty where there is no file."""
    results = {}
    for name in MEASUREMENTS:
        path = os.path.join(folder, f"{name}.json")
        try:
            with open(path) as file:
                results[name] = json.load(file)
        except FileNotFoundError:
            results[name] = {}
        except ValueError as error:
            sys.exit(f"{path}: {error}")
    return results


# --- words and figures -----------------------------------------------------------------------------------------------


def count(number):
    """Thousands apart, by spaces at which no line breaks."""
    return f"{number:,.0f}".replace(",", "\N{NO-BREAK SPACE}")


def figure(value):
    """Three digits that count, and no more than two decimals: finer than that nothing is measured."""
    decimals = min(2, 2 - math.floor(math.log10(abs(value)))) if value else 0
    # Not minus zero.
    value = round(value, decimals) + 0.0
    return count(value) if decimals <= 0 else f"{value:.{decimals}f}"


def percent(share):
    return f"{figure(share * 100)} %"


def millions(rows):
    return f"{rows / 1e6:g} M"


def server(result):
    return SERVERS[result["kind"]]


def judged(text, reached):
    return text if reached else f"{text} (**missed**)"


def listed(parts, between="; "):
    return between.join(parts) or NOT_MEASURED


def table(heads, rows):
    lines = [" | ".join(map(str, row)) for row in rows]
    return "\n".join([f"| {' | '.join(heads)} |", "|--" * len(heads) + "|", *(f"| {line} |" for line in lines)]) if lines else "Not measured."


# --- what had to be reached ------------------------------------------------------------------------------------------


def backlogs(results, *workloads):
    return [result for result in results["backlog"].get("results", []) if result["workload"] in workloads]


def by_size(results):
    return sorted(results["merge"].get("results", []), key=lambda result: result["rows"])


def drained(results, workload, kinds, rows_per_second):
    found = {result["kind"]: result for result in backlogs(results, workload)}
    told = []
    for kind in kinds:
        if result := found.get(kind):
            landed = result["landed_rows_per_second"]
            told.append(judged(f"{SERVERS[kind]} {figure(landed)} rows/s", landed >= rows_per_second) + f", raw {figure(result['raw_rows_per_second'])}")
        else:
            told.append(f"{SERVERS[kind]} {NOT_MEASURED}")
    return listed(told)


def updates(results):
    told = drained(results, "updates", SERVERS, 100_000)
    return f"{told}; table of {millions(results['backlog']['table_rows'])} rows" if backlogs(results, "updates") else told


def postgres_backlog(results):
    found = {result["workload"]: result["landed_to_raw"] for result in backlogs(results, *WORKLOADS) if result["kind"] == "postgres"}
    return listed([judged(f"{name} {percent(found[name])}", found[name] >= 0.8) if name in found else f"{name} {NOT_MEASURED}" for name in WORKLOADS])


def growth(results):
    sizes = by_size(results)
    if len(sizes) < 2:
        return NOT_MEASURED
    small, large = sizes[0], sizes[-1]
    times = large["batch"]["cpu_seconds"] / small["batch"]["cpu_seconds"]
    return judged(f"{figure(times)}×", times <= 2) + f", {millions(large['rows'])} rows vs {millions(small['rows'])} rows"


def against_merge(results):
    merged = [result for result in by_size(results) if result["merge"]]
    if not merged:
        return NOT_MEASURED
    large = merged[-1]
    times = large["merge"]["cpu_seconds"] / large["batch"]["cpu_seconds"]
    return judged(f"{figure(times)}× less", times >= 100) + f", into {millions(large['rows'])} rows"


def peaks(results):
    """(measurement, MiB, where) of every process that had the default budget: of each round, not their medians."""
    for result in backlogs(results, *WORKLOADS):
        yield "backlog", result["load"]["peak_memory_mib"], f"{server(result)}, load before {result['workload']}"
        for sample in result["samples"]:
            yield "backlog", sample["peak_memory_mib"], f"{server(result)}, {result['workload']}"
    for result in results["snapshot"].get("results", []):
        for sample in result["samples"]:
            for what in LOADS:
                yield "snapshot", sample[what]["peak_memory_mib"], f"{server(result)}, {what}"
    for result in by_size(results):
        yield "merge", result["load"]["peak_memory_mib"], f"load of {millions(result['rows'])} rows"
        yield "merge", result["peak_memory_mib"], f"batches into {millions(result['rows'])} rows"
    for what in ("fresh", "idle"):
        if result := results["steady"].get("results", {}).get(what):
            yield "steady", result["peak_memory_mib"], what
    for way, samples in results["add_column"].get("samples", {}).items():
        for sample in samples:
            for what in ("load", "idle", "change"):
                yield "add_column", sample[what]["peak_memory_mib"], f"{way}, {what}"
    for result in results["huge_transaction"].get("results", []):
        if result["budget_mib"] == BUDGET_MIB:
            yield "huge_transaction", result["peak_memory_mib"], f"{server(result)}, {result['transaction']}"


def highest_peak(results):
    name, peak, where = max(peaks(results), key=lambda found: found[1], default=(None, 0, None))
    return judged(f"{count(peak)} MiB", peak <= 768) + f" ({name}: {where})" if name else NOT_MEASURED


def requests(results):
    store = results["steady"].get("results", {}).get("store")
    if not store:
        return NOT_MEASURED
    def by_kind(counts):
        return listed([f"{kind} {figure(number)}" for kind, number in sorted(counts.items(), key=lambda item: (-item[1], item[0]))], ", ")

    of_table = store["table_requests_per_commit"]
    total = sum(of_table.values())
    return judged(figure(total), total <= 4) + f": {by_kind(of_table)}; for the source, each minute: {by_kind(store['ledger_requests_per_minute'])}"


def freshness(results):
    fresh = results["steady"].get("results", {}).get("fresh")
    if not fresh:
        return NOT_MEASURED
    load = f", at {figure(fresh['changes_per_second'])} changes/s, {results['steady']['load']['interval']} s interval"
    return judged(f"{figure(fresh['p99_seconds'])} s", fresh["p99_seconds"] <= 10) + load


def idle(results):
    daemon = results["steady"].get("results", {}).get("idle")
    if not daemon:
        return NOT_MEASURED
    cpu, peak = daemon["cpu_share_of_a_core"], daemon["peak_memory_mib"]
    return f"{judged(f'{percent(cpu)} of a core', cpu < 0.01)}, {judged(f'{count(peak)} MiB', peak < 150)}, {daemon['tables']} tables"


def must_table(results):
    inserts = drained(results, "inserts", ["mariadb", "mysql"], 200_000)
    return table(["workload", "measured", "aim"], [
        ["MySQL, MariaDB: backlog of inserts (6 columns), landed", inserts, "at least 200 000 rows/s, better 600 000"],
        ["PostgreSQL: backlog landed, of what `pg_recvlogical` reads", postgres_backlog(results), "at least 80 %, better 95 %"],
        ["backlog of updates into a 10 M-row table, landed", updates(results), "at least 100 000 rows/s, better 400 000"],
        ["CPU of a 10 000-upsert batch, 50 M rows vs 1 M rows", growth(results), "at most 2×, better 1.2×"],
        ["CPU of 10 000 upserts, delta-rs MERGE vs lakeward, 5 M rows", against_merge(results), "at least 100× less, better 400×"],
        [f"highest memory of any workload, budget of {BUDGET_MIB} MiB", highest_peak(results), "at most 768 MiB, better within the budget"],
        ["requests to S3 per commit of a table", requests(results), "at most 4, better 3 PUT and no LIST"],
        ["age of new rows when they can be read (p99), 5 000 changes/s, 5 s interval", freshness(results), "at most 10 s, better 6 s"],
        ["daemon with nothing to do, 64 tables", idle(results), "under 1 % of a core, under 150 MiB"],
    ])


# --- the page --------------------------------------------------------------------------------------------------------


def machine(result):
    of = result["machine"]
    return f"{of['cpus']} CPUs ({of['machine']}), kernel {of['kernel']}, {of.get('date', 'date not recorded')}"


def machines(results):
    """Of all measurements; one, if all is well."""
    return listed(dict.fromkeys(machine(result) for result in results.values() if result))


def servers(name, result):
    """With their versions; the measurements of one server do not say its."""
    if name not in SERVERS_OF:
        return "MariaDB"
    versions = {of["kind"]: re.match(r"[0-9.]*", of["server"])[0] for of in result["results"]}
    return listed([f"{SERVERS[kind]} {versions.get(kind, NOT_MEASURED)}" for kind in SERVERS_OF[name]], ", ")


def measured_on(results):
    return table(["measurement", "machine", "servers"], [
        [f"`{name}`", machine(result), servers(name, result)] if result else [f"`{name}`", NOT_MEASURED, ""] for name, result in results.items()])


def backlog_table(results):
    return table(["server", "backlog", "rows", "rounds", "raw, rows/s", "landed, rows/s", "landed / raw", "CPU-s per M rows", "memory, MiB"], [
        [server(of), of["workload"], count(of["rows"]), len(of["samples"]), figure(of["raw_rows_per_second"]), figure(of["landed_rows_per_second"]),
         percent(of["landed_to_raw"]), figure(of["cpu_seconds_per_million_rows"]), count(of["peak_memory_mib"])]
        for of in backlogs(results, *WORKLOADS)])


def snapshot_table(results):
    rows = []
    for of in results["snapshot"].get("results", []):
        about = [server(of), f"{millions(of['rows'])} rows, {count(of['megabytes'])} MB, {of['rounds']} rounds"]
        rows.append([*about, "raw", figure(of["raw_rows_per_second"]), figure(of["raw_megabytes_per_second"]), percent(1), "", ""])
        if of["kind"] == "postgres":
            text = of["raw_text_rows_per_second"]
            rows.append(["", "", "raw, in text", figure(text), "", percent(text / of["raw_rows_per_second"]), "", ""])
        rows += [["", "", what, figure(of[what]["rows_per_second"]), figure(of[what]["megabytes_per_second"]), percent(of[what]["to_raw"]),
                  figure(of[what]["cpu_seconds_per_million_rows"]), count(of[what]["peak_memory_mib"])] for what in LOADS]
    return table(["server", "table", "what", "rows/s", "MB/s", "of raw", "CPU-s per M rows", "memory, MiB"], rows)


def merge_table(results):
    rows = []
    for of in by_size(results):
        merge, batch = of["merge"], of["batch"]
        rows.append([f"{millions(of['rows'])} rows", len(of["batches"]), figure(batch["cpu_seconds"]), figure(batch["seconds"]),
                     count(of["peak_memory_mib"])])
        rows[-1] += ([figure(merge["cpu_seconds"]), figure(merge["seconds"]), f"{figure(merge['cpu_seconds'] / batch['cpu_seconds'])}×"] if merge
                     else [NOT_MEASURED, "", ""])
    return table(["table", "rounds", "lakeward, CPU-s", "commit to lake, s", "memory, MiB", "MERGE, CPU-s", "MERGE, s", "MERGE / lakeward, CPU"], rows)


def steady_table(results):
    found = results["steady"].get("results", {})
    rows = []
    if fresh := found.get("fresh"):
        rows += [["changes made", f"{figure(fresh['changes_per_second'])} a second"],
                 ["age of new rows when they can be read, p50", f"{figure(fresh['p50_seconds'])} s"],
                 ["age of new rows when they can be read, p99", f"{figure(fresh['p99_seconds'])} s"],
                 ["commits, rows seen", f"{count(fresh['commits'])}, {count(fresh['rows_seen'])}"],
                 ["CPU, memory under this load", f"{percent(fresh['cpu_share_of_a_core'])} of a core, {count(fresh['peak_memory_mib'])} MiB"]]
    else:
        rows.append(["age of new rows when they can be read", NOT_MEASURED])
    told = f", over {count(found['store']['commits'])} commits" if "store" in found else ""
    rows.append(["requests to S3 per commit", requests(results) + told])
    rows.append(["nothing to do", idle(results)])
    return table(["what", "measured"], rows)


def add_column_table(results):
    return table(["way", "CPU-s", "seconds", "sent, MB", "received, MB"], [
        [way, figure(cost["cpu_seconds"]), figure(cost["seconds"]), figure(cost["bytes_sent"] / 1e6), figure(cost["bytes_received"] / 1e6)]
        for way, cost in results["add_column"].get("median_cost", {}).items()])


def huge_transaction_table(results):
    heads = ["server", "transaction", "rows", "MiB", "seconds", "CPU-s", "memory, MiB", "budget + stated overhead, MiB", "commits",
             "content", "files left"]
    return table(heads, [
        [server(of), of["transaction"], count(of["rows"]), count(of["bytes"] / 2**20), figure(of["seconds"]), figure(of["cpu_seconds"]),
         judged(count(of["peak_memory_mib"]), of["within"]), f"{count(of['budget_mib'])} + {count(of['stated_overhead_mib'])}",
         judged(of["commits"], of["commits"] == 1), judged("equal" if of["equal"] else "different", of["equal"]),
         judged(of["left_on_disk"], not of["left_on_disk"])]
        for of in results["huge_transaction"].get("results", [])])


def peak_table(results):
    rows = []
    for name in MEASUREMENTS:
        found = [(peak, where) for of, peak, where in peaks(results) if of == name]
        peak, where = max(found, key=lambda found: found[0], default=(None, ""))
        rows.append([f"`{name}`", NOT_MEASURED if peak is None else count(peak), where])
    return table(["measurement", "MiB", "of"], rows)


def page(results, alts):
    merge = results["merge"]
    batch = f"{count(merge['updates'])} updates and {count(merge['inserts'])} inserts" if merge else "10 000 upserts"
    load = results["steady"].get("load")
    steady = f" Here: {count(load['changes'])} changes a second for {load['seconds']} s, commits every {load['interval']} s." if load else ""
    rows = results["add_column"].get("rows")
    evolved = f"{millions(rows)} rows" if rows else "a large table"
    size = f" ({millions(results['backlog']['table_rows'])} rows)" if results["backlog"] else ""
    image = {name: f"![{alt}](performance/{name}.svg)\n\n" for name, alt in alts.items()}
    return f"""# Performance

<!-- Made by benches/report.py from benches/results; what is edited here is lost. -->

`make bench` measures the release build, end to end, on real servers. This page has all of its figures.

## What was to be reached

{must_table(results)}

## How it was measured, and on what

{measured_on(results)}

- Servers, store, lakeward and the readers share this one machine, and so its CPUs.
- Rows a second are those of the machine. So the same run measures its ceiling: the server's own tool reads the same log
  ({", ".join(f"`{tool}`" for tool in RAW_TOOLS.values())}), or its own client the same table, to nowhere. The ratio is what can be compared
  between machines.
- Figures are medians where a table has rounds; the others are of one run. Seconds and CPU are those of a whole process, its start and
  first connect included; where a daemon is measured, the text says from when to when. Memory is the process's peak (VmHWM) as the kernel gives it.
- After each measurement an independent reader, DuckDB, compares source and lake: every column of every row, or for the largest tables
  the count, the bytes, and the sum of every row's MD5. A measurement that finds a difference gives no figures; only a huge
  transaction's is told in its table.
- A figure that misses what was asked for is marked.

## Backlogs

Half a million row changes are committed while nobody reads the log; then they are read by the server's tool (raw) and by
`lakeward run --until-caught-up` (landed: in committed Delta tables). *inserts*: six columns, 1000 rows a transaction. *updates*: 1000 rows
picked at random a transaction, in a large table{size}. *mix*: small transactions on seven tables, in the proportions of TPC-C's.

{image.get("backlog", "")}{backlog_table(results)}

## Loads, resyncs, verifications

Raw is the server's own client that reads the whole table to nowhere: PostgreSQL `COPY` in binary form, the others a `SELECT` in the text
protocol. lakeward reads PostgreSQL in text ([why](decisions/014-copy-in-text.md)).

{image.get("snapshot", "")}{snapshot_table(results)}

## A batch in small and in large tables

One MariaDB transaction of {batch} at a time, picked at random, followed by a running daemon; beside it deltalake-py
merges as many rows into a copy of the same table. The daemon's CPU is counted from the transaction's commit until the batch is in the
table's log (*commit to lake*, of which up to one second is the commit interval), in the kernel's steps of 10 ms.

{image.get("merge", "")}{merge_table(results)}

## A steady load

MariaDB; every change carries the moment when it was made.{steady}
CPU is counted while the load runs. Requests are all that the process sent while the same load ran into a lake on S3: those about the
table, compactions among them, for each of its commits; those about the source's ledger and lease for each minute.

{steady_table(results)}

## A new column with a default

`ALTER TABLE … ADD COLUMN … NOT NULL DEFAULT …` on {evolved}, by column splice and by writing every row anew: what it
costs beyond a start that has nothing to do.

{add_column_table(results)}

## Transactions larger than memory

{huge_transaction_table(results)}

## Memory

The highest of any process and round with the default budget of {BUDGET_MIB} MiB.

{peak_table(results)}
"""


def section(results, alts):
    """Of the README."""
    images = [f"![{alts[name]}](docs/performance/{name}.svg)" for name in ("backlog", "merge") if name in alts]
    return "\n\n".join([
        f"Measured by `make bench`, with all servers on the same machine: {machines(results)}. How, and all other figures:\n"
        "[docs/performance.md](docs/performance.md).",
        must_table(results), *images])


def replace_section(path, text):
    with open(path) as file:
        readme = file.read()
    for marker in MARKERS:
        if readme.count(marker) != 1:
            sys.exit(f"{path}: needs the line {marker} once, has it {readme.count(marker)} times")
    before, _, rest = readme.partition(MARKERS[0])
    _, end, after = rest.partition(MARKERS[1])
    if not end:
        sys.exit(f"{path}: {MARKERS[1]} comes before {MARKERS[0]}")
    with open(path, "w") as file:
        file.write(f"{before}{MARKERS[0]}\n{text}\n{end}{after}")


# --- plots -----------------------------------------------------------------------------------------------------------

def backlog_plot(results, path):
    panels, told = {}, []
    for of in backlogs(results, *WORKLOADS):
        raw, landed = of["raw_rows_per_second"], of["landed_rows_per_second"]
        panels.setdefault(server(of), []).extend([(f"{of['workload']}, raw", raw, plots.RAW), (f"{of['workload']}, landed", landed, plots.OURS)])
        told.append(f"{server(of)} {of['workload']} {figure(raw)} raw, {figure(landed)} landed")
    if panels:
        plots.bars(path, "Backlog: raw log, landed in Delta", "row changes/s", panels, figure)
    return told and f"Bars: row changes a second of a backlog, read raw by the server's own tool and landed in Delta tables. {listed(told)}."


def snapshot_plot(results, path):
    panels, told = {}, []
    for of in results["snapshot"].get("results", []):
        rates = {"raw": of["raw_rows_per_second"]} | {what: of[what]["rows_per_second"] for what in LOADS}
        panels[server(of)] = [(what, rate, plots.RAW if what == "raw" else plots.OURS) for what, rate in rates.items()]
        told.append(f"{server(of)} {listed([f'{what} {figure(rate)}' for what, rate in rates.items()], ', ')}")
    if panels:
        plots.bars(path, "A whole table: read raw, loaded, verified", "rows/s", panels, figure)
    return told and f"Bars: rows a second of a whole table, read raw by the server's own client, loaded, resynced and verified. {listed(told)}."


def merge_plot(results, path):
    curves, told = [], []
    for what, name, colour in (("batch", "lakeward", plots.OURS), ("merge", "delta-rs MERGE", plots.THEIRS)):
        points = [(of["rows"], of[what]["cpu_seconds"]) for of in by_size(results) if of[what]]
        curves += [(name, colour, points)] if points else []
        told += [f"{name}, {millions(rows)} rows: {figure(seconds)}" for rows, seconds in points]
    if curves:
        title = f"CPU of a batch of {count(10_000)} upserts"
        plots.lines(path, title, "rows in the table", "CPU seconds", curves, millions, figure)
    return told and f"Lines, both scales logarithmic: CPU seconds of a batch of 10 000 upserts by size of the table. {listed(told)}."


def draw(results, folder):
    """Makes the plots; the text that stands for each that could be made. Without results an old one goes."""
    os.makedirs(folder, exist_ok=True)
    drawn = {}
    for name, plot in (("backlog", backlog_plot), ("snapshot", snapshot_plot), ("merge", merge_plot)):
        path = os.path.join(folder, f"{name}.svg")
        if alt := plot(results, path):
            drawn[name] = alt
        elif os.path.exists(path):
            os.remove(path)
    return drawn


def main():
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("results", help="folder of the measurements' files")
    arguments.add_argument("--root", default=harness.ROOT, help="where README.md and docs are; default: this repository")
    args = arguments.parse_args()
    results = read(args.results)
    alts = draw(results, os.path.join(args.root, "docs", "performance"))
    replace_section(os.path.join(args.root, "README.md"), section(results, alts))
    with open(os.path.join(args.root, "docs", "performance.md"), "w") as file:
        file.write(page(results, alts))


if __name__ == "__main__":
    main()
