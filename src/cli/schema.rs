//! `lakeward schema`: what a table looks like and looked like, what a migration would do to it, and decisions about changes
//! that wait.

mod text;

use std::io::Read;
use std::path::Path;

use anyhow::Context;
use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Usage;
use super::{Exit, load_config, output};
use crate::pipeline::schema_report::{self as report, At, PlanOutcome, PlanReport};
use crate::schema::Verdict;

#[derive(Debug, Args)]
pub struct Schema {
    #[command(subcommand)]
    question: Question,
}

#[derive(Debug, Subcommand)]
enum Question {
    /// Shows a table's columns in the lake and at its source, and what waits for a decision
    Show(Show),
    /// Lists every change of a table's columns, and what became of each
    History(History),
    /// Shows how a table's columns in the lake differ from the source's, or from those at another time, and why
    Diff(Diff),
    /// Says what a statement would do to the table in the lake, before it is run at the source; exits with 4 when it needs
    /// approval (or when that can't be told), with 13 when it would stop the table
    Plan(Plan),
    /// Approves a change that waits for a decision
    Approve(Decide),
    /// Rejects a change that waits for a decision
    Reject(Decide),
}

const TABLE: &str = "[SOURCE/]TABLE";

#[derive(Debug, Args)]
struct Show {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = TABLE)]
    table: String,
    /// As of this time (UTC, or with a zone), log position, or version of the Delta table
    #[arg(long, value_name = "TIME|POSITION|VERSION")]
    at: Option<At>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct History {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = TABLE)]
    table: String,
    /// Up to this time (UTC, or with a zone), log position, or version of the Delta table
    #[arg(long, value_name = "TIME|POSITION|VERSION")]
    at: Option<At>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Diff {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = TABLE)]
    table: String,
    /// Compare the lake at this moment with the lake of now, instead of the source with the lake
    #[arg(long, value_name = "TIME|POSITION|VERSION")]
    at: Option<At>,
    /// With --at: compare with the lake at this moment
    #[arg(long, value_name = "TIME|POSITION|VERSION", requires = "at")]
    to: Option<At>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Plan {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = TABLE)]
    table: String,
    /// The DDL in the source's dialect; several statements are separated by semicolons; `-` reads it from stdin
    statement: String,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct Decide {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = TABLE)]
    table: String,
    /// The change's id or the beginning of it; not needed when only one waits
    change: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Schema {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        match self.question {
            Question::Show(Show { table, at, json }) => {
                let shown = report::show(&config, &table, at.as_ref()).await?;
                output::answer(json, &shown, text::show)?;
            }
            Question::History(History { table, at, json }) => {
                let history = report::history(&config, &table, at.as_ref()).await?;
                output::answer(json, &history, text::history)?;
            }
            Question::Diff(Diff { table, at, to, json }) => {
                let diff = match &at {
                    None => report::diff_source(&config, &table).await,
                    Some(at) => report::diff_points(&config, &table, at, to.as_ref()).await,
                };
                output::answer(json, &diff?, text::diff)?;
            }
            Question::Plan(Plan { table, statement, json }) => {
                let statement = statement_of(statement)?;
                let plan = report::plan(&config, &table, &statement).await?;
                let exit = exit_of(&plan);
                let answer = Answer { exit_code: exit.code(), plan: &plan };
                output::answer(json, &answer, |answer| text::plan(answer.plan))?;
                return Ok(exit);
            }
            Question::Approve(decide) => return decide.run(&config, Verdict::Approve).await,
            Question::Reject(decide) => return decide.run(&config, Verdict::Reject).await,
        }
        Ok(Exit::Ok)
    }
}

impl Decide {
    async fn run(self, config: &crate::config::Config, verdict: Verdict) -> anyhow::Result<Exit> {
        let change = self.change.as_deref();
        let decided = report::decide_change(config, &self.table, change, verdict, who()).await?;
        output::answer(self.json, &decided, text::decided)?;
        Ok(Exit::Ok)
    }
}

/// What `plan --json` prints.
#[derive(Debug, Serialize)]
struct Answer<'a> {
    exit_code: u8,
    #[serde(flatten)]
    plan: &'a PlanReport,
}

fn statement_of(argument: String) -> anyhow::Result<String> {
    let statement = if argument == "-" {
        let mut text = String::new();
        std::io::stdin().read_to_string(&mut text).context("cannot read the statement from stdin")?;
        text
    } else {
        argument
    };
    let statement = statement.trim().trim_end_matches(';').trim_end();
    if statement.is_empty() {
        return Err(Usage("there is no statement".to_owned()).into());
    }
    Ok(statement.to_owned())
}

fn exit_of(plan: &PlanReport) -> Exit {
    match plan.outcome {
        PlanOutcome::Nothing | PlanOutcome::Applied | PlanOutcome::Resynced => Exit::Ok,
        PlanOutcome::Held | PlanOutcome::Waits | PlanOutcome::Unclear => Exit::NeedsApproval,
        PlanOutcome::Stops => Exit::TableStopped,
    }
}

/// `user@host`, as far as this machine says.
pub(super) fn who() -> String {
    let user = std::env::var("SUDO_USER").or_else(|_| std::env::var("USER")).or_else(|_| std::env::var("LOGNAME"));
    let host = hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default();
    format!("{}@{host}", user.unwrap_or_else(|_| "unknown".to_owned()))
}
