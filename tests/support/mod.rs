//! What the integration tests share: the servers of this run, the independent reader, the daemon as a process.
//!
//! `scripts/with-servers.sh` starts the servers and says where they are by LAKEWARD_TEST_*; a test whose server is missing says
//! `SKIPPED` on stderr and passes.
#![allow(dead_code)] // each test binary uses its part

pub mod columns;
pub mod daemon;
pub mod delta_log;
pub mod load;
pub mod oracle;
pub mod parts;
pub mod postgres;
pub mod server;
pub mod source;

use std::path::{Path, PathBuf};

use lakeward::config::{WriteMode, WriteTerms};

/// A variable of the test run, or a loud line.
pub fn setting(name: &str) -> Option<String> {
    let value = std::env::var(name).ok().filter(|value| !value.is_empty());
    if value.is_none() {
        eprintln!("SKIPPED: {name} is not set; run the tests by `make test`");
    }
    value
}

/// The project's folder.
pub fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// How tables are written, with files so small that tests have several.
pub fn terms(mode: WriteMode) -> WriteTerms {
    WriteTerms { mode, target_file_bytes: 4 << 10 }
}

/// A new folder for one test, kept when the test fails so that it can be looked at.
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    pub fn new(test: &str) -> Self {
        let path = std::env::temp_dir().join(format!("lakeward-{test}-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir_all(&path).expect("a temporary folder");
        Self { path }
    }

    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("kept for inspection: {}", self.path.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.path);
        }
    }
}

/// Tests for each kind of source.
#[allow(unused_macros)]
macro_rules! on_each {
    ($($name:ident),+ $(,)?) => { $(
        mod $name {
            use $crate::support::source::Kind;

            #[tokio::test(flavor = "multi_thread")]
            async fn mariadb() {
                super::$name(Kind::MariaDb).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn mysql() {
                super::$name(Kind::MySql).await;
            }

            #[tokio::test(flavor = "multi_thread")]
            async fn postgres() {
                super::$name(Kind::Postgres).await;
            }
        }
    )+ };
}
#[allow(unused_imports)]
pub(crate) use on_each;
