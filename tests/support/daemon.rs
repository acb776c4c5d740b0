//! lakeward as its users run it: a process with a config.toml.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;

/// The program under test: what cargo built with the tests, or another build of it (`make soak` has the release build).
fn program() -> String {
    std::env::var("LAKEWARD_TEST_PROGRAM").unwrap_or_else(|_| env!("CARGO_BIN_EXE_lakeward").to_owned())
}

/// A configuration on disk and the processes started from it.
pub struct Lakeward {
    folder: PathBuf,
    runs: u32,
}

impl Lakeward {
    /// `config` is the text of config.toml; `lake` in it may be relative to `folder`.
    pub fn new(folder: &Path, config: &str) -> Self {
        fs::write(folder.join("config.toml"), config).expect("writable");
        Self { folder: folder.to_owned(), runs: 0 }
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program());
        command.args(arguments).arg("--config").arg(self.folder.join("config.toml"));
        // What it keeps in the user's cache goes with the test.
        command.env_remove("CACHE_DIRECTORY").env("XDG_CACHE_HOME", self.folder.join("cache"));
        command
    }

    /// `lakeward run --until-caught-up`, which must succeed.
    pub fn catch_up(&mut self) {
        let output = self.try_catch_up();
        assert!(output.0.success(), "run --until-caught-up: {}\n{}", output.0, output.1);
    }

    /// `lakeward run --until-caught-up` and its log.
    pub fn try_catch_up(&mut self) -> (ExitStatus, String) {
        let log = self.next_log();
        let status = self
            .command(&["run", "--until-caught-up"])
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("writable"))
            .status()
            .expect("lakeward starts");
        (status, fs::read_to_string(log).expect("just written"))
    }

    /// `lakeward run` in the background.
    pub fn start(&mut self) -> Daemon {
        self.start_with(&[])
    }

    /// The same with further variables in its environment.
    pub fn start_with(&mut self, environment: &[(&str, &str)]) -> Daemon {
        let log = self.next_log();
        let child = self
            .command(&["run"])
            .envs(environment.iter().copied())
            .stdout(Stdio::null())
            .stderr(File::create(&log).expect("writable"))
            .spawn()
            .expect("lakeward starts");
        Daemon { child, log }
    }

    /// `lakeward tables --json`.
    pub fn tables(&self) -> Value {
        let output = self.command(&["tables", "--json"]).output().expect("lakeward starts");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&text).unwrap_or_else(|error| {
            panic!("tables --json printed {text:?}: {error}\n{}", String::from_utf8_lossy(&output.stderr))
        })
    }

    /// `lakeward verify` of all tables, which must find them equal; nothing may be on its way.
    pub fn assert_verified(&self) {
        let output = self.command(&["verify"]).output().expect("lakeward starts");
        let text = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "verify: {}\n{text}{}",
            output.status,
            String::from_utf8_lossy(&output.stderr)
        );
        assert!(text.contains("equal"), "{text}");
    }

    fn next_log(&mut self) -> PathBuf {
        self.runs += 1;
        self.folder.join(format!("run-{}.log", self.runs))
    }
}

/// A daemon under way; killed when dropped.
pub struct Daemon {
    child: Child,
    log: PathBuf,
}

impl Daemon {
    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    pub fn wait_for_log(&mut self, text: &str) {
        let started = Instant::now();
        while !self.log().contains(text) {
            if let Some(status) = self.child.try_wait().expect("our child") {
                panic!("lakeward ended with {status} before its log said {text:?}:\n{}", self.log());
            }
            assert!(started.elapsed() < Duration::from_secs(120), "no {text:?} in the log:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// SIGKILL: nothing is flushed, nothing released.
    pub fn kill(mut self) {
        self.child.kill().expect("our child");
        self.child.wait().expect("our child");
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("our child").is_none()
    }

    /// SIGTERM, then its exit status and log.
    pub fn terminate(mut self) -> (ExitStatus, String) {
        let killed = Command::new("kill").args(["-TERM", &self.child.id().to_string()]).status().expect("kill");
        assert!(killed.success());
        let status = self.child.wait().expect("our child");
        (status, self.log())
    }

    /// Waits for it to end by itself.
    pub fn wait(mut self, at_most: Duration) -> (ExitStatus, String) {
        let started = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().expect("our child") {
                return (status, self.log());
            }
            assert!(started.elapsed() < at_most, "lakeward still runs:\n{}", self.log());
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
