#!/usr/bin/env python3
"""Do DuckDB, Polars and pyarrow read a spliced data file as they read one with the same rows that was written anew?

    splices.py MANIFEST

MANIFEST is a JSON list of {"kind", "spliced", "expected"}, the last two paths of Parquet files. Columns are compared by
name and type, rows in their order; each engine reads whole files, and with a condition on one column that lets it skip row
groups. Ends with status 1 when anything differs.
"""

import decimal
import json
import sys

import duckdb
import polars
import pyarrow.compute as pc
import pyarrow.dataset
import pyarrow.parquet


def with_pyarrow(path, names):
    for pre_buffer in (True, False):
        yield f"pre_buffer={pre_buffer}", pyarrow.parquet.read_table(path, columns=names, pre_buffer=pre_buffer)
    file = pyarrow.parquet.ParquetFile(path)
    groups = [file.read_row_group(number, columns=names) for number in range(file.num_row_groups)]
    yield "row groups", pyarrow.concat_tables(groups)
    if "id" in names:
        dataset = pyarrow.dataset.dataset(path)
        # pyarrow does not compare a decimal with a whole number.
        kind = dataset.schema.field("id").type
        low, high = (pyarrow.scalar(decimal.Decimal(n) if pyarrow.types.is_decimal(kind) else n, kind) for n in (31_250, 31_307))
        condition = (pc.field("id") >= low) & (pc.field("id") < high)
        yield "condition", dataset.to_table(columns=names, filter=condition)


def with_polars(path, names):
    yield "whole", polars.read_parquet(path, columns=names).select(names)
    lazy = polars.scan_parquet(path)
    yield "one column", lazy.select(names[-1]).collect()
    if "id" in names:
        yield "condition", lazy.filter(polars.col("id").is_between(31_250, 31_306)).select(names).collect()


def with_duckdb(path, names):
    con = duckdb.connect()
    con.execute("SET TimeZone = 'UTC'")
    columns = ", ".join(f'"{name}"' for name in names)
    source = f"read_parquet('{path}')"
    yield "whole", con.execute(f"SELECT {columns} FROM {source}").to_arrow_table()
    yield "count", con.execute(f"SELECT count(*) FROM {source}").to_arrow_table()
    if "id" in names:
        yield "condition", con.execute(f"SELECT {columns} FROM {source} WHERE id BETWEEN 31250 AND 31306").to_arrow_table()


def main():
    different = False
    with open(sys.argv[1]) as file:
        manifest = json.load(file)
    for entry in manifest:
        expected_file = pyarrow.parquet.ParquetFile(entry["expected"])
        spliced_file = pyarrow.parquet.ParquetFile(entry["spliced"])
        in_file = spliced_file.schema_arrow.names
        # A column without values is not in the spliced file: readers of the table fill it in.
        missing = [name for name in expected_file.schema_arrow.names if name not in in_file]
        names = [name for name in expected_file.schema_arrow.names if name in in_file]
        findings = [f"{name} is missing and not all NULL" for name in missing
                    if expected_file.read(columns=[name])[name].null_count != expected_file.metadata.num_rows]
        findings += [f"{name} should not be there" for name in in_file if name not in names]
        for engine in (with_pyarrow, with_polars, with_duckdb):
            for (way, found), (_, wanted) in zip(engine(entry["spliced"], names), engine(entry["expected"], names), strict=True):
                if not found.equals(wanted):
                    findings.append(f"{engine.__name__}, {way}: other rows")
        if findings:
            different = True
            print(f"{entry['kind']}: {'; '.join(findings)}", file=sys.stderr)
    if not manifest:
        sys.exit("nothing to compare")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
