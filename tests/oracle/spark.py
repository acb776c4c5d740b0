#!/usr/bin/env python3
"""Does Spark read every row of spliced data files?

    spark.py MANIFEST

Runs in a Python of its own (scripts/setup.sh --matrix) with pyspark and pyarrow. MANIFEST is as splices.py takes it. Each
spliced file is read by Spark's vectorized reader and by its row reader, with default splits and with splits of 4 MB, and

  * counts, and sums of each column's values or of their CRC-32, must be those that pyarrow computes from the file that was
    written anew;
  * the sum of a hash over whole rows must be the one that Spark computes from that file.

Ends with status 1 when anything differs.
"""

import datetime
import decimal
import json
import sys
import zlib

import pyarrow
import pyarrow.parquet
from pyspark.sql import SparkSession
from pyspark.sql import functions as f
from pyspark.sql import types as t

EPOCH = datetime.datetime(1970, 1, 1)
MICROSECOND = datetime.timedelta(microseconds=1)


def in_spark(name, kind):
    """Expressions whose sums tell a column's values, for Spark."""
    column = f.col(f"`{name}`")
    if isinstance(kind, t.StructType):
        return [part for field in kind for part in in_spark(f"{name}`.`{field.name}", field.dataType)]
    if isinstance(kind, t.ArrayType):
        text = f.array_join(f.transform(column, lambda item: item.cast("string")), "|", "~")
        return [f.crc32(text.cast("binary"))]
    if isinstance(kind, (t.StringType, t.BinaryType)):
        return [f.crc32(column.cast("binary"))]
    if isinstance(kind, t.BooleanType):
        return [column.cast("int")]
    if isinstance(kind, t.DateType):
        return [f.unix_date(column)]
    if isinstance(kind, (t.TimestampType, t.TimestampNTZType)):
        return [f.unix_micros(column.cast("timestamp"))]
    return [column]


def in_python(value):
    """The same for one value; a list, since a struct has several."""
    if isinstance(value, dict):
        return [part for item in value.values() for part in in_python(item)]
    if value is None:
        return [None]
    if isinstance(value, list):
        text = "|".join("~" if item is None else item if isinstance(item, str) else format(item, "f") for item in value)
        return [zlib.crc32(text.encode())]
    if isinstance(value, str):
        return [zlib.crc32(value.encode())]
    if isinstance(value, bytes):
        return [zlib.crc32(value)]
    if isinstance(value, datetime.datetime):
        return [(value.replace(tzinfo=None) - EPOCH) // MICROSECOND]
    if isinstance(value, datetime.date):
        return [(value - EPOCH.date()).days]
    return [value]


def sums_in_python(column):
    if pyarrow.types.is_struct(column.type):
        whole = column.combine_chunks()
        children = whole.flatten()
        return [number for child in children for number in sums_in_python(pyarrow.chunked_array([child]))]
    values = [in_python(value)[0] for value in column.to_pylist()]
    present = [value for value in values if value is not None]
    return [len(present), sum((decimal.Decimal(value) for value in present), decimal.Decimal(0))]


def main():
    decimal.getcontext().prec = 60
    spark = (SparkSession.builder.master("local[2]").appName("splices").config("spark.ui.enabled", "false")
             .config("spark.ui.showConsoleProgress", "false")
             .config("spark.sql.session.timeZone", "UTC").config("spark.driver.memory", "3g")
             .config("spark.sql.shuffle.partitions", "2").config("spark.driver.host", "127.0.0.1").getOrCreate())
    spark.sparkContext.setLogLevel("ERROR")
    with open(sys.argv[1]) as file:
        manifest = json.load(file)
    default_split = spark.conf.get("spark.sql.files.maxPartitionBytes")
    different = False
    for entry in manifest:
        names = sorted(pyarrow.parquet.ParquetFile(entry["spliced"]).schema_arrow.names)
        expected = pyarrow.parquet.read_table(entry["expected"], columns=names)
        wanted = [decimal.Decimal(expected.num_rows)]
        for name in names:
            wanted += sums_in_python(expected[name])

        def aggregates(path):
            frame = spark.read.parquet("file://" + path)
            terms = [f.count(f.lit(1)).cast("decimal(38,0)")]
            for name in names:
                for term in in_spark(name, frame.schema[name].dataType):
                    terms += [f.count(term).cast("decimal(38,0)"), f.coalesce(f.sum(term.cast("decimal(28,6)")), f.lit(0))]
            terms.append(f.sum(f.xxhash64(*[f.col(f"`{name}`") for name in names]).cast("decimal(38,0)")))
            row = frame.agg(*[term.alias(f"v{index}") for index, term in enumerate(terms)]).first()
            return list(row[:-1]), row[-1], frame.rdd.getNumPartitions()

        _, row_hash, _ = aggregates(entry["expected"])
        for vectorized in ("true", "false"):
            for split in (default_split, str(4 << 20)):
                spark.conf.set("spark.sql.parquet.enableVectorizedReader", vectorized)
                spark.conf.set("spark.sql.files.maxPartitionBytes", split)
                found, found_hash, partitions = aggregates(entry["spliced"])
                same = [decimal.Decimal(value) for value in found] == [decimal.Decimal(value) for value in wanted]
                verdict = "equal" if same and found_hash == row_hash else "DIFFERENT"
                different |= verdict != "equal"
                print(f"{entry['kind']:24} vectorized={vectorized:5} split={split:10} partitions={partitions} "
                      f"rows={found[0]} of {wanted[0]}: {verdict}", file=sys.stderr, flush=True)
                if not same:
                    print(f"  found {found}\n  wanted {wanted}", file=sys.stderr)
        spark.conf.set("spark.sql.parquet.enableVectorizedReader", "true")
        spark.conf.set("spark.sql.files.maxPartitionBytes", default_split)
    spark.stop()
    if not manifest:
        sys.exit("nothing to compare")
    sys.exit(1 if different else 0)


if __name__ == "__main__":
    main()
