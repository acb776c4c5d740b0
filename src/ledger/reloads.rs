//! Loads that lakeward begins by itself, since a table's rows could not be carried through a change: paced, so that a table
//! that is changed again and again is not read again and again. Kept in the entry, for a restart must not be a way around it.

use std::collections::BTreeMap;
use std::time::Duration;

use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

/// Between the first such load of a table and the second; then four times as long each time.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const PAUSE_MAX: Duration = Duration::from_secs(3600);

/// After so long without one, the next is a first one.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(3600);

/// The last one of a table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reload {
    /// How many came one soon after the other.
    pub count: u32,
    /// It does not begin before.
    pub begins_at: DateTime<Utc>,
}

/// By table.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Reloads(BTreeMap<String, Reload>);

impl Reloads {
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Another one is wanted: says when it may begin.
    pub fn ask(&mut self, table: &str, now: DateTime<Utc>) -> DateTime<Utc> {
        self.0.retain(|_, last| now < last.begins_at + FORGOTTEN_AFTER);
        let count = self.0.get(table).map_or(0, |last| last.count) + 1;
        let pause = match count {
            1 => Duration::ZERO,
            _ => FIRST_PAUSE.saturating_mul(4_u32.saturating_pow(count - 2)).min(PAUSE_MAX),
        };
        let begins_at = now + pause;
        self.0.insert(table.to_owned(), Reload { count, begins_at });
        begins_at
    }

    /// When the load of a table that is to be loaded may begin, if it may not yet.
    pub fn waits_until(&self, table: &str, now: DateTime<Utc>) -> Option<DateTime<Utc>> {
        self.0.get(table).map(|last| last.begins_at).filter(|at| *at > now)
    }

    /// A person wants the table to be loaded: at once.
    pub fn forget(&mut self, table: &str) {
        self.0.remove(table);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_load_begins_at_once_and_others_soon_after_it_ever_later() {
        let mut reloads = Reloads::default();
        let mut now = Utc::now();
        let mut pauses = Vec::new();
        for _ in 0..7 {
            let at = reloads.ask("shop.goods", now);
            pauses.push((at - now).num_seconds());
            assert_eq!(reloads.waits_until("shop.goods", now), (at > now).then_some(at));
            assert_eq!(reloads.waits_until("shop.goods", at), None);
            now = at + Duration::from_secs(60);
        }
        assert_eq!(pauses, [0, 10, 40, 160, 640, 2560, 3600]);
        assert_eq!(reloads.ask("shop.other", now), now, "each table by itself");
        reloads.forget("shop.goods");
        assert_eq!(reloads.ask("shop.goods", now), now, "a person asked");
        reloads.ask("shop.goods", now);
        now += FORGOTTEN_AFTER + Duration::from_secs(11);
        assert_eq!(reloads.ask("shop.goods", now), now, "a quiet hour");
    }
}
