//! Spliced data files as other engines read them: DuckDB, Polars, pyarrow, and Spark where it is installed.
//!
//! Each kind of splice is made of a file of ten row groups and about ten megabytes, and stands beside a file written anew
//! with the same rows; the scripts in tests/oracle/ read both.

#[path = "../support/mod.rs"]
mod support;

mod kinds;
mod s3;

use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::json;
use support::{Scratch, root, setting};

/// Makes every kind and says where the files are.
async fn manifest(scratch: &Scratch) -> PathBuf {
    let mut entries = Vec::new();
    for kind in kinds::all() {
        let (spliced, expected) = kinds::make(&kind, scratch.path()).await;
        entries.push(json!({"kind": kind.name, "spliced": spliced, "expected": expected}));
    }
    let path = scratch.path().join("manifest.json");
    std::fs::write(&path, json!(entries).to_string()).expect("written");
    path
}

fn run(python: &str, script: &str, manifest: &Path) {
    let status = Command::new(python).arg(root().join("tests/oracle").join(script)).arg(manifest).status();
    assert!(status.expect("python starts").success(), "{script} found differences (above)");
}

#[tokio::test]
async fn duckdb_polars_and_pyarrow_read_every_splice() {
    let Some(python) = setting("LAKEWARD_TEST_PYTHON") else { return };
    let scratch = Scratch::new("splice");
    run(&python, "splices.py", &manifest(&scratch).await);
}

/// Both of Spark's Parquet readers, whole files and small splits: a row group whose middle lies in no split would be
/// missing without an error.
#[tokio::test]
async fn spark_reads_every_splice() {
    let Some(python) = setting("LAKEWARD_TEST_SPARK_PYTHON") else {
        eprintln!("SKIPPED spark_reads_every_splice: Spark is not installed; `scripts/setup.sh --matrix` installs it");
        return;
    };
    let scratch = Scratch::new("splice-spark");
    run(&python, "spark.py", &manifest(&scratch).await);
}
