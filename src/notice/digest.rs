//! What changed the day before, told once a day by each channel that wants to know.
//!
//! A digest covers whole days of the channel's time zone, of all sources of the configuration: from where the last one
//! ended to the midnight before it is sent. Where each ended is kept in the lake (`_lakeward/notices/`), with the outbox
//! entries that it covered, so that after a restart none is told twice and what was missed is told once. Of several
//! processes that share a lake, the one that gets a lease for it sends it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveDate, NaiveTime, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::Error;
use super::channel::Channel;
use super::delivery::{Pauses, growing, owners};
use super::event::Notice;
use super::sample;
use super::slack::{self, escaped};
use super::words::{Words, count, moment};
use crate::config::{Config, Digest, NoticeChannel};
use crate::lake::Lake;
use crate::ledger::{self, Cursor, Holder, Lease, Outbox, OutboxEntry};
use crate::schema::ValueCounts;

/// The kind of a digest's event.
const KIND: &str = "digest";

/// A digest names so many events, and says how many more there are.
const EVENTS_MAX: usize = 500;

/// Clocks are asked again so often: they may be set, and machines may sleep.
const LOOKED_EVERY: Duration = Duration::from_secs(30);

/// Within the lease.
const SENDING_MAX: Duration = Duration::from_secs(45);

/// Where the last digest of a channel ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Covered {
    until: DateTime<Utc>,
    /// By source: the number of the first outbox entry that it did not cover.
    next: BTreeMap<String, u64>,
}

/// The digests of all channels; ended when dropped.
pub struct Digests {
    tasks: JoinSet<()>,
    ending: CancellationToken,
}

impl Digests {
    pub fn start(lake: &Lake, config: &Arc<Config>, holder: &Holder, pauses: Pauses) -> Self {
        let mut tasks = JoinSet::new();
        let ending = CancellationToken::new();
        for channel in &config.channels {
            let Some(digest) = channel.digest else { continue };
            match Channel::open(channel) {
                Ok(open) => {
                    let sender = Sender {
                        lake: lake.clone(),
                        config: config.clone(),
                        holder: holder.clone(),
                        channel: open,
                        digest,
                        pauses,
                    };
                    tasks.spawn(sender.run(ending.clone()));
                }
                Err(reason) => tracing::error!(channel = channel.name, reason, "no digest is sent by this channel"),
            }
        }
        Self { tasks, ending }
    }

    /// Sends what is due, as far as it gets in this time, and ends.
    pub async fn finish(mut self, at_most: Duration) {
        self.ending.cancel();
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(at_most, all).await.is_err() {
            tracing::warn!("not every digest could be sent before the end; the next run sends it");
        }
        self.tasks.shutdown().await;
    }
}

/// The channels whose digests tell of this source.
pub(super) fn channels<'c>(config: &'c Config, source: &'c str) -> impl Iterator<Item = &'c NoticeChannel> {
    config.channels.iter().filter(move |channel| channel.digest.is_some() && in_route(channel, source))
}

fn in_route(channel: &NoticeChannel, source: &str) -> bool {
    channel.route.sources.is_empty() || channel.route.sources.matches(source)
}

/// Below which number of a source's outbox the digests of a channel need nothing any more.
pub(super) async fn passed(lake: &Lake, channel: &str, source: &str) -> Result<u64, Error> {
    let (_, covered) = Cursor::open::<Covered>(lake.notices_store()?, channel).await?;
    Ok(covered.and_then(|covered| covered.next.get(source).copied()).unwrap_or(0))
}

/// The last moment at which a digest was due, with the end of the days that it covers.
fn due(digest: Digest, zone: Tz, now: DateTime<Utc>) -> DateTime<Utc> {
    let today = now.with_timezone(&zone).date_naive();
    let day = if instant(today, digest.at, zone) <= now {
        today
    } else {
        today.checked_sub_days(Days::new(1)).unwrap_or(today)
    };
    instant(day, NaiveTime::MIN, zone)
}

/// A time of a day; where clocks are set back the earlier, where they are set forward the first that there is.
fn instant(day: NaiveDate, time: NaiveTime, zone: Tz) -> DateTime<Utc> {
    let local = day.and_time(time);
    // No zone leaves out more than a day at once.
    (0..=96)
        .find_map(|quarters| zone.from_local_datetime(&(local + chrono::TimeDelta::minutes(15 * quarters))).earliest())
        .map_or_else(|| local.and_utc(), |found| found.to_utc())
}

