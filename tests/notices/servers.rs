//! The receivers that the tests deliver to: processes of their own that share no code with lakeward.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{root, setting};

fn script(name: &str) -> Option<Command> {
    let mut command = Command::new(setting("LAKEWARD_TEST_PYTHON")?);
    command.arg(root().join("tests/notices").join(name));
    Some(command)
}

/// ca.pem, cert.pem and key.pem in `folder`.
pub fn make_certificate(folder: &Path) -> Option<()> {
    let made = script("certificate.py")?.arg(folder).status().expect("python starts");
    assert!(made.success());
    Some(())
}

/// Checks events against schemas/events; the kinds that were among them.
pub fn validate(events: &[Value]) -> Vec<String> {
    let mut command = script("validate.py").expect("asked for before");
    command.arg(root().join("schemas/events")).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("python starts");
    let mut input = child.stdin.take().expect("piped");
    for event in events {
        writeln!(input, "{event}").expect("the validator listens");
    }
    drop(input);
    let output = child.wait_with_output().expect("the validator ends");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

pub fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("its address").port()
}

/// receiver.py or mailbox.py. It has its port from the start, and listens when it is told to.
pub struct Server {
    script: &'static str,
    pub port: u16,
    folder: PathBuf,
    arguments: Vec<String>,
    child: Option<Child>,
}

impl Server {
    pub fn new(script: &'static str, folder: &Path, arguments: &[&str]) -> Self {
        let folder = folder.join(script.trim_end_matches(".py"));
        fs::create_dir_all(&folder).expect("writable");
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Self { script, port: free_port(), folder, arguments, child: None }
    }

    /// `None` where there is no Python, which has been said.
    pub fn start(&mut self) -> Option<()> {
        let mut command = script(self.script)?;
        command.arg("--port").arg(self.port.to_string());
        command.arg("--log").arg(self.folder.join("log")).arg("--answers").arg(self.folder.join("answers"));
        let mut child = command.args(&self.arguments).stdout(Stdio::piped()).spawn().expect("python starts");
        let mut line = String::new();
        BufReader::new(child.stdout.take().expect("piped")).read_line(&mut line).expect("it answers");
        assert_eq!(line.trim(), "ready");
        self.child = Some(child);
        Some(())
    }

    pub fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }

    /// How it answers from now on; with `Value::Null` as it does by itself.
    pub fn answer(&self, answers: &Value) {
        let path = self.folder.join("answers");
        if answers.is_null() {
            fs::remove_file(path).expect("it was told before");
            return;
        }
        // Whole at once: it may be reading.
        fs::write(self.folder.join("new"), answers.to_string()).expect("writable");
        fs::rename(self.folder.join("new"), path).expect("same folder");
    }

    /// Everything it got.
    pub fn got(&self) -> Vec<Value> {
        let text = fs::read_to_string(self.folder.join("log")).unwrap_or_default();
        text.lines().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }

    /// What it took.
    pub fn took(&self) -> Vec<Value> {
        let taken = |line: &Value| match line["status"].as_u64() {
            Some(status) => status < 300,
            None => line["answer"].as_str().is_some_and(|answer| answer.starts_with("250")),
        };
        self.got().into_iter().filter(taken).collect()
    }

    /// Waits until it took so many.
    pub async fn wait_for(&self, count: usize) -> Vec<Value> {
        let started = Instant::now();
        loop {
            let took = self.took();
            if took.len() >= count {
                return took;
            }
            assert!(
                started.elapsed() < Duration::from_secs(60),
                "only {} of {count} arrived; it got {}",
                took.len(),
                json!(self.got())
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop();
    }
}
