//! `lakeward snapshot`: first loads of tables that the configuration selects and the lake lacks.

use std::path::Path;

use clap::Args;

use super::loading::{self, requested};
use super::resync::show_under_way;
use super::{Exit, load_config};
use crate::ledger::Wish;
use crate::pipeline::load_request;

#[derive(Debug, Args)]
pub struct Snapshot {
    /// database.table or schema.table; after its source's name and a slash where several sources have it
    #[arg(value_name = "[SOURCE/]TABLE", required_unless_present = "status")]
    tables: Vec<String>,
    /// Show which tables are being loaded for the first time, and how far they are; asks for nothing
    #[arg(long, conflicts_with_all = ["tables", "no_wait"])]
    status: bool,
    /// Only enter the request; whoever runs the source carries it out
    #[arg(long)]
    no_wait: bool,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

impl Snapshot {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        if self.status {
            return show_under_way(&config, Wish::Snapshot, self.json).await;
        }
        let wanted = load_request::named(&config, &self.tables).await?;
        let asking = requested(&config, wanted, Wish::Snapshot, None).await?;
        loading::follow(&config, asking, !self.no_wait, self.json).await
    }
}