struct Sender {
    lake: Lake,
    config: Arc<Config>,
    holder: Holder,
    channel: Channel,
    digest: Digest,
    pauses: Pauses,
}

impl Sender {
    async fn run(self, ending: CancellationToken) {
        let name = &self.channel.config.name;
        let mut pause = growing(self.pauses.away);
        loop {
            let wait = match self.look(Utc::now()).await {
                Ok(None) => {
                    pause = growing(self.pauses.away);
                    if ending.is_cancelled() {
                        return;
                    }
                    LOOKED_EVERY
                }
                Ok(Some(reason)) => {
                    let wait = pause.next().unwrap_or(self.pauses.away.1);
                    tracing::warn!(
                        channel = name,
                        reason,
                        seconds = wait.as_secs_f64(),
                        "a digest could not be sent; trying again"
                    );
                    wait
                }
                // Another process is about to send it, or has.
                Err(Error::Ledger(
                    ledger::Error::Held { .. } | ledger::Error::Overtaken { .. } | ledger::Error::Lost { .. },
                )) => {
                    if ending.is_cancelled() {
                        return;
                    }
                    LOOKED_EVERY
                }
                Err(error) => {
                    let wait = pause.next().unwrap_or(self.pauses.away.1);
                    tracing::warn!(channel = name, %error, seconds = wait.as_secs_f64(), "a digest could not be made; trying again");
                    wait
                }
            };
            if ending.is_cancelled() {
                sleep(wait).await;
            } else {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = ending.cancelled() => {}
                }
            }
        }
    }

    /// Sends the digest if it is due. `Some` says why the channel did not take it.
    async fn look(&self, now: DateTime<Utc>) -> Result<Option<String>, Error> {
        let config = &self.channel.config;
        let until = due(self.digest, config.timezone, now);
        let (mut cursor, covered) = Cursor::open::<Covered>(self.lake.notices_store()?, &config.name).await?;
        let Some(covered) = covered else {
            // The first one covers the day on which it was asked for.
            cursor.write(&Covered { until, next: self.starts(until).await? }).await?;
            return Ok(None);
        };
        if covered.until >= until {
            return Ok(None);
        }
        let lease = Lease::acquire(self.lease_store()?, &config.name, &self.holder).await?;
        let sent = self.send_if_due(until).await;
        if let Err(error) = lease.release().await {
            tracing::debug!(channel = config.name, %error, "the lease for the digest could not be given back");
        }
        sent
    }

    /// Under the lease; another process may have sent it just before.
    async fn send_if_due(&self, until: DateTime<Utc>) -> Result<Option<String>, Error> {
        let store = self.lake.notices_store()?;
        match Cursor::open::<Covered>(store, &self.channel.config.name).await? {
            (mut cursor, Some(covered)) if covered.until < until => self.send(&mut cursor, &covered, until).await,
            _ => Ok(None),
        }
    }

    fn lease_store(&self) -> Result<Arc<dyn object_store::ObjectStore>, Error> {
        let prefix = object_store::path::Path::from(format!("digest/{}", self.channel.config.name));
        Ok(Arc::new(object_store::prefix::PrefixStore::new(self.lake.notices_store()?, prefix)))
    }

    async fn send(
        &self,
        cursor: &mut Cursor,
        covered: &Covered,
        until: DateTime<Utc>,
    ) -> Result<Option<String>, Error> {
        let config = &self.channel.config;
        let (events, next) = self.gather(covered, until).await?;
        if !events.is_empty() || self.digest.when_empty {
            let notice = notice(&config.name, config.timezone, covered.until, until, &events);
            match tokio::time::timeout(SENDING_MAX, self.channel.send(&notice)).await {
                Ok(Ok(receipt)) => {
                    tracing::info!(channel = config.name, events = events.len(), answer = receipt.said, "digest sent");
                }
                Ok(Err(failure)) => return Ok(Some(failure.to_string())),
                Err(_) => return Ok(Some("it took too long".to_owned())),
            }
        }
        cursor.write(&Covered { until, next }).await?;
        Ok(None)
    }

    fn sources(&self) -> impl Iterator<Item = &str> {
        let names = self.config.sources.iter().map(|source| source.name.as_str());
        names.filter(|source| in_route(&self.channel.config, source))
    }

    /// By source: the first entry that was entered at `time` or later.
    async fn starts(&self, time: DateTime<Utc>) -> Result<BTreeMap<String, u64>, Error> {
        let mut starts = BTreeMap::new();
        for source in self.sources() {
            let outbox = Outbox::open(self.lake.ledger_store(source)?).await?;
            let numbers = outbox.numbers().await?;
            let (mut low, mut high) = (0, numbers.len());
            while low < high {
                let middle = (low + high) / 2;
                match read(&outbox, numbers[middle]).await? {
                    Some(entry) if entry.at >= time => high = middle,
                    _ => low = middle + 1,
                }
            }
            let behind = numbers.last().map_or(ledger::FIRST, |last| last + 1);
            starts.insert(source.to_owned(), numbers.get(low).copied().unwrap_or(behind));
        }
        Ok(starts)
    }

    /// The events of the digest, and where the next one begins.
    async fn gather(
        &self,
        covered: &Covered,
        until: DateTime<Utc>,
    ) -> Result<(Vec<Told>, BTreeMap<String, u64>), Error> {
        let mut events = Vec::new();
        // Sources that are not configured just now keep their places.
        let mut next = covered.next.clone();
        for source in self.sources() {
            let outbox = Outbox::open(self.lake.ledger_store(source)?).await?;
            let known = covered.next.get(source).copied();
            let mut place = known.unwrap_or(ledger::FIRST);
            for number in outbox.numbers().await?.into_iter().filter(|number| *number >= known.unwrap_or(0)) {
                let Some(entry) = read(&outbox, number).await? else { continue };
                if entry.at >= until {
                    place = number;
                    break;
                }
                place = number + 1;
                // Of a source that is new here, what came before is not news.
                if known.is_none() && entry.at < covered.until {
                    continue;
                }
                let owners = owners(&self.config.contracts, source, entry.table.as_deref());
                if self.channel.config.route.covers(source, entry.table.as_deref(), &owners) {
                    events.push(Told { entry, owners });
                }
            }
            next.insert(source.to_owned(), place);
        }
        Ok((events, next))
    }
}

