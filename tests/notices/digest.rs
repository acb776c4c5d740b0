//! Once a day, what changed the day before; neither twice nor never.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Days, NaiveTime, TimeDelta, Utc};
use lakeward::ledger::{Cursor, Holder};
use lakeward::notice::Digests;
use serde_json::{Value, json};

use crate::servers::{Server, validate};
use crate::{Place, QUICK, entry_at};

fn midnight(days_ago: u64) -> DateTime<Utc> {
    let today = Utc::now().date_naive().and_time(NaiveTime::MIN).and_utc();
    today.checked_sub_days(Days::new(days_ago)).expect("a day")
}

/// The channel `team` has told everything up to `until`.
async fn told_until(place: &Place, until: DateTime<Utc>, next: &[(&str, u64)]) {
    let store = place.lake.notices_store().expect("a folder");
    let (mut cursor, _) = Cursor::open::<Value>(store, "team").await.expect("readable");
    let next: BTreeMap<&str, u64> = next.iter().copied().collect();
    cursor.write(&json!({"until": until, "next": next})).await.expect("written");
}

async fn run(place: &Place) {
    let digests = Digests::start(&place.lake, &place.config, &Holder::this_process(), QUICK);
    digests.finish(Duration::from_secs(30)).await;
}

fn channel(server: &Server, more: &str) -> String {
    format!(
        "[[notice]]\nname = \"team\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\ndigest = \"00:00\"\n{more}\n",
        server.port
    )
}

#[tokio::test]
async fn a_digest_tells_all_sources_once_and_what_was_missed_at_the_next_start() {
    let mut place = Place::new("notice-digest");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.contract("booking.coupons", &["marketing"]);
    place.configure(&channel(&server, ""));
    let mut booking = place.outbox("booking").await;
    let mut loyalty = place.outbox("loyalty").await;
    let (before, yesterday) = (midnight(3) - TimeDelta::hours(1), midnight(1) + TimeDelta::hours(5));
    booking.append(&entry_at(before, "table.added", "booking", "booking.old")).await.expect("a folder");
    booking.append(&entry_at(midnight(2), "schema.changed", "booking", "booking.coupons")).await.expect("a folder");
    booking.append(&entry_at(yesterday, "table.stopped", "booking", "booking.guests")).await.expect("a folder");
    booking.append(&entry_at(Utc::now(), "table.added", "booking", "booking.today")).await.expect("a folder");
    loyalty.append(&entry_at(yesterday, "value.policy_applied", "loyalty", "loyalty.points")).await.expect("a folder");
    loyalty.append(&entry_at(yesterday, "source.lagging", "loyalty", "")).await.expect("a folder");

    // As if lakeward had been down for two days. Of loyalty nothing is known yet.
    told_until(&place, midnight(3), &[("booking", 2)]).await;
    run(&place).await;
    let took = server.took();
    assert_eq!(took.len(), 1);
    let event = &took[0]["body"];
    assert_eq!(validate(std::slice::from_ref(event)), ["digest"]);
    let data = &event["data"];
    assert_eq!(data["events"], 4);
    let tables: Vec<String> = data["groups"]
        .as_array()
        .expect("groups")
        .iter()
        .flat_map(|group| group["tables"].as_array().expect("tables"))
        .map(|table| {
            format!("{}/{}", table["source"].as_str().unwrap_or_default(), table["table"].as_str().unwrap_or("*"))
        })
        .collect();
    assert_eq!(tables, ["booking/booking.guests", "loyalty/*", "loyalty/loyalty.points", "booking/booking.coupons"]);
    let message = data["message"].as_str().unwrap_or_default();
    assert!(
        message.contains(&format!("from {} to {}", midnight(3).date_naive(), midnight(1).date_naive())),
        "{message}"
    );

    // After a restart it is not told again, and today's events are in tomorrow's.
    run(&place).await;
    assert_eq!(server.got().len(), 1);
    let store = place.lake.notices_store().expect("a folder");
    let (_, covered) = Cursor::open::<Value>(store, "team").await.expect("readable");
    assert_eq!(covered.expect("written")["next"], json!({"booking": 4, "loyalty": 3}));
}

#[tokio::test]
async fn an_empty_day_is_told_only_if_asked_and_the_first_digest_is_tomorrows() {
    let mut place = Place::new("notice-empty");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.configure(&channel(&server, ""));
    run(&place).await;
    told_until(&place, midnight(1), &[]).await;
    run(&place).await;
    assert_eq!(server.got().len(), 0, "nothing was to be told");

    told_until(&place, midnight(1), &[]).await;
    place.configure(&channel(&server, "digest_when_empty = true"));
    run(&place).await;
    run(&place).await;
    let took = server.took();
    assert_eq!(took.len(), 1);
    let event = &took[0]["body"];
    assert_eq!(validate(std::slice::from_ref(event)), ["digest"]);
    let message = event["data"]["message"].as_str().unwrap_or_default();
    assert!(message.starts_with(&format!("Nothing changed on {}", midnight(1).date_naive())), "{message}");
}

#[tokio::test]
async fn a_digest_waits_for_a_receiver_that_is_down() {
    let mut place = Place::new("notice-digest-down");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    place.configure(&channel(&server, "digest_when_empty = true\nevents = [\"table.*\"]"));
    told_until(&place, midnight(1), &[]).await;
    let digests = Digests::start(&place.lake, &place.config, &Holder::this_process(), QUICK);
    tokio::time::sleep(Duration::from_millis(300)).await;
    if server.start().is_none() {
        return;
    }
    server.wait_for(1).await;
    digests.finish(Duration::from_secs(10)).await;
    assert_eq!(server.took().len(), 1);
}
