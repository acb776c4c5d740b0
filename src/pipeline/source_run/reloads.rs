//! Loads of tables that are in the lake already and that nobody asked for: where policy says that a table is loaded again
//! rather than stopped.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::super::Error;
use super::super::telling::{self, Trouble, with_command};
use super::loads::ToBegin;
use super::prepare::Found;
use super::{SourceRun, locked};
use crate::config::{ChangeKind, ChangePolicies, ChangePolicy, OnLostPosition, SourceConfig, default_slot};
use crate::lake::{Place, Table};
use crate::ledger::{Entry, TableState};
use crate::schema::{RESYNC, TableName, TableSchema, kept_from_load};
use crate::source::{self, Source};

impl<S: Source> SourceRun<S> {
    /// When the load of this table may begin, if it may not yet. A run that ends by itself does not wait.
    pub(super) fn waits_until(&self, entry: &Entry, table: &TableName) -> Option<DateTime<Utc>> {
        if self.options.until_caught_up {
            return None;
        }
        entry.reloads.waits_until(&table.to_string(), Utc::now())
    }

    /// Whether a table that was dropped and created again is loaded again, and not only stopped.
    pub(super) fn loads_recreated(&self, table: &TableName) -> bool {
        self.policies(table).of(ChangeKind::Change) == ChangePolicy::Apply
    }

    /// The same for a table that is not in the publication any more, as one is that was created again. Only lakeward's own
    /// publication is mended.
    pub(super) fn loads_unpublished(&self, table: &Table) -> bool {
        let is_ours = self.source_config().is_some_and(|source| source.publication == default_slot(&self.name));
        let kept = kept_from_load(table.shape(), &self.policies(table.name()));
        is_ours && self.loads_recreated(table.name()) && kept.is_none()
    }

    fn policies(&self, table: &TableName) -> ChangePolicies {
        self.config.change_policies(&self.name, &table.to_string())
    }

    pub(super) fn source_config(&self) -> Option<&SourceConfig> {
        self.config.sources.iter().find(|source| source.name == self.name)
    }

    /// Tables that were found to be loaded again: from here on the entry says so.
    pub(super) fn begin_again(&self, entry: &mut Entry, found: &mut Found) {
        for (table, before) in std::mem::take(&mut found.again) {
            let text = table.to_string();
            tracing::warn!(source = self.name, table = text, why = before.reason(), "the table is loaded again");
            entry.reloads.ask(&text, Utc::now());
            let id = Uuid::new_v4();
            let state = TableState::to_resync(id, before);
            entry.tables.insert(text.clone(), state.clone());
            match self.waits_until(entry, &table) {
                Some(at) => found.wait(&table, state, at),
                None => found.to_begin.push(ToBegin { name: table, place: Place::Hidden(id) }),
            }
        }
    }

    /// Whether an attempt goes on with new loads after this error.
    pub(super) fn loads_anew_after(&self, error: &source::Error) -> bool {
        let wanted = self.source_config().map(|source| source.on_lost_position);
        is_position_lost(error) && wanted == Some(OnLostPosition::Resync)
    }

    /// Whether the run goes on after this error, with an attempt that takes the position for lost: the stream may notice
    /// what is not to be seen at the start.
    pub(super) fn takes_for_lost(&self, error: &Error) -> bool {
        let Error::Source(error) = error else { return false };
        let lost = self.loads_anew_after(error);
        if lost {
            *locked(&self.lost) = Some(error.to_string());
        }
        lost
    }

    /// The error with the command as it is to be typed for this source.
    pub(super) fn named(&self, error: Error) -> Error {
        match &error {
            Error::Source(lost) if is_position_lost(lost) => Error::PositionLost { text: lost.for_source(&self.name) },
            _ => error,
        }
    }

    /// The log is lost: what streams is to be loaded again. A table that waits for somebody's decision can't go on where it
    /// waits, and does not go beyond that by itself: it stops. So do those stay stopped that have stopped.
    pub(super) fn load_all_again(&self, entry: &mut Entry, discovered: &[TableSchema], found: &mut Found) {
        for (table, opened) in std::mem::take(&mut found.open) {
            let (text, held) = (table.to_string(), opened.position().to_owned());
            let declared = discovered.iter().any(|schema| schema.name == table);
            match entry.tables.get(&text) {
                // The entry must say at once what becomes of these: they are not to go on at its new position.
                _ if !declared => {
                    let gone = TableState::Dropped { position: held, at: None };
                    entry.tables.insert(text.clone(), gone.clone());
                    found.states.insert(text, gone);
                }
                Some(TableState::Waiting { reason, position, .. }) => {
                    let (reason, position) = (reason.clone(), position.clone());
                    let reason =
                        format!("{reason}; it waited for a decision, and the log from there on is lost; {RESYNC}");
                    let reason = with_command(&reason, &self.name, &text);
                    found.untold.push(telling::stopped(
                        &self.name,
                        &text,
                        &position,
                        &Trouble::of_text(reason.as_str()),
                    ));
                    found.stop(&self.name, &table, reason.clone(), position.clone());
                    entry.tables.insert(text, TableState::Stopped { reason, position });
                }
                Some(TableState::Loading { hidden: Some(_), before: Some(before), .. }) => {
                    found.again.push((table, TableState::clone(before)));
                }
                _ => {
                    let reason = format!("it has no changes after {held}, for the log from there on is lost; {RESYNC}");
                    let reason = with_command(&reason, &self.name, &text);
                    found.again.push((table, TableState::Stopped { reason, position: held }));
                }
            }
        }
        self.begin_again(entry, found);
    }
}

impl Found {
    /// A table whose load may not begin before `at`.
    pub(super) fn wait(&mut self, table: &TableName, state: TableState, at: DateTime<Utc>) {
        self.states.insert(table.to_string(), state);
        self.again_at = Some(self.again_at.map_or(at, |before| before.min(at)));
    }
}

/// Whether what follows the lake's position can't be read any more.
pub(super) fn is_position_lost(error: &source::Error) -> bool {
    use source::Error as Cause;
    matches!(error, Cause::PositionLost { .. } | Cause::SlotLost { .. } | Cause::OtherHistory { .. })
}