/// One that can't be read is told of by the channels.
async fn read(outbox: &Outbox, number: u64) -> Result<Option<OutboxEntry>, Error> {
    match outbox.read(number).await {
        Err(ledger::Error::Unreadable { .. }) => Ok(None),
        read => Ok(read?),
    }
}

/// An event of a digest.
struct Told {
    entry: OutboxEntry,
    owners: Vec<String>,
}

/// Of one table, or of a source as a whole.
#[derive(Default)]
struct Group<'t> {
    events: Vec<&'t Told>,
    lines: Vec<String>,
}

/// By owners, then by source and table.
fn grouped<'t>(events: &'t [Told], zone: Tz) -> BTreeMap<Vec<String>, BTreeMap<(String, String), Group<'t>>> {
    let mut groups: BTreeMap<Vec<String>, BTreeMap<(String, String), Group<'t>>> = BTreeMap::new();
    for told in events {
        let place = (told.entry.source.clone(), told.entry.table.clone().unwrap_or_default());
        groups.entry(told.owners.clone()).or_default().entry(place).or_default().events.push(told);
    }
    for group in groups.values_mut().flat_map(|tables| tables.values_mut()) {
        group.lines = lines(&group.events, zone);
    }
    groups
}

/// What happened to one table. Counts are summed: they come many times a day.
fn lines(events: &[&Told], zone: Tz) -> Vec<String> {
    let mut lines = Vec::new();
    let mut values = ValueCounts::default();
    let mut lags: Vec<f64> = Vec::new();
    for told in events {
        let entry = &told.entry;
        match entry.kind.as_str() {
            ledger::kind::VALUE_POLICY_APPLIED => {
                values.merge(&serde_json::from_value(entry.detail["values"].clone()).unwrap_or_default());
            }
            ledger::kind::SOURCE_LAGGING => lags.push(entry.detail["lag_seconds"].as_f64().unwrap_or_default()),
            _ => {
                let words = Words::of(entry, &told.owners, zone);
                let at = entry.record.as_ref().and_then(|record| record.at).unwrap_or(entry.at);
                let what = match &entry.record {
                    Some(_) if !words.changes.is_empty() => words.changes,
                    _ => vec![words.title],
                };
                let waits = entry.kind == ledger::kind::SCHEMA_HELD;
                lines.extend(what.into_iter().map(|line| format!("{}: {line}", moment(at, zone))));
                if waits {
                    lines.push(words.to_do);
                }
            }
        }
    }
    lines.extend(values.iter().map(|(column, reason, number)| format!("column `{column}`: {number} × {reason}")));
    if let Some(longest) = lags.iter().copied().reduce(f64::max) {
        let minutes = (longest / 60.0).round();
        lines.push(format!("fell behind {}, by up to {minutes} minutes", count(lags.len(), "time")));
    }
    lines
}

