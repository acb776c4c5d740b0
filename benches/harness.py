"""What the measurements share: arguments, servers, the process's use of the machine, the comparison, and the file of results."""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def parser(description, kinds=None, rounds=3):
    """Arguments that every measurement has."""
    arguments = argparse.ArgumentParser(description=description.splitlines()[0])
    arguments.add_argument("--lakeward", required=True)
    arguments.add_argument("--out", required=True)
    if kinds:
        arguments.add_argument("--kinds", default=kinds)
    if rounds:
        arguments.add_argument("--rounds", type=int, default=rounds)
    arguments.add_argument("--folder", help="where lakes are made; default: the system's for temporary files")
    return arguments


def port(kind):
    """Of the server that runs beside this; says so when there is none."""
    found = os.environ.get(f"LAKEWARD_TEST_{kind.upper()}_PORT")
    if not found:
        print(f"SKIPPED {kind}: no server", file=sys.stderr)
    return found and int(found)


def configure(folder, source, name="bench", lake='url = "lake"', settings=""):
    """Writes a configuration with one source; its path."""
    config = os.path.join(folder, "config.toml")
    with open(os.path.join(folder, "password"), "w") as file:
        file.write("cdc")
    with open(config, "w") as file:
        file.write(f'[lake]\n{lake}\n{settings}\n[[source]]\nname = "{name}"\npassword_file = "password"\n{source}')
    return config


def cpu_seconds(pid):
    """Used so far, of a process that goes on."""
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_memory(pid):
    """In MiB, as the kernel gives it (VmHWM); 0 when the process is gone."""
    try:
        with open(f"/proc/{pid}/status") as lines:
            return max([int(line.split()[1]) for line in lines if line.startswith("VmHWM:")], default=0) / 1024
    except OSError:
        return 0


def timed(command, **options):
    """Seconds, and what the process used. Its resource usage alone would count this process too, which it is made from."""
    started = time.monotonic()
    process = subprocess.Popen(command, **options)
    peak = 0
    while True:
        pid, status, usage = os.wait4(process.pid, os.WNOHANG)
        if pid:
            break
        peak = max(peak, peak_memory(process.pid))
        time.sleep(0.02)
    if status != 0:
        sys.exit(f"{command} ended with {status}")
    return {"seconds": time.monotonic() - started, "cpu_seconds": usage.ru_utime + usage.ru_stime, "peak_memory_mib": peak}


def medians(samples):
    return {key: statistics.median(sample[key] for sample in samples) for key in samples[0]}


def compare(source_url, lake, table, *arguments):
    """Every column of every row, by another reader."""
    command = [sys.executable, f"{ROOT}/tests/oracle/compare.py", "--source", source_url, "--lake", lake, "--table", table, *arguments]
    if subprocess.run(command).returncode != 0:
        sys.exit("source and lake differ: the figures mean nothing")


def log_entry(table, version):
    """The actions of a version in a folder; `None` when there is none yet."""
    try:
        with open(f"{table}/_delta_log/{version:020}.json") as lines:
            return [json.loads(line) for line in lines]
    except FileNotFoundError:
        return None


def batches(table):
    """How many commits brought changes; others load, compact, swap."""
    count = version = 0
    while (entry := log_entry(table, version)) is not None:
        count += any(action.get("commitInfo", {}).get("operation") == "STREAMING UPDATE" for action in entry)
        version += 1
    return count


def write(out, **result):
    machine = {"cpus": os.cpu_count(), "machine": platform.machine(), "kernel": platform.release(), "date": time.strftime("%Y-%m-%d", time.gmtime())}
    os.makedirs(os.path.dirname(out) or ".", exist_ok=True)
    with open(out, "w") as file:
        json.dump({"machine": machine} | result, file, indent=2)
        file.write("\n")
