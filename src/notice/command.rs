//! A channel that runs a program: the event as JSON on its stdin, delivered when it ends with exit code 0.
//!
//! 75 (`EX_TEMPFAIL` of sysexits.h) says that nothing gets through just now, as does a program that can't be started or
//! takes too long; any other code says that this event is not wanted as it is.

use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use tokio::io::AsyncWriteExt;

use super::channel::{Failure, Receipt};
use super::event::Notice;
use super::words::one_line;

const TEMPFAIL: i32 = 75;
const OUTPUT_CHARACTERS_MAX: usize = 300;

/// See the module text.
pub struct Command {
    /// Never empty.
    arguments: Vec<String>,
    timeout: Duration,
}

impl Command {
    pub fn new(arguments: Vec<String>, timeout: Duration) -> Self {
        Self { arguments, timeout }
    }

    pub async fn send(&self, notice: &Notice) -> Result<Receipt, Failure> {
        let Some((program, arguments)) = self.arguments.split_first() else {
            return Err(Failure::refused("there is no program"));
        };
        let mut child = tokio::process::Command::new(program)
            .args(arguments)
            .env("LAKEWARD_EVENT_TYPE", format!("io.lakeward.{}", notice.kind))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .map_err(|error| Failure::away(format!("{program} can't be started: {error}")))?;
        let mut input = child.stdin.take();
        let body = format!("{}\n", notice.event);
        let run = async {
            // At the same time as its output is read: either pipe may be full.
            let write = async {
                if let Some(mut input) = input.take() {
                    // Who does not want to read it need not.
                    let _ = input.write_all(body.as_bytes()).await;
                }
            };
            tokio::join!(write, child.wait_with_output()).1
        };
        match tokio::time::timeout(self.timeout, run).await {
            Err(_) => Err(Failure::away(format!("{program} took longer than {} s", self.timeout.as_secs()))),
            Ok(Err(error)) => Err(Failure::away(format!("{program}: {error}"))),
            Ok(Ok(output)) => {
                judge(program, output.status, &String::from_utf8_lossy(&[output.stdout, output.stderr].concat()))
            }
        }
    }
}

fn judge(program: &str, status: ExitStatus, output: &str) -> Result<Receipt, Failure> {
    let mut said = status.to_string();
    let output = one_line(output, OUTPUT_CHARACTERS_MAX);
    if !output.is_empty() {
        said = format!("{said}: {output}");
    }
    match status.code() {
        Some(0) => Ok(Receipt { said }),
        Some(TEMPFAIL) | None => Err(Failure::away(format!("{program} ended with {said}"))),
        Some(_) => Err(Failure::refused(format!("{program} ended with {said}"))),
    }
}

#[cfg(test)]
mod tests {
    use chrono_tz::Tz;

    use super::*;
    use crate::notice::sample;

    async fn run(script: &str) -> Result<Receipt, Failure> {
        let entry = sample::entry("table.added", "booking", "booking.coupons");
        let arguments = ["sh", "-c", script].map(str::to_owned).to_vec();
        Command::new(arguments, Duration::from_secs(2)).send(&Notice::of(&entry, 1, &[], Tz::UTC)).await
    }

    #[tokio::test]
    async fn the_exit_code_decides() {
        let read = run("cat").await.expect("exit code 0");
        assert!(read.said.contains("\"type\":\"io.lakeward.table.added\""), "{}", read.said);
        assert!(run("true").await.is_ok(), "a program need not read");
        let refused = run("echo no >&2; exit 3").await;
        assert_eq!(refused, Err(Failure::refused("sh ended with exit status: 3: no")));
        assert!(matches!(run("exit 75").await, Err(Failure::Away { .. })));
        assert!(matches!(run("kill -9 $$").await, Err(Failure::Away { .. })));
        assert!(matches!(run("sleep 60").await, Err(Failure::Away { .. })));
    }
}
