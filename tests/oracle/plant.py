#!/usr/bin/env python3
"""Changes rows of a Delta table behind lakeward's back, in one commit of its own.

    plant.py '{"table": PATH, "key": "id", "set": {"5": {"note": "x"}}, "remove": [6], "copy": {"7": 8}}'

`set` overwrites columns of a row, `remove` takes rows away, `copy` adds one like another under a new key. All live rows go
to one new file, as an OPTIMIZE would write it. When another commit comes first, all is done again on top of it. Prints the
version.
"""

import json
import os
import sys
import time
import uuid

import lake
import pyarrow
import pyarrow.compute
import pyarrow.parquet


def entries(folder):
    log = os.path.join(folder, "_delta_log")
    for name in sorted(os.listdir(log)):
        if name.endswith(".json") and name[:20].isdigit():
            with open(os.path.join(log, name), encoding="utf-8") as entry:
                yield int(name[:20]), [json.loads(line) for line in entry if line.strip()]


def live_files(folder):
    """The newest version and its files, by path."""
    files, version = {}, -1
    for version, actions in entries(folder):
        for action in actions:
            if "remove" in action:
                files.pop(action["remove"]["path"], None)
        for action in actions:
            if "add" in action:
                files[action["add"]["path"]] = action["add"]
    return version, files


def keys(request):
    return [*map(int, [*request.get("set", {}), *request.get("copy", {})]), *request.get("remove", [])]


def planted(request, rows):
    key = request["key"]
    position = {row[key]: row for row in rows}
    for number, columns in request.get("set", {}).items():
        position[int(number)].update(columns)
    for number, copy in request.get("copy", {}).items():
        rows.append(position[int(number)] | {key: copy})
    gone = set(request.get("remove", []))
    assert gone <= set(position), "rows to remove are there"
    return [row for row in rows if row[key] not in gone]


def attempt(request):
    folder = request["table"]
    version, files = live_files(folder)
    found = lake.connect().execute(f"SELECT * FROM {lake.scan(folder, version)}").fetch_arrow_table()
    # The others, of which there may be many, never become Python's.
    meant = pyarrow.compute.is_in(found[request["key"]], pyarrow.array(keys(request), found[request["key"]].type))
    rows = planted(request, found.filter(meant).to_pylist())
    others = found.filter(pyarrow.compute.invert(meant))
    table = pyarrow.concat_tables([others, pyarrow.Table.from_pylist(rows, schema=found.schema)])
    name = f"planted-{uuid.uuid4()}.parquet"
    path = os.path.join(folder, name)
    pyarrow.parquet.write_table(table, path)
    now = int(time.time() * 1000)
    actions = [{"commitInfo": {"timestamp": now, "operation": "WRITE"}}]
    for file in files.values():
        remove = {"path": file["path"], "dataChange": True, "deletionTimestamp": now, "extendedFileMetadata": True}
        remove |= {"partitionValues": file["partitionValues"], "size": file["size"]}
        if "deletionVector" in file:
            remove["deletionVector"] = file["deletionVector"]
        actions.append({"remove": remove})
    statistics = json.dumps({"numRecords": table.num_rows})
    add = {"path": name, "partitionValues": {}, "size": os.path.getsize(path), "modificationTime": now}
    actions.append({"add": add | {"dataChange": True, "stats": statistics}})
    entry = os.path.join(folder, "_delta_log", f"{version + 1:020}.json")
    # Whole or not at all, and never over another's.
    draft = f"{entry}.{uuid.uuid4()}.tmp"
    with open(draft, "w", encoding="utf-8") as out:
        out.write("".join(json.dumps(action) + "\n" for action in actions))
    try:
        os.link(draft, entry)
    except FileExistsError:
        os.remove(path)
        return None
    finally:
        os.remove(draft)
    return version + 1


def main():
    request = json.loads(sys.argv[1])
    for _ in range(200):
        version = attempt(request)
        if version is not None:
            print(version)
            return
    sys.exit("other commits always came first")


if __name__ == "__main__":
    main()
