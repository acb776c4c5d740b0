//! At least once, in order for each table, and never in the way of the data.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use lakeward::ledger::Outbox;
use serde_json::{Value, json};

use crate::servers::Server;
use crate::{Place, entry};

/// A webhook channel to it, with what else is said.
fn channel(server: &Server, more: &str) -> String {
    format!("[[notice]]\nname = \"hook\"\nkind = \"webhook\"\nurl = \"http://127.0.0.1:{}/\"\n{more}\n", server.port)
}

async fn fill(outbox: &mut Outbox, tables: &[&str], count: usize) -> Vec<(String, String)> {
    let mut filled = Vec::new();
    for number in 0..count {
        let table = tables[number % tables.len()];
        let entry = entry("table.added", "booking", table);
        outbox.append(&entry).await.expect("the lake is a folder");
        filled.push((table.to_owned(), entry.id.to_string()));
    }
    filled
}

/// Subject and id of each, in the order of arrival; repeats of the one before left out.
fn arrived(took: &[Value]) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    took.iter().map(|line| (text(&line["body"]["subject"]), text(&line["body"]["id"]))).collect()
}

fn of_table(events: &[(String, String)], table: &str) -> Vec<String> {
    let mut seen = BTreeSet::new();
    let of = events.iter().filter(|(subject, _)| subject == table);
    of.filter(|(_, id)| seen.insert(id.clone())).map(|(_, id)| id.clone()).collect()
}

#[tokio::test]
async fn a_receiver_that_was_down_gets_everything_in_order_and_nothing_waited_for_it() {
    let mut place = Place::new("notice-down");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    place.configure(&channel(&server, ""));
    let deliveries = place.start("booking").await;
    let mut outbox = place.outbox("booking").await;
    let begun = Instant::now();
    let mut filled = fill(&mut outbox, &["booking.a", "booking.b"], 10).await;
    deliveries.wake(outbox.newest());
    tokio::time::sleep(Duration::from_millis(300)).await;
    filled.extend(fill(&mut outbox, &["booking.a", "booking.b"], 10).await);
    assert!(begun.elapsed() < Duration::from_secs(20), "entering events waits for nobody");

    server.answer(&json!({"status": 503, "headers": {"Retry-After": "1"}}));
    if server.start().is_none() {
        return;
    }
    while server.got().is_empty() {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let first = Instant::now();
    server.answer(&Value::Null);
    let took = server.wait_for(20).await;
    assert!(first.elapsed() > Duration::from_millis(900), "it asked for a second");
    assert_eq!(arrived(&took), filled, "in order, none twice");
    deliveries.finish(Duration::from_secs(10)).await;
    assert_eq!(server.took().len(), 20);
}

#[tokio::test]
async fn an_event_that_is_refused_holds_up_its_table_only_across_restarts_too() {
    let mut place = Place::new("notice-refused");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.configure(&channel(&server, ""));
    server.answer(&json!({"subjects": {"booking.a": 422}}));
    let deliveries = place.start("booking").await;
    let mut outbox = place.outbox("booking").await;
    let mut filled = fill(&mut outbox, &["booking.a", "booking.b"], 10).await;
    let took = server.wait_for(5).await;
    assert_eq!(of_table(&arrived(&took), "booking.b"), of_table(&filled, "booking.b"));
    deliveries.finish(Duration::from_secs(10)).await;

    let deliveries = place.start("booking").await;
    filled.extend(fill(&mut outbox, &["booking.b", "booking.a"], 2).await);
    server.wait_for(6).await;
    assert_eq!(of_table(&arrived(&server.took()), "booking.a"), Vec::<String>::new());
    server.answer(&Value::Null);
    let took = server.wait_for(12).await;
    for table in ["booking.a", "booking.b"] {
        assert_eq!(of_table(&arrived(&took), table), of_table(&filled, table));
    }
    deliveries.finish(Duration::from_secs(10)).await;
    assert_eq!(server.took().len(), 12, "none was delivered twice");
}

#[tokio::test]
async fn nothing_is_lost_and_nothing_overtakes_when_deliveries_are_killed_again_and_again() {
    let mut place = Place::new("notice-killed");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.configure(&channel(&server, ""));
    // The channel's cursor is made before the first event.
    drop(place.start("booking").await);
    let mut outbox = place.outbox("booking").await;
    let mut filled = Vec::new();
    for round in 0..12_u64 {
        filled.extend(fill(&mut outbox, &["booking.a", "booking.b", "booking.c"], 6).await);
        if round == 5 {
            server.answer(&json!({"status": 500}));
        } else if round == 7 {
            server.answer(&Value::Null);
        }
        let deliveries = place.start("booking").await;
        tokio::time::sleep(Duration::from_millis(round * 7 % 40)).await;
        // Tasks are aborted where they stand, between delivery and cursor too.
        drop(deliveries);
    }
    let deliveries = place.start("booking").await;
    deliveries.finish(Duration::from_secs(30)).await;
    let arrived = arrived(&server.took());
    for table in ["booking.a", "booking.b", "booking.c"] {
        assert_eq!(of_table(&arrived, table), of_table(&filled, table), "{table}");
    }
}

#[tokio::test]
async fn a_channel_gets_what_its_route_says_and_a_new_one_begins_now() {
    let mut place = Place::new("notice-route");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    if server.start().is_none() {
        return;
    }
    place.contract("booking.a", &["marketing", "sales"]);
    place.contract("booking.b", &["finance"]);
    let mut outbox = place.outbox("booking").await;
    outbox.append(&entry("table.stopped", "booking", "booking.a")).await.expect("a folder");
    place.configure(&channel(&server, "owners = [\"sales\"]\nevents = [\"table.*\"]"));
    let deliveries = place.start("booking").await;
    for (kind, table) in [
        ("table.stopped", "booking.a"),
        ("table.stopped", "booking.b"),
        ("schema.changed", "booking.a"),
        ("table.stopped", "booking.none"),
        ("source.lagging", ""),
        ("table.added", "booking.a"),
    ] {
        outbox.append(&entry(kind, "booking", table)).await.expect("a folder");
    }
    deliveries.finish(Duration::from_secs(30)).await;
    let got: Vec<(String, Value)> = server
        .got()
        .iter()
        .map(|line| (line["body"]["type"].to_string(), line["body"]["data"]["owners"].clone()))
        .collect();
    let owners = json!(["marketing", "sales"]);
    assert_eq!(
        got,
        [
            ("\"io.lakeward.table.stopped\"".to_owned(), owners.clone()),
            ("\"io.lakeward.table.added\"".to_owned(), owners)
        ]
    );
}

#[tokio::test]
async fn the_end_of_a_run_waits_for_a_dead_channel_only_so_long() {
    let mut place = Place::new("notice-end");
    let mut server = Server::new("receiver.py", place.path(), &[]);
    place.configure(&channel(&server, ""));
    let deliveries = place.start("booking").await;
    let mut outbox = place.outbox("booking").await;
    let filled = fill(&mut outbox, &["booking.a"], 3).await;
    let begun = Instant::now();
    deliveries.finish(Duration::from_millis(500)).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    // The next run delivers them.
    if server.start().is_none() {
        return;
    }
    place.start("booking").await.finish(Duration::from_secs(30)).await;
    assert_eq!(arrived(&server.took()), filled);
}
