//! How a command ended, for scripts: the exit codes are part of the interface and keep their meaning.

use std::process::ExitCode;

use super::LoadError;
use crate::pipeline::schema_report::ReportError;
use crate::snapshot::verify;
use crate::source::{self, ProblemKind};
use crate::{lake, ledger, notice, pipeline};

/// The exit codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    Ok = 0,
    Unexpected = 1,
    /// clap itself ends with 2 on wrong usage.
    Configuration = 2,
    /// Of `verify`.
    Differ = 3,
    /// Of `schema plan`.
    NeedsApproval = 4,
    Setting = 5,
    Privilege = 6,
    Connect = 7,
    Authentication = 8,
    Busy = 9,
    PositionLost = 10,
    LakeUnsafe = 11,
    LakeUnreachable = 12,
    TableStopped = 13,
    /// `notify test`: the channel did not take a sample.
    NotDelivered = 14,
    /// `verify`: the lake is behind and does not move on.
    Behind = 15,
    /// A second signal ended the process at once, or a first one a one-shot run: 128 + SIGINT, as shells have it.
    Interrupted = 130,
}

/// For the long help.
pub const HELP: &str = "\
Exit codes:
    0  ok
    1  unexpected error
    2  wrong usage or configuration
    3  source and lake differ (verify)
    4  a schema change needs approval, or can't be told before it runs (schema plan)
    5  a setting at the source must change
    6  a privilege is missing at the source
    7  cannot connect to the source
    8  the source refused user or password
    9  another daemon holds the source (lease or replication slot in use)
   10  the position is lost (binlog purged, slot lost, another history)
   11  the lake's store is unsafe: it ignores conditional put
   12  the lake cannot be reached or read
   13  a table can't be captured or has stopped, would be stopped (schema plan), is not in a cut (position --at), or
       can't be compared (verify)
   14  a channel of notices did not take a sample (notify test)
   15  nothing could be proven: the lake is behind its source and does not move on (verify)
  130  ended by a second signal, or by one before `--until-caught-up` was through
Where several apply, `check` and `run` give the one that must be mended first: what cannot be reached at all
(7, 8, 12), then what would lose data (11, 10, 9), then privileges, settings and single tables (6, 5, 13).";

impl Exit {
    /// Which of several must be mended first; higher goes first.
    fn urgency(self) -> u8 {
        match self {
            Self::Ok => 0,
            Self::Differ | Self::NeedsApproval | Self::NotDelivered => 1,
            Self::TableStopped | Self::Behind => 2,
            Self::Setting => 3,
            Self::Privilege => 4,
            Self::Busy => 5,
            Self::PositionLost => 6,
            Self::LakeUnsafe => 7,
            Self::LakeUnreachable => 8,
            Self::Authentication => 9,
            Self::Connect => 10,
            Self::Unexpected => 11,
            Self::Configuration => 12,
            Self::Interrupted => 13,
        }
    }

    /// The one that must be mended first; `Ok` when there is none.
    pub fn most_urgent(exits: impl IntoIterator<Item = Self>) -> Self {
        exits.into_iter().max_by_key(|exit| exit.urgency()).unwrap_or(Self::Ok)
    }

    pub fn code(self) -> u8 {
        self as u8
    }
}

impl From<Exit> for ExitCode {
    fn from(exit: Exit) -> Self {
        Self::from(exit.code())
    }
}

impl From<&source::Error> for Exit {
    fn from(error: &source::Error) -> Self {
        use source::Error;
        match error {
            Error::Connect { .. } | Error::Disconnected { .. } => Self::Connect,
            Error::Authentication { .. } => Self::Authentication,
            Error::Privilege { .. } => Self::Privilege,
            Error::Setting { .. } => Self::Setting,
            Error::PositionLost { .. } | Error::SlotLost { .. } | Error::OtherHistory { .. } => Self::PositionLost,
            Error::SlotInUse { .. } => Self::Busy,
            Error::Table { .. } => Self::TableStopped,
            Error::Protocol { .. }
            | Error::Query { .. }
            | Error::BoundsVoid { .. }
            | Error::ReceiverGone
            | Error::Batch(_)
            | Error::Rows(_) => Self::Unexpected,
        }
    }
}

impl From<&lake::Error> for Exit {
    fn from(error: &lake::Error) -> Self {
        use lake::Error;
        match error {
            Error::Unsafe { .. } => Self::LakeUnsafe,
            Error::Table { .. } => Self::TableStopped,
            Error::Fenced { .. } => Self::Busy,
            Error::Unreachable { .. }
            | Error::Commit { .. }
            | Error::Delta { .. }
            | Error::Store { .. }
            | Error::Arrow { .. }
            | Error::Parquet { .. }
            | Error::Spill(_)
            | Error::Index { .. } => Self::LakeUnreachable,
        }
    }
}

impl From<&ledger::Error> for Exit {
    fn from(error: &ledger::Error) -> Self {
        use ledger::Error;
        match error {
            Error::Held { .. } | Error::Lost { .. } | Error::Overtaken { .. } => Self::Busy,
            Error::Unreadable { .. } | Error::Store { .. } => Self::LakeUnreachable,
        }
    }
}

impl From<&notice::Error> for Exit {
    fn from(error: &notice::Error) -> Self {
        match error {
            notice::Error::Lake(error) => error.into(),
            notice::Error::Ledger(error) => error.into(),
        }
    }
}

