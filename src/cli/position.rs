//! `lakeward position`: how far each source's tables are in its log, and which versions of its tables belong together.

mod text;

use std::path::Path;

use clap::Args;
use serde::Serialize;

use super::{Exit, load_config, output};
use crate::pipeline::position_report::{self as report, Moment, SourceCut, SourcePosition};

#[derive(Debug, Args)]
pub struct Position {
    /// With --at: only these tables, as database.table or schema.table; after its source's name and a slash where several
    /// sources have it
    #[arg(value_name = "[SOURCE/]TABLE", requires = "at")]
    tables: Vec<String>,
    /// For each table the version that holds exactly what was committed up to this time (UTC, or with a zone) or log position
    /// of the source, and how to read it
    #[arg(long, value_name = "TIME|LSN|GTID")]
    at: Option<Moment>,
    /// Only this source
    #[arg(long, value_name = "NAME")]
    source: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

/// What `--json` prints.
#[derive(Debug, Serialize)]
struct Positions<'a> {
    exit_code: u8,
    sources: &'a [SourcePosition],
}

/// What `--json` prints with `--at`.
#[derive(Debug, Serialize)]
struct Cuts<'a> {
    exit_code: u8,
    cuts: &'a [SourceCut],
}

impl Position {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        let source = self.source.as_deref();
        match &self.at {
            None => {
                let sources = report::positions(&config, source).await?;
                let exit = Exit::most_urgent(sources.iter().map(exit_of));
                let answer = Positions { exit_code: exit.code(), sources: &sources };
                output::answer(self.json, &answer, |_| text::positions(&sources))?;
                Ok(exit)
            }
            Some(at) => {
                let cuts = report::cuts(&config, at, source, &self.tables).await?;
                let tables = cuts.iter().filter_map(|cut| cut.cut.as_ref()).flat_map(|cut| &cut.tables);
                // Of tables that were named each is expected to be there.
                let lacks = tables.filter(|table| table.missing || !self.tables.is_empty() && table.version.is_none());
                let exit = if lacks.count() > 0 { Exit::TableStopped } else { Exit::Ok };
                let answer = Cuts { exit_code: exit.code(), cuts: &cuts };
                output::answer(self.json, &answer, |_| text::cuts(&cuts))?;
                Ok(exit)
            }
        }
    }
}

fn exit_of(source: &SourcePosition) -> Exit {
    match (&source.error, &source.lost) {
        (Some(error), _) => error.into(),
        (None, Some(_)) => Exit::PositionLost,
        (None, None) => Exit::Ok,
    }
}
