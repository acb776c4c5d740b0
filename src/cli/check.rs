//! `lakeward check`: every problem of every source and of the lake, each with what mends it. Changes nothing at the
//! sources; in the lake it writes and removes one small probe object.

use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

use clap::Args;
use futures::future::join_all;
use serde::Serialize;

use super::{Exit, LoadError, load_config, output};
use crate::config::{Config, ConfigProblem, Contracts, DatabaseKind, SourceConfig};
use crate::lake::Lake;
use crate::pipeline::AnySource;
use crate::source::postgres::PostgresSource;
use crate::source::{Error, Problem, ProblemKind};

/// How long a source or the lake may take for all its answers.
const ANSWER_WITHIN: Duration = Duration::from_secs(60);

#[derive(Debug, Args)]
pub struct Check {
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Report {
    ok: bool,
    exit_code: u8,
    config: ConfigReport,
    /// Absent when the configuration has problems.
    #[serde(skip_serializing_if = "Option::is_none")]
    lake: Option<LakeReport>,
    sources: Vec<SourceReport>,
}

#[derive(Debug, Default, Serialize)]
struct ConfigReport {
    path: Option<String>,
    problems: Vec<ConfigProblem>,
    warnings: Vec<ConfigProblem>,
}

#[derive(Debug, Serialize)]
struct LakeReport {
    url: String,
    ok: bool,
    error: Option<String>,
    #[serde(skip)]
    exit: ExitOf,
}

#[derive(Debug, Serialize)]
struct SourceReport {
    name: String,
    address: String,
    /// `MariaDB 10.11.19`; absent when it could not be asked.
    server: Option<String>,
    ok: bool,
    /// What kept the check from its end.
    error: Option<String>,
    problems: Vec<Problem>,
    /// Worth knowing, and no problem.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    notes: Vec<String>,
    #[serde(skip)]
    exit: ExitOf,
}

type ExitOf = Option<Exit>;

impl Check {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = match load_config(path) {
            Ok(config) => config,
            Err(LoadError::Problems(error)) if self.json => {
                let config = ConfigReport { problems: error.problems, ..ConfigReport::default() };
                let exit = Exit::Configuration;
                let report = Report { ok: false, exit_code: exit.code(), config, lake: None, sources: Vec::new() };
                output::print_json(&report)?;
                return Ok(exit);
            }
            Err(error) => return Err(error.into()),
        };
        let (lake, sources) = look(&config).await;
        let exit = Exit::most_urgent(sources.iter().filter_map(|source| source.exit).chain(lake.exit));
        let config = ConfigReport {
            path: Some(config.path.display().to_string()),
            problems: Vec::new(),
            warnings: config.warnings,
        };
        let report = Report { ok: exit == Exit::Ok, exit_code: exit.code(), config, lake: Some(lake), sources };
        if self.json {
            output::print_json(&report)?;
        } else {
            output::print(&as_text(&report))?;
        }
        Ok(exit)
    }
}

/// Asks the lake and every source at the same time.
async fn look(config: &Config) -> (LakeReport, Vec<SourceReport>) {
    let sources = join_all(config.sources.iter().map(|source| look_at_source(source, &config.contracts)));
    futures::join!(look_at_lake(config), sources)
}

async fn look_at_lake(config: &Config) -> LakeReport {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let (error, exit) = match tokio::time::timeout(ANSWER_WITHIN, lake.probe()).await {
        Ok(Ok(())) => (None, None),
        Ok(Err(error)) => (Some(error.to_string()), Some(Exit::from(&error))),
        Err(_) => {
            let seconds = ANSWER_WITHIN.as_secs();
            (Some(format!("no answer within {seconds} seconds")), Some(Exit::LakeUnreachable))
        }
    };
    LakeReport { url: config.lake.url.to_string(), ok: error.is_none(), error, exit }
}

async fn look_at_source(config: &SourceConfig, contracts: &Contracts) -> SourceReport {
    let mut server = None;
    let mut notes = Vec::new();
    let answers = async {
        let source = AnySource::new(config.clone(), contracts.clone())?;
        let problems = source.preflight().await?;
        match source.identity().await {
            Ok(identity) => {
                server = Some(identity.server);
                notes = remarks(config, contracts).await?;
            }
            // A missing setting or privilege that preflight named may well be what refuses this.
            Err(_) if problems.iter().any(|problem| problem.kind >= ProblemKind::Setting) => {}
            Err(error) => return Err(error),
        }
        Ok(problems)
    };
    let answered = tokio::time::timeout(ANSWER_WITHIN, answers).await.unwrap_or_else(|_| {
        let cause = format!("no answer within {} seconds", ANSWER_WITHIN.as_secs());
        Err(Error::Connect { address: config.address(), cause })
    });
    let (problems, error, exit) = match answered {
        Ok(problems) => {
            let exit = Exit::most_urgent(problems.iter().map(|problem| Exit::from(problem.kind)));
            (problems, None, (exit != Exit::Ok).then_some(exit))
        }
        Err(error) => (Vec::new(), Some(error.for_source(&config.name)), Some(Exit::from(&error))),
    };
    SourceReport {
        name: config.name.clone(),
        address: config.address(),
        server,
        ok: exit.is_none(),
        error,
        problems,
        notes,
        exit,
    }
}

