//! The independent readers: DuckDB for the lake, plain SQL clients for the sources (tests/oracle/*.py).

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use serde_json::{Value, json};

use super::{root, setting};

/// One of the scripts, kept running.
struct Service {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Service {
    fn start(script: &str) -> Option<Self> {
        let python = setting("LAKEWARD_TEST_PYTHON")?;
        let mut child = Command::new(python)
            .arg(root().join("tests/oracle").join(script))
            .arg("--serve")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python starts");
        let input = child.stdin.take().expect("piped");
        let output = BufReader::new(child.stdout.take().expect("piped"));
        Some(Self { child, input, output })
    }

    fn ask(&mut self, request: &Value) -> Value {
        writeln!(self.input, "{request}").expect("the oracle listens");
        let mut line = String::new();
        self.output.read_line(&mut line).expect("the oracle answers");
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("oracle answered {line:?}: {error}"))
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Where an S3 server of the tests is.
#[derive(Clone, Debug)]
pub struct S3 {
    pub endpoint: String,
    pub key: String,
    pub secret: String,
}

impl S3 {
    /// The one whose port the environment has under this name.
    pub fn at(variable: &str) -> Option<Self> {
        let port = setting(variable)?;
        let endpoint = format!("http://127.0.0.1:{port}");
        Some(Self { endpoint, key: "S3RVER".into(), secret: "S3RVER".into() })
    }

    /// How config.toml names it.
    pub fn storage(&self) -> String {
        format!(
            "[lake.storage]\naws_endpoint_url = \"{}\"\naws_allow_http = \"true\"\naws_region = \"us-east-1\"\n\
             aws_access_key_id = \"{}\"\naws_secret_access_key = \"{}\"\n",
            self.endpoint, self.key, self.secret
        )
    }

    fn json(&self) -> Value {
        json!({"endpoint": self.endpoint, "key": self.key, "secret": self.secret})
    }
}

/// Reads single Delta tables.
pub struct Reader {
    service: Service,
    s3: Option<S3>,
}

impl Reader {
    pub fn start(s3: Option<S3>) -> Option<Self> {
        Some(Self { service: Service::start("rows.py")?, s3 })
    }

    /// Rows of a query over `t`, the table at `url`.
    pub fn rows(&mut self, url: &str, version: Option<u64>, sql: &str) -> Vec<Vec<Value>> {
        let request = json!({"table": url, "version": version, "sql": sql, "s3": self.s3.as_ref().map(S3::json)});
        let mut answer = self.service.ask(&request);
        // A listing of a folder in which a log grows may lack an entry and have the one after it.
        for _ in 0..5 {
            if !answer.to_string().contains("found gap") {
                break;
            }
            answer = self.service.ask(&request);
        }
        let rows = answer["rows"].as_array().unwrap_or_else(|| panic!("{sql} over {url}: {answer}"));
        rows.iter().map(|row| row.as_array().expect("a row is a list").clone()).collect()
    }
}

/// Compares source and lake, every column of every row.
pub struct Oracle {
    service: Service,
    s3: Option<S3>,
}

impl Oracle {
    pub fn start(s3: Option<S3>) -> Option<Self> {
        Some(Self { service: Service::start("compare.py")?, s3 })
    }

    /// `lake` is the folder of the source in the lake. The source must be at rest.
    pub fn differences(&mut self, source: &str, lake: &str, tables: &[&str]) -> Option<String> {
        let request = json!({"source": source, "lake": lake, "tables": tables, "s3": self.s3.as_ref().map(S3::json)});
        let answer = self.service.ask(&request);
        (answer["equal"] != json!(true)).then(|| serde_json::to_string_pretty(&answer).expect("JSON"))
    }

    pub fn assert_equal(&mut self, source: &str, lake: &str, tables: &[&str]) {
        if let Some(differences) = self.differences(source, lake, tables) {
            panic!("source and lake differ:\n{differences}");
        }
    }
}

/// Reads a Delta table by several engines, which must agree.
pub struct Readers {
    service: Service,
}

impl Readers {
    pub fn start() -> Option<Self> {
        Some(Self { service: Service::start("readers.py")? })
    }

    /// DuckDB, Polars and deltalake read the same rows of the local table, and none needs to know more than deletion vectors.
    pub fn assert_agree(&mut self, table: &str) {
        let answer = self.service.ask(&json!({"table": table}));
        assert_eq!(answer["equal"], json!(true), "readers of {table} differ: {answer}");
        let features: Vec<&str> =
            answer["reader_features"].as_array().expect("a list").iter().filter_map(Value::as_str).collect();
        assert!(
            features.iter().all(|feature| matches!(*feature, "deletionVectors" | "timestampNtz")),
            "{table} needs {features:?}"
        );
    }
}