fn notice(channel: &str, zone: Tz, from: DateTime<Utc>, until: DateTime<Utc>, events: &[Told]) -> Notice {
    let shown = &events[..events.len().min(EVENTS_MAX)];
    let groups = grouped(shown, zone);
    let tables = groups.values().map(BTreeMap::len).sum();
    let title = match events.len() {
        0 => format!("Nothing changed {}", days(from, until, zone)),
        events => format!("{} of {} {}", count(events, "event"), count(tables, "table"), days(from, until, zone)),
    };
    let heading = |owners: &[String]| if owners.is_empty() { "Without an owner".to_owned() } else { owners.join(", ") };
    let name = |(source, table): &(String, String)| match table.as_str() {
        "" => source.clone(),
        table => format!("{table} ({source})"),
    };
    let mut text = String::new();
    let mut blocks = vec![slack::header(&title)];
    for (owners, tables) in &groups {
        text.push_str(&format!("{}\n", heading(owners)));
        blocks.push(slack::section(&format!("*{}*", escaped(&heading(owners)))));
        for (place, group) in tables {
            let list = group.lines.iter().map(|line| format!("    - {line}\n")).collect::<String>();
            text.push_str(&format!("  {}\n{list}", name(place)));
            let list = group.lines.iter().map(|line| format!("• {}", escaped(line))).collect::<Vec<_>>().join("\n");
            blocks.push(slack::section(&format!("`{}`\n{list}", escaped(&name(place)))));
        }
    }
    if events.len() > shown.len() {
        text.push_str(&format!("… and {} more\n", count(events.len() - shown.len(), "event")));
    }
    // Slack takes so many; the last says that there was more.
    if blocks.len() >= slack::BLOCKS_MAX || events.len() > shown.len() {
        blocks.truncate(slack::BLOCKS_MAX - 2);
        blocks.push(slack::context("There is more: see the table _lakeward/schema_changes in the lake."));
    }
    let id = Uuid::new_v5(&Uuid::NAMESPACE_OID, format!("digest\u{0}{channel}\u{0}{until}").as_bytes());
    blocks.push(slack::context(&format!("lakeward · {id}")));
    let text = if text.is_empty() { "All tables are as they were.\n".to_owned() } else { text };
    let json_groups: Vec<Value> = groups
        .iter()
        .map(|(owners, tables)| {
            let tables: Vec<Value> =
                tables.iter().map(|((source, table), group)| group_json(source, table, group)).collect();
            json!({"owners": owners, "tables": tables})
        })
        .collect();
    let time = |at: DateTime<Utc>| at.to_rfc3339_opts(SecondsFormat::Secs, true);
    let event = json!({
        "specversion": "1.0",
        "id": id,
        "source": "lakeward",
        "type": format!("io.lakeward.{KIND}"),
        "subject": channel,
        "time": time(until),
        "datacontenttype": "application/json",
        "dataschema": format!("urn:lakeward:events:{KIND}:1#/properties/data"),
        "data": {
            "channel": channel,
            "from": time(from),
            "until": time(until),
            "timezone": zone.name(),
            "events": events.len(),
            "groups": json_groups,
            "message": format!("{title}\n{text}"),
        },
    });
    let owners = groups.into_keys().flatten().collect();
    Notice { id, kind: KIND.to_owned(), title, text, event, blocks, owners }
}

fn group_json(source: &str, table: &str, group: &Group<'_>) -> Value {
    let event = |told: &&Told| {
        let entry = &told.entry;
        let at = entry.record.as_ref().and_then(|record| record.at).unwrap_or(entry.at);
        json!({
            "id": entry.id,
            "type": format!("io.lakeward.{}", entry.kind),
            "time": at.to_rfc3339_opts(SecondsFormat::Micros, true),
        })
    };
    json!({
        "source": source,
        "table": if table.is_empty() { Value::Null } else { json!(table) },
        "events": group.events.iter().map(event).collect::<Vec<_>>(),
        "lines": group.lines,
    })
}

/// `on 2026-03-01`, `from 2026-02-27 to 2026-03-01`
fn days(from: DateTime<Utc>, until: DateTime<Utc>, zone: Tz) -> String {
    let first = from.with_timezone(&zone).date_naive();
    let last = (until - chrono::TimeDelta::seconds(1)).with_timezone(&zone).date_naive();
    if first >= last { format!("on {last}") } else { format!("from {first} to {last}") }
}