/// What is worth knowing of a source, and no problem.
async fn remarks(config: &SourceConfig, contracts: &Contracts) -> Result<Vec<String>, Error> {
    if config.kind != DatabaseKind::Postgres {
        return Ok(Vec::new());
    }
    let installed = PostgresSource::new(config.clone(), contracts.clone())?.has_event_trigger().await?;
    let remark = if installed {
        "lakeward's event trigger is installed: schema changes are told exactly"
    } else {
        "lakeward's event trigger is not installed: schema changes are seen by rows and catalog, which misses some \
         (docs/event-trigger.md)"
    };
    Ok(vec![remark.to_owned()])
}

fn kind_word(kind: ProblemKind) -> &'static str {
    match kind {
        ProblemKind::Warning => "warning",
        ProblemKind::Table => "table",
        ProblemKind::Setting => "setting",
        ProblemKind::Privilege => "privilege",
    }
}

/// Grouped by source, the gravest first, warnings last.
fn as_text(report: &Report) -> String {
    let mut text = String::new();
    // Writing to a `String` can't fail.
    let mut line = |indent: usize, content: &str| {
        let _ = writeln!(text, "{:indent$}{content}", "");
    };
    if let Some(lake) = &report.lake {
        line(0, &format!("lake ({})", lake.url));
        match &lake.error {
            Some(error) => line(2, &format!("lake       {error}")),
            None => line(2, "ok"),
        }
    }
    for source in &report.sources {
        let server = source.server.as_deref().map(|server| format!("{server} at ")).unwrap_or_default();
        line(0, &format!("{} ({server}{})", source.name, source.address));
        if let Some(error) = &source.error {
            line(2, &format!("source     {error}"));
        }
        let mut problems: Vec<&Problem> = source.problems.iter().collect();
        problems.sort_by_key(|problem| std::cmp::Reverse(problem.kind));
        if source.ok {
            line(2, "ok");
        }
        for note in &source.notes {
            line(2, &format!("note       {note}"));
        }
        for problem in problems {
            line(2, &format!("{:<10} {}: {}", kind_word(problem.kind), problem.subject, problem.finding));
            for (index, remedy) in problem.remedy.lines().enumerate() {
                line(13, &format!("{}{remedy}", if index == 0 { "fix: " } else { "     " }));
            }
        }
    }
    let count = |wanted: fn(&Problem) -> bool| {
        report.sources.iter().flat_map(|source| &source.problems).filter(|problem| wanted(problem)).count()
    };
    let warnings = count(|problem| problem.kind == ProblemKind::Warning) + report.config.warnings.len();
    let errors = report.sources.iter().filter(|source| source.error.is_some()).count()
        + usize::from(report.lake.as_ref().is_some_and(|lake| !lake.ok));
    let problems = count(|problem| problem.kind != ProblemKind::Warning) + errors;
    let plural = |count: usize, word: &str| format!("{count} {word}{}", if count == 1 { "" } else { "s" });
    line(0, &format!("{}, {}", plural(problems, "problem"), plural(warnings, "warning")));
    text.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn problems_are_grouped_by_source_with_their_remedy() {
        let problem =
            |kind, subject: &str| Problem::new(kind, subject, "is wrong", "SET GLOBAL x = 1;\nSET GLOBAL y = 2");
        let report = Report {
            ok: false,
            exit_code: 5,
            config: ConfigReport::default(),
            lake: Some(LakeReport { url: "file:///lake".into(), ok: true, error: None, exit: None }),
            sources: vec![
                SourceReport {
                    name: "booking".into(),
                    address: "db:3306".into(),
                    server: Some("MariaDB 10.11.19".into()),
                    ok: false,
                    error: None,
                    problems: vec![
                        problem(ProblemKind::Warning, "foreign key"),
                        problem(ProblemKind::Setting, "binlog_format"),
                    ],
                    notes: vec!["something is installed".into()],
                    exit: Some(Exit::Setting),
                },
                SourceReport {
                    name: "points".into(),
                    address: "pg:5432".into(),
                    server: None,
                    ok: false,
                    error: Some("cannot connect".into()),
                    problems: Vec::new(),
                    notes: Vec::new(),
                    exit: Some(Exit::Connect),
                },
            ],
        };
        let expected = "\
lake (file:///lake)
  ok
booking (MariaDB 10.11.19 at db:3306)
  note       something is installed
  setting    binlog_format: is wrong
             fix: SET GLOBAL x = 1;
                  SET GLOBAL y = 2
  warning    foreign key: is wrong
             fix: SET GLOBAL x = 1;
                  SET GLOBAL y = 2
points (pg:5432)
  source     cannot connect
2 problems, 1 warning";
        assert_eq!(as_text(&report), expected);
    }
}
