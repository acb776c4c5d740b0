//! A server of one test's own, for settings, purges and restarts that would disturb the others (scripts/server.sh).

use std::path::PathBuf;
use std::process::Command;

use super::source::Kind;
use super::{root, setting};

/// As scripts/server.sh names it: of PostgreSQL the version of this run.
fn server_kind(kind: Kind) -> String {
    let named = std::env::var("LAKEWARD_TEST_POSTGRES_KIND").ok().filter(|named| !named.is_empty());
    match (kind, named) {
        (Kind::Postgres, Some(named)) => named,
        _ => kind.word().to_owned(),
    }
}

/// Thrown away when dropped.
pub struct OwnServer {
    pub kind: Kind,
    pub port: u16,
    folder: PathBuf,
}

impl OwnServer {
    /// `options` are lines of the server's configuration. Says `SKIPPED` when this kind is missing in this run.
    pub fn start(kind: Kind, test: &str, options: &[&str]) -> Option<Self> {
        let servers = setting("LAKEWARD_TEST_SERVERS")?;
        setting(kind.variable())?;
        // Free now; nobody else asks for this very one in the moment until the server has it.
        let port = std::net::TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr());
        let port = port.expect("a free port").port();
        let name = format!("{test}-{}", &uuid::Uuid::new_v4().simple().to_string()[..8]);
        let server = Self { kind, port, folder: PathBuf::from(servers).join(name) };
        server.script("start", options);
        Some(server)
    }

    /// A clean stop; the data stays.
    pub fn stop(&self) {
        self.script("stop", &[]);
    }

    /// Starts it again with the data it had.
    pub fn start_again(&self, options: &[&str]) {
        self.script("start", options);
    }

    /// Another server with new data at the same place.
    pub fn replace(&self) {
        self.script("reset", &[]);
    }

    fn script(&self, action: &str, options: &[&str]) {
        let mut command = Command::new(root().join("scripts/server.sh"));
        command.arg(action).arg(server_kind(self.kind)).arg(&self.folder).arg(self.port.to_string()).args(options);
        let output = command.output().expect("server.sh starts");
        let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "server.sh {action}: {text}");
    }
}

impl Drop for OwnServer {
    fn drop(&mut self) {
        if std::thread::panicking() {
            // Whether the server itself was in trouble: its log is gone with it.
            let log = std::fs::read(self.folder.join("log")).unwrap_or_default();
            let text = String::from_utf8_lossy(&log);
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("the server's log ends with:\n{}", lines[lines.len().saturating_sub(40)..].join("\n"));
        }
        let script = root().join("scripts/server.sh");
        let _ = Command::new(script).arg("destroy").arg(server_kind(self.kind)).arg(&self.folder).output();
    }
}
