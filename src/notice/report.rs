//! How the channels stand, for `lakeward notify list`.

use serde::Serialize;

use super::Error;
use super::delivery::Progress;
use crate::config::{Config, EVENT_KINDS};
use crate::lake::Lake;
use crate::ledger::{Cursor, Outbox};

/// One channel.
#[derive(Clone, Debug, Serialize)]
pub struct ChannelReport {
    pub name: String,
    pub kind: &'static str,
    /// Without what could let others post there.
    pub address: String,
    /// Kinds of events that are sent at once.
    pub events: Vec<&'static str>,
    pub owners: Vec<String>,
    /// `09:00 Asia/Seoul`
    pub digest: Option<String>,
    /// Entries of all sources that it has not passed yet; those that are not for it are counted until it has looked.
    pub waiting: u64,
    /// Of these, refused by the receiver or behind one that was.
    pub refused: u64,
}

/// Every channel of the configuration, as the lake knows it.
pub async fn report(config: &Config) -> Result<Vec<ChannelReport>, Error> {
    let lake = Lake::new(&config.lake.url, &config.lake.storage);
    let mut reports = Vec::new();
    for channel in &config.channels {
        let (mut waiting, mut refused) = (0, 0);
        let told_at_once = !channel.route.events.is_empty();
        for source in config.sources.iter().filter(|_| told_at_once) {
            let store = lake.ledger_store(&source.name)?;
            let numbers = Outbox::open(store.clone()).await?.numbers().await?;
            // A channel without a cursor begins behind what is there.
            if let (_, Some(progress)) = Cursor::open::<Progress>(store, &channel.name).await? {
                let behind = numbers.iter().filter(|number| **number >= progress.next).count();
                waiting += behind as u64 + progress.waiting.len() as u64;
                refused += progress.waiting.len() as u64;
            }
        }
        let events = EVENT_KINDS.into_iter().filter(|kind| channel.route.events.matches(kind));
        reports.push(ChannelReport {
            name: channel.name.clone(),
            kind: channel.transport.kind(),
            address: channel.transport.address(),
            events: events.collect(),
            owners: channel.route.owners.clone(),
            digest: channel.digest.map(|digest| format!("{} {}", digest.at.format("%H:%M"), channel.timezone)),
            waiting,
            refused,
        });
    }
    Ok(reports)
}
