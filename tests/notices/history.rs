//! The table of schema changes, as other engines read it.

use std::time::Duration;

use lakeward::notice::schema_changes_url;
use serde_json::json;

use crate::support::oracle::{Reader, Readers};
use crate::{Place, entry};

#[tokio::test]
async fn every_change_is_a_row_exactly_once_whatever_is_killed() {
    let place = Place::new("notice-history");
    let (Some(mut reader), Some(mut readers)) = (Reader::start(None), Readers::start()) else { return };
    let mut outboxes = [("booking", place.outbox("booking").await), ("loyalty", place.outbox("loyalty").await)];
    for round in 0..10_u64 {
        let deliveries = [place.start("booking").await, place.start("loyalty").await];
        for (source, outbox) in &mut outboxes {
            let changed = entry("schema.changed", source, "shop.coupons");
            outbox.append(&changed).await.expect("a folder");
            outbox.append(&entry("source.lagging", source, "")).await.expect("a folder");
            // After a crash the pipeline enters it once more.
            outbox.append(&changed).await.expect("a folder");
            outbox.append(&entry("table.stopped", source, "shop.coupons")).await.expect("a folder");
        }
        deliveries.iter().zip(&outboxes).for_each(|(deliveries, (_, outbox))| deliveries.wake(outbox.newest()));
        tokio::time::sleep(Duration::from_millis(round * 13 % 90)).await;
        // Tasks are aborted where they stand.
        drop(deliveries);
    }
    for source in ["booking", "loyalty"] {
        place.start(source).await.finish(Duration::from_secs(60)).await;
    }
    let url = schema_changes_url(&place.lake).expect("a folder").to_string();
    let counts = reader.rows(
        &url,
        None,
        "SELECT source, event, step, count(*), count(DISTINCT id) FROM t GROUP BY ALL ORDER BY ALL",
    );
    let mut expected = Vec::new();
    for source in ["booking", "loyalty"] {
        expected.push(vec![json!(source), json!("schema.changed"), json!(1), json!(10), json!(10)]);
        expected.push(vec![json!(source), json!("schema.changed"), json!(2), json!(10), json!(10)]);
        expected.push(vec![json!(source), json!("table.stopped"), json!(null), json!(10), json!(10)]);
    }
    assert_eq!(counts, expected);
    let step = reader.rows(
        &url,
        None,
        "SELECT kind, column_name, new_name, source_type_before, source_type_after, outcome, table_name, changed_at, lake_version
         FROM t WHERE source = 'booking' AND event = 'schema.changed' ORDER BY outbox_number, step LIMIT 2",
    );
    let at = json!("2026-03-02 01:20:00+00:00");
    assert_eq!(
        step,
        [
            [
                json!("add"),
                json!("grade"),
                json!(null),
                json!(null),
                json!("varchar(20)"),
                json!("applied"),
                json!("shop.coupons"),
                at.clone(),
                json!(42)
            ]
            .to_vec(),
            [
                json!("rename"),
                json!("price"),
                json!("amount"),
                json!("int"),
                json!("int"),
                json!("applied"),
                json!("shop.coupons"),
                at,
                json!(42)
            ]
            .to_vec(),
        ]
    );
    readers.assert_agree(place.path().join("lake/_lakeward/schema_changes").to_str().expect("UTF-8"));
}
