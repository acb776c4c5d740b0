//! Events that hold others, or rows in another form than plain ones.

use super::super::compressed::{Payload, event_part};
use super::super::event;
use super::super::plan::RowsKind;
use super::super::table_map::{self, RowsEvent};
use super::super::wire::Fault;
use super::{RELOAD, Reader};
use crate::source::Error;

impl Reader {
    /// A compressed transaction: all its events, its end among them.
    pub(super) async fn payload(&mut self, body: &[u8]) -> Result<(), Error> {
        let fault = |reader: &Self, fault: &Fault| reader.protocol("a compressed transaction", fault);
        if self.open.is_none() {
            return Err(fault(self, &Fault::new("it has no GTID event")));
        }
        let mut payload = Payload::parse(body).map_err(|error| fault(self, &error))?;
        while let Some((head, body)) = payload.next().map_err(|error| fault(self, &error))? {
            if self.open.is_none() {
                return Err(fault(self, &Fault(format!("an event of type {} follows its end", head.kind))));
            }
            if !event::is_inside_transactions(head.kind) {
                return Err(fault(self, &Fault(format!("an event of type {} is in it", head.kind))));
            }
            self.event(head, body).await?;
        }
        match self.open {
            None => Ok(()),
            Some(_) => Err(fault(self, &Fault::new("its end is missing"))),
        }
    }

    /// MariaDB's `log_bin_compress`: the head is plain. Whether the table is captured is known before the rest is unpacked.
    pub(super) async fn compressed_rows(&mut self, kind: RowsKind, version_2: bool, body: &[u8]) -> Result<(), Error> {
        let event = table_map::rows_event(body, version_2, kind == RowsKind::Update)
            .map_err(|fault| self.protocol("a compressed row event", &fault))?;
        let name = self.maps.get(&event.table_id).and_then(|map| map.table.clone());
        let wanted = name.filter(|name| event.width > 0 && self.counted(name).is_some());
        let Some(name) = wanted else { return self.decode_rows(kind, event, body.len()).await };
        match event_part(event.rows) {
            Ok(rows) => self.decode_rows(kind, RowsEvent { rows: &rows, ..event }, rows.len()).await,
            Err(fault) => {
                let finding = format!("compressed rows can't be read: {fault}");
                self.stop_table(&name, finding, RELOAD.to_owned()).await
            }
        }
    }

    /// Updates that hold parts of JSON documents: their table stops, others don't care.
    pub(super) async fn partial_rows(&mut self, body: &[u8]) -> Result<(), Error> {
        let id = table_map::table_id(body).map_err(|fault| self.protocol("a row event", &fault))?;
        let Some(map) = self.maps.get(&id) else {
            return Err(self.protocol("a row event", &Fault(format!("table id {id} has no table map"))));
        };
        let Some(name) = map.table.clone() else { return Ok(()) };
        if self.counted(&name).is_none() {
            return Ok(());
        }
        let finding = "rows were written with binlog_row_value_options=PARTIAL_JSON: they hold parts of documents only";
        let remedy = format!("set binlog_row_value_options='' in all sessions, then {RELOAD}");
        self.stop_table(&name, finding.to_owned(), remedy).await
    }
}
