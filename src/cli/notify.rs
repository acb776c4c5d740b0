//! `lakeward notify`: the channels of notices and how they stand, and a sample to try one.

use std::path::Path;

use clap::{Args, Subcommand};
use serde::Serialize;

use super::exit::Usage;
use super::output::Align::{Left, Right};
use super::{Exit, load_config, output};
use crate::config::{Config, EVENT_KINDS, NoticeChannel};
use crate::notice::{self, Channel, ChannelReport, Notice, sample, sample_digest};

#[derive(Debug, Args)]
pub struct Notify {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, Subcommand)]
enum Action {
    /// Sends a channel a sample of each kind of event that it gets, marked as such, and shows what came back
    Test(Test),
    /// Shows each channel, what it is told, and how much waits for it. Reaches none of them
    List(List),
}

#[derive(Debug, Args)]
struct Test {
    /// The `name` of a `[[notice]]`
    channel: String,
    /// Only this kind: schema.changed, schema.held, …, or digest
    #[arg(long, value_name = "KIND")]
    kind: Option<String>,
    /// Print one JSON document
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Args)]
struct List {
    /// Print one JSON array
    #[arg(long)]
    json: bool,
}

/// What came of one sample.
#[derive(Debug, Serialize)]
struct Sent {
    kind: String,
    id: uuid::Uuid,
    delivered: bool,
    /// What came back, or why it did not get through.
    answer: String,
}

impl Notify {
    pub async fn run(self, path: Option<&Path>) -> anyhow::Result<Exit> {
        let config = load_config(path)?;
        match self.action {
            Action::Test(test) => test.run(&config).await,
            Action::List(list) => list.run(&config).await,
        }
    }
}

impl Test {
    async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let channel = find(config, &self.channel)?;
        let samples = self.samples(config, channel)?;
        let open = Channel::open(channel).map_err(|reason| Usage(format!("channel `{}`: {reason}", channel.name)))?;
        let mut sent = Vec::new();
        for sample in samples {
            let (delivered, answer) = match open.send(&sample).await {
                Ok(receipt) => (true, receipt.said),
                Err(failure) => (false, failure.to_string()),
            };
            sent.push(Sent { kind: sample.kind, id: sample.id, delivered, answer });
        }
        if self.json {
            output::print_json(&serde_json::json!({
                "channel": channel.name,
                "address": channel.transport.address(),
                "sent": sent,
            }))?;
        } else {
            output::print(&as_text(channel, &sent))?;
        }
        Ok(if sent.iter().all(|sent| sent.delivered) { Exit::Ok } else { Exit::NotDelivered })
    }

    /// Of a table that the channel is for, as far as contracts tell.
    fn samples(&self, config: &Config, channel: &NoticeChannel) -> anyhow::Result<Vec<Notice>> {
        let route = &channel.route;
        let mut sources = config.sources.iter().map(|source| source.name.as_str());
        let source = sources.find(|name| route.sources.is_empty() || route.sources.matches(name));
        let source = source.unwrap_or("sample");
        let contract = config.contracts.iter().find(|contract| {
            contract.source.as_deref().is_none_or(|name| name == source)
                && route.covers(source, Some(&contract.table), &contract.owners)
        });
        let table = contract.map_or("sample.coupons", |contract| contract.table.as_str());
        let owners = contract.map_or_else(|| route.owners.clone(), |contract| contract.owners.clone());

        let wanted = |kind: &str| self.kind.as_deref().map_or_else(|| route.events.matches(kind), |only| only == kind);
        let mut samples: Vec<Notice> = EVENT_KINDS
            .into_iter()
            .filter(|kind| wanted(kind))
            .map(|kind| Notice::of(&sample::fresh_entry(kind, source, table), 0, &owners, channel.timezone).as_sample())
            .collect();
        let digest = self.kind.as_deref().map_or(channel.digest.is_some(), |only| only == "digest");
        if digest {
            samples.push(sample_digest(channel, source, table, &owners));
        }
        if samples.is_empty() {
            let kind = self.kind.as_deref().unwrap_or_default();
            let known = EVENT_KINDS.join(", ");
            return Err(Usage(format!("there is no kind `{kind}`; there are {known} and digest")).into());
        }
        Ok(samples)
    }
}

fn find<'c>(config: &'c Config, name: &str) -> Result<&'c NoticeChannel, Usage> {
    config.channels.iter().find(|channel| channel.name == name).ok_or_else(|| {
        let names: Vec<&str> = config.channels.iter().map(|channel| channel.name.as_str()).collect();
        Usage(if names.is_empty() {
            format!("there is no channel `{name}`: {} has no `[[notice]]`", config.path.display())
        } else {
            format!("there is no channel `{name}`; there are {}", names.join(", "))
        })
    })
}

fn as_text(channel: &NoticeChannel, sent: &[Sent]) -> String {
    let rows: Vec<Vec<String>> = sent
        .iter()
        .map(|sent| {
            let result = if sent.delivered { "delivered" } else { "FAILED" };
            vec![sent.kind.clone(), result.to_owned(), sent.answer.clone()]
        })
        .collect();
    let table = output::columns(&[("KIND", Left), ("RESULT", Left), ("ANSWER", Left)], &rows);
    format!("{} ({}, {})\n{table}", channel.name, channel.transport.kind(), channel.transport.address())
}

impl List {
    async fn run(self, config: &Config) -> anyhow::Result<Exit> {
        let reports = notice::report(config).await?;
        if self.json {
            output::print_json(&reports)?;
        } else if reports.is_empty() {
            output::print("no channels: nobody is told of anything; `[[notice]]` in config.toml makes one")?;
        } else {
            output::print(&listed(&reports))?;
        }
        Ok(Exit::Ok)
    }
}

fn listed(reports: &[ChannelReport]) -> String {
    let header = [
        ("CHANNEL", Left),
        ("KIND", Left),
        ("EVENTS", Left),
        ("DIGEST", Left),
        ("WAITING", Right),
        ("REFUSED", Right),
        ("ADDRESS", Left),
    ];
    let row = |report: &ChannelReport| {
        let events = match report.events.len() {
            0 => "-".to_owned(),
            all if all == EVENT_KINDS.len() => "all".to_owned(),
            _ => report.events.join(" "),
        };
        vec![
            report.name.clone(),
            report.kind.to_owned(),
            events,
            report.digest.clone().unwrap_or_else(|| "-".to_owned()),
            output::grouped(report.waiting),
            output::grouped(report.refused),
            report.address.clone(),
        ]
    };
    output::columns(&header, &reports.iter().map(row).collect::<Vec<_>>())
}