impl From<&pipeline::Error> for Exit {
    fn from(error: &pipeline::Error) -> Self {
        use pipeline::Error;
        match error {
            Error::Source(error) => error.into(),
            Error::Lake(error) => error.into(),
            Error::Ledger(error) => error.into(),
            Error::NotReady(problems) => Self::most_urgent(problems.iter().map(|problem| problem.kind.into())),
            Error::NoTables => Self::Configuration,
            Error::LedgerGone { .. } | Error::PositionLost { .. } => Self::PositionLost,
            Error::Position { .. } => Self::LakeUnreachable,
            Error::Task(_) => Self::Unexpected,
        }
    }
}

impl From<&verify::Error> for Exit {
    fn from(error: &verify::Error) -> Self {
        use verify::Error;
        match error {
            Error::Source(error) => error.into(),
            Error::Lake(error) => error.into(),
            Error::Ledger(error) => error.into(),
            Error::Position(_) => Self::LakeUnreachable,
            Error::Rows(..) => Self::Unexpected,
            Error::Unfit { .. } => Self::TableStopped,
            Error::Behind(_) => Self::Behind,
        }
    }
}

impl From<&ReportError> for Exit {
    fn from(error: &ReportError) -> Self {
        match error {
            ReportError::Question(_) => Self::Configuration,
            ReportError::Failed(error) => error.into(),
        }
    }
}

impl From<ProblemKind> for Exit {
    fn from(kind: ProblemKind) -> Self {
        match kind {
            ProblemKind::Warning => Self::Ok,
            ProblemKind::Table => Self::TableStopped,
            ProblemKind::Setting => Self::Setting,
            ProblemKind::Privilege => Self::Privilege,
        }
    }
}

/// What an error that ended a command means.
pub(super) fn of_error(error: &anyhow::Error) -> Exit {
    let known = |cause: &(dyn std::error::Error + 'static)| {
        let load = cause.downcast_ref::<LoadError>().map(|_| Exit::Configuration);
        let usage = || cause.downcast_ref::<Usage>().map(|_| Exit::Configuration);
        let pipeline = || cause.downcast_ref::<pipeline::Error>().map(Exit::from);
        let lake = || cause.downcast_ref::<lake::Error>().map(Exit::from);
        let source = || cause.downcast_ref::<source::Error>().map(Exit::from);
        let notice = || cause.downcast_ref::<notice::Error>().map(Exit::from);
        let report = || cause.downcast_ref::<ReportError>().map(Exit::from);
        load.or_else(usage).or_else(report).or_else(pipeline).or_else(notice).or_else(lake).or_else(source)
    };
    error.chain().find_map(known).unwrap_or(Exit::Unexpected)
}

/// Whether an error only says that another process runs the source.
pub(super) fn of_held(error: &pipeline::Error) -> Option<Exit> {
    (Exit::from(error) == Exit::Busy).then_some(Exit::Busy)
}

/// What a run's end means. A daemon that was told to stop ends well even when a table stopped while it ran; a one-shot
/// run has not done what it was asked for then.
pub fn of_run(run: &Result<pipeline::RunSummary, pipeline::Error>, until_caught_up: bool) -> Exit {
    match run {
        Err(error) => error.into(),
        Ok(summary) => Exit::most_urgent(summary.sources.iter().map(|source| {
            let tables_stopped = source.tables.iter().any(|table| table.error.is_some());
            match &source.error {
                Some(error) => Exit::from(error.as_ref()),
                None if tables_stopped && until_caught_up => Exit::TableStopped,
                None => Exit::Ok,
            }
        })),
    }
}

/// The command was given something that can't be used.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Exit; 17] = [
        Exit::Ok,
        Exit::Unexpected,
        Exit::Configuration,
        Exit::Differ,
        Exit::NeedsApproval,
        Exit::Setting,
        Exit::Privilege,
        Exit::Connect,
        Exit::Authentication,
        Exit::Busy,
        Exit::PositionLost,
        Exit::LakeUnsafe,
        Exit::LakeUnreachable,
        Exit::TableStopped,
        Exit::NotDelivered,
        Exit::Behind,
        Exit::Interrupted,
    ];

    #[test]
    fn the_help_and_the_readme_list_every_exit_code() {
        let readme = include_str!("../../README.md");
        for exit in ALL {
            let code = exit.code();
            assert!(HELP.lines().any(|line| line.trim_start().starts_with(&format!("{code}  "))), "help lacks {code}");
            assert!(readme.contains(&format!("| {code} |")), "README lacks {code}");
        }
    }

    #[test]
    fn the_most_urgent_exit_wins() {
        assert_eq!(Exit::most_urgent([]), Exit::Ok);
        assert_eq!(Exit::most_urgent([Exit::Ok, Exit::TableStopped, Exit::Setting]), Exit::Setting);
        assert_eq!(Exit::most_urgent([Exit::Privilege, Exit::Connect, Exit::Setting]), Exit::Connect);
    }

    #[test]
    fn an_error_keeps_its_exit_code_below_its_context() {
        let refused = source::Error::Authentication { address: "h:1".into(), user: "u".into(), cause: "no".into() };
        assert_eq!(of_error(&anyhow::Error::new(refused).context("source `a`")), Exit::Authentication);
        assert_eq!(of_error(&anyhow::anyhow!("anything")), Exit::Unexpected);
    }
}
