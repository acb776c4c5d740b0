//! The whole way, from a statement at the source to the people concerned.

use std::fs;
use std::time::{Duration, Instant};

use lakeward::ledger::Outbox;
use serde_json::{Value, json};

use crate::lake;
use crate::servers::{Server, validate};
use crate::support::Scratch;
use crate::support::daemon::Lakeward;
use crate::support::oracle::Reader;
use crate::support::source::{Database, Kind};

#[tokio::test]
async fn people_hear_of_changes_though_their_channel_was_down_and_lakeward_killed() {
    for kind in [Kind::MariaDb, Kind::Postgres] {
        told(kind).await;
    }
}

async fn told(kind: Kind) {
    let Some(database) = Database::create(kind, "notice").await else { return };
    let Some(mut reader) = Reader::start(None) else { return };
    let scratch = Scratch::new("notice-daemon");
    let mut server = Server::new("receiver.py", scratch.path(), &["--secret", "key"]);
    let table = database.table("coupons");
    let mut session = database.session().await;
    session.run("CREATE TABLE coupons (id INT PRIMARY KEY, price INT); INSERT INTO coupons VALUES (1, 10)").await;
    fs::create_dir(scratch.path().join("schemas")).expect("writable");
    let contract =
        format!("table = \"{table}\"\nowners = [\"marketing\"]\n[schema_changes]\ndrop = \"hold\"\nadd = \"apply\"\n");
    fs::write(scratch.path().join("schemas/coupons.toml"), contract).expect("writable");
    fs::write(scratch.path().join("password"), "cdc\n").expect("writable");
    let mut lakeward = Lakeward::new(
        scratch.path(),
        &format!(
            "[lake]\nurl = \"lake\"\n[commit]\ninterval_seconds = 1\n{}\n[[notice]]\nname = \"hook\"\nkind = \"webhook\"\n\
             url = \"http://127.0.0.1:{}/\"\nsecret = \"key\"\nowners = [\"marketing\"]\n",
            database.source_toml(),
            server.port
        ),
    );
    let mut daemon = lakeward.start();
    daemon.wait_for_log("streaming");
    session.run("ALTER TABLE coupons ADD COLUMN grade VARCHAR(20) DEFAULT 'bronze'").await;
    session.run("INSERT INTO coupons (id, price) VALUES (2, 20)").await;
    session.run("ALTER TABLE coupons DROP COLUMN price").await;
    session.run("INSERT INTO coupons (id) VALUES (3)").await;

    // The data does not wait for the channel, which is down.
    let path = scratch.path().join("lake/src").join(table.replace('.', "/"));
    let url = format!("file://{}", path.display());
    let started = Instant::now();
    loop {
        let rows = reader.rows(&url, None, "SELECT count(*) FROM t");
        if rows == [[json!(3)].to_vec()] {
            break;
        }
        assert!(daemon.is_running() && started.elapsed() < Duration::from_secs(60), "{rows:?}\n{}", daemon.log());
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    let rows = reader.rows(&url, None, "SELECT id, price, grade FROM t ORDER BY id");
    let old = [json!(1), json!(10), json!("bronze")].to_vec();
    assert_eq!(rows[0], old, "{}", daemon.log());
    daemon.wait_for_log("a channel does not take notices");
    daemon.kill();

    if server.start().is_none() {
        return;
    }
    lakeward.catch_up();
    let took = server.took();
    let events: Vec<Value> = took.iter().map(|line| line["body"].clone()).collect();
    assert_eq!(validate(&events), ["schema.changed", "schema.held"]);
    assert!(took.iter().all(|line| line["signature"] == "valid"));
    let mut seen = Vec::new();
    for event in &events {
        let of = (event["type"].as_str().unwrap_or_default().to_owned(), event["id"].clone());
        if !seen.contains(&of) {
            seen.push(of);
        }
    }
    let kinds: Vec<&str> = seen.iter().map(|(kind, _)| kind.as_str()).collect();
    assert_eq!(kinds, ["io.lakeward.schema.changed", "io.lakeward.schema.held"], "in order, each its own event");
    let changed = &events[0]["data"];
    assert_eq!((&changed["table"], &changed["owners"]), (&json!(table), &json!(["marketing"])));
    assert_eq!(changed["steps"][0]["column"], "grade");
    assert!(changed["message"].as_str().unwrap_or_default().contains("Old rows have the same value"), "{changed}");
    let held = events.last().map(|event| &event["data"]).expect("two at least");
    assert!(held["message"].as_str().unwrap_or_default().contains("lakeward schema approve"), "{held}");

    let history = format!("file://{}", scratch.path().join("lake/_lakeward/schema_changes").display());
    let rows = reader.rows(
        &history,
        None,
        "SELECT column_name, kind, outcome, table_name FROM t ORDER BY outbox_number, step",
    );
    let row =
        |column: &str, kind: &str, outcome: &str| [json!(column), json!(kind), json!(outcome), json!(table)].to_vec();
    assert_eq!(rows, [row("grade", "add", "applied"), row("price", "drop", "held")]);

    // Nothing is told again.
    let outbox = Outbox::open(lake(scratch.path()).ledger_store("src").expect("a folder")).await.expect("readable");
    let entered = outbox.numbers().await.expect("listed").len();
    lakeward.catch_up();
    assert_eq!(server.took().len(), took.len());
    assert_eq!(outbox.numbers().await.expect("listed").len(), entered);
    database.drop().await;
}
