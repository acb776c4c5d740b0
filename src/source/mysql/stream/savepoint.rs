//! Savepoints. Rows that were rolled back are usually not in the log: servers cut them off their own buffer. Where the
//! transaction also changed a table without transactions they are, with a `ROLLBACK TO` behind them, and are undone here.

use super::{Error, RELOAD, Reader};

impl Reader {
    pub(super) fn savepoint(&mut self, name: String) {
        let mark = self.collector.mark();
        if let Some(open) = &mut self.open {
            // Names compare without case, and a name used again moves.
            open.savepoints.retain(|(other, _)| !other.eq_ignore_ascii_case(&name));
            open.savepoints.push((name, mark));
        }
    }

    pub(super) async fn rollback_to(&mut self, name: &str) -> Result<(), Error> {
        let Some(open) = &mut self.open else { return Ok(()) };
        let touched = open.touched.clone();
        let at = open.savepoints.iter().position(|(other, _)| other.eq_ignore_ascii_case(name));
        let undone = match at {
            Some(at) => {
                open.savepoints.truncate(at + 1);
                let mark = open.savepoints[at].1.clone();
                self.collector.rollback_to(&mark).await?
            }
            None => false,
        };
        if undone {
            // Rows moved; the other marks with them.
            if let Some(open) = &mut self.open {
                open.savepoints.clear();
            }
            return Ok(());
        }
        for table in touched {
            let finding = "a transaction was rolled back to a savepoint after its rows were handed on".to_owned();
            self.stop_table(&table, finding, RELOAD.to_owned()).await?;
        }
        Ok(())
    }
}