/// What `lakeward notify test` sends to channels that have a digest.
pub fn sample_digest(channel: &NoticeChannel, source: &str, table: &str, owners: &[String]) -> Notice {
    let told = |kind| Told { entry: sample::fresh_entry(kind, source, table), owners: owners.to_vec() };
    let events = [told(ledger::kind::SCHEMA_CHANGED), told(ledger::kind::VALUE_POLICY_APPLIED)];
    let until = instant(Utc::now().with_timezone(&channel.timezone).date_naive(), NaiveTime::MIN, channel.timezone);
    let mut notice = notice(&channel.name, channel.timezone, until - chrono::TimeDelta::days(1), until, &events);
    // The day's own digest must not pass for a repeat of this.
    notice.id = Uuid::new_v4();
    notice.event["id"] = json!(notice.id);
    notice.as_sample()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::notice::sample;

    fn at(text: &str) -> DateTime<Utc> {
        DateTime::parse_from_rfc3339(text).expect("a time").to_utc()
    }

    fn digest(hour: u32) -> Digest {
        Digest { at: NaiveTime::from_hms_opt(hour, 0, 0).expect("a time"), when_empty: false }
    }

    #[test]
    fn a_digest_ends_with_the_day_before_it() {
        let seoul = chrono_tz::Asia::Seoul;
        // 08:59 and 09:00 in Seoul
        assert_eq!(due(digest(9), seoul, at("2026-03-01T23:59:59Z")), at("2026-02-28T15:00:00Z"));
        assert_eq!(due(digest(9), seoul, at("2026-03-02T00:00:00Z")), at("2026-03-01T15:00:00Z"));
        // Clocks are set forward at 02:00 in Berlin, and at midnight in Santiago.
        let berlin = chrono_tz::Europe::Berlin;
        assert_eq!(
            instant(NaiveDate::from_ymd_opt(2026, 3, 29).expect("a day"), digest(2).at, berlin),
            at("2026-03-29T01:00:00Z")
        );
        let santiago = chrono_tz::America::Santiago;
        let midnight = instant(NaiveDate::from_ymd_opt(2025, 9, 7).expect("a day"), NaiveTime::MIN, santiago);
        assert_eq!(midnight, at("2025-09-07T04:00:00Z"));
    }

    #[test]
    fn a_digest_is_grouped_by_owner_and_table_and_sums_counts() {
        let told = |kind: &str, table: &str, owners: &[&str]| Told {
            entry: sample::entry(kind, "booking", table),
            owners: owners.iter().map(|owner| (*owner).to_owned()).collect(),
        };
        let events = [
            told("schema.changed", "booking.coupons", &["marketing"]),
            told("value.policy_applied", "booking.coupons", &["marketing"]),
            told("value.policy_applied", "booking.coupons", &["marketing"]),
            told("table.added", "booking.guests", &[]),
            told("source.lagging", "", &[]),
        ];
        let zone = chrono_tz::Asia::Seoul;
        let notice = notice("team", zone, at("2026-03-01T15:00:00Z"), at("2026-03-02T15:00:00Z"), &events);
        assert_eq!(notice.title, "5 events of 3 tables on 2026-03-02");
        assert_eq!(
            notice.text,
            "\
Without an owner
  booking
    - fell behind 1 time, by up to 20 minutes
  booking.guests (booking)
    - 2026-03-02 10:20 KST: booking.guests is new in the lake
marketing
  booking.coupons (booking)
    - 2026-03-02 10:20 KST: column `grade` (varchar(20)) is new, with `bronze` in the old rows: done in the lake
    - 2026-03-02 10:20 KST: column `price` is now `amount`: done in the lake
    - column `valid_until`: 24 × zero or impossible date
"
        );
        assert_eq!(notice.event["data"]["groups"][1]["owners"], json!(["marketing"]));
        assert_eq!(days(at("2026-02-26T15:00:00Z"), at("2026-03-01T15:00:00Z"), zone), "from 2026-02-27 to 2026-03-01");
    }

    #[test]
    fn a_very_long_digest_stays_within_limits() {
        let events: Vec<Told> = (0..2000)
            .map(|number| Told {
                entry: sample::entry("schema.changed", "booking", &format!("booking.t{number}")),
                owners: vec![],
            })
            .collect();
        let notice = notice("team", Tz::UTC, at("2026-03-01T00:00:00Z"), at("2026-03-02T00:00:00Z"), &events);
        assert!(notice.blocks.len() <= slack::BLOCKS_MAX);
        assert!(notice.text.contains("and 1500 events more"), "{}", &notice.text[notice.text.len() - 100..]);
        assert_eq!(notice.event["data"]["events"], 2000);
    }
}
