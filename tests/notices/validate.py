#!/usr/bin/env python3
"""Checks events (JSON lines on stdin) against schemas/events/*.schema.json.

    validate.py FOLDER-OF-SCHEMAS < events

Prints the types that were met, one a line, and each problem on stderr; ends with 1 when there is one. A type without a
schema is a problem, and so is a schema that is not valid itself.
"""

import json
import pathlib
import sys

from jsonschema import Draft202012Validator, FormatChecker
from referencing import Registry, Resource


def main():
    (folder,) = sys.argv[1:]
    schemas = [json.loads(path.read_text()) for path in sorted(pathlib.Path(folder).glob("*.schema.json"))]
    for schema in schemas:
        Draft202012Validator.check_schema(schema)
    registry = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in schemas)
    by_id = {schema["$id"]: schema for schema in schemas}
    met, problems = set(), 0
    for line in sys.stdin:
        event = json.loads(line)
        kind = event["type"].removeprefix("io.lakeward.")
        met.add(kind)
        schema = by_id.get(event["dataschema"].split("#")[0])
        if schema is None or schema["properties"]["type"]["const"] != event["type"]:
            print(f"{kind}: dataschema {event['dataschema']} is not its schema", file=sys.stderr)
            problems += 1
            continue
        validator = Draft202012Validator(schema, registry=registry, format_checker=FormatChecker())
        for error in validator.iter_errors(event):
            print(f"{kind}: {error.json_path}: {error.message}", file=sys.stderr)
            problems += 1
    print("\n".join(sorted(met)))
    sys.exit(1 if problems else 0)


if __name__ == "__main__":
    main()
