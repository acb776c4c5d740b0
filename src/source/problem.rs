//! What preflight finds.

use serde::Serialize;

/// What kind of thing is wrong; decides the exit code of `check` and `run`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum ProblemKind {
    /// Worth knowing, stops nothing.
    Warning,
    /// One table can't be captured as it is; the others can.
    Table,
    /// A server or publication setting has to change.
    Setting,
    Privilege,
}

/// One finding: what is wrong, where, and the statement or setting that mends it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Problem {
    pub kind: ProblemKind,
    /// The thing: `binlog_format`, `table booking.coupons`.
    pub subject: String,
    /// What was found and what is needed.
    pub finding: String,
    /// The exact statement or setting.
    pub remedy: String,
}

impl Problem {
    pub fn new(
        kind: ProblemKind,
        subject: impl Into<String>,
        finding: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self { kind, subject: subject.into(), finding: finding.into(), remedy: remedy.into() }
    }
}
