"""Delta tables as DuckDB sees them: an engine that shares no code with lakeward."""

import glob
import importlib
import os

import duckdb


def connect():
    """A DuckDB session with the delta and httpfs extensions, loaded from the wheels beside duckdb, never from the net."""
    con = duckdb.connect(config={"autoinstall_known_extensions": "false", "autoload_known_extensions": "false"})
    for name in ("httpfs", "delta"):
        folder = os.path.dirname(importlib.import_module(f"duckdb_extension_{name}").__file__)
        (path,) = glob.glob(os.path.join(folder, "extensions", f"v{duckdb.__version__}", "*.duckdb_extension"))
        con.execute(f"LOAD '{path}'")
    con.execute("SET TimeZone = 'UTC'")
    con.execute("SET enable_progress_bar = false")
    return con


def use_s3(con, s3):
    """s3: {"endpoint": "http://127.0.0.1:9000", "key": ..., "secret": ..., "region": ...}; None does nothing."""
    if not s3:
        return
    scheme, _, host = s3["endpoint"].rpartition("://")
    con.execute(
        f"CREATE OR REPLACE SECRET lake (TYPE s3, KEY_ID '{s3.get('key', '')}', SECRET '{s3.get('secret', '')}', "
        f"ENDPOINT '{host}', REGION '{s3.get('region', 'us-east-1')}', URL_STYLE 'path', USE_SSL {scheme == 'https'})"
    )


def scan(url, version=None):
    """The FROM item for one Delta table. Plain paths may be relative."""
    if "://" not in url:
        url = "file://" + os.path.abspath(url)
    at = "" if version is None else f", version => {int(version)}"
    return f"delta_scan('{url.replace(chr(39), chr(39) * 2)}'{at})"


def add_s3_options(parser):
    parser.add_argument("--s3-endpoint", metavar="URL")
    parser.add_argument("--s3-key", default="")
    parser.add_argument("--s3-secret", default="")
    parser.add_argument("--s3-region", default="us-east-1")


def s3_from(args):
    if not args.s3_endpoint:
        return None
    return {"endpoint": args.s3_endpoint, "key": args.s3_key, "secret": args.s3_secret, "region": args.s3_region}
