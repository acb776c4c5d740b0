//! Positions at the server: the present one, and whether an older one can still be read.

use std::collections::HashMap;

use mysql_async::Row;
use mysql_async::prelude::Queryable;

use crate::source::{Error, GtidSet, Position};

use super::connection::{Session, literal};

/// What the log is named by on this server: GTIDs, or files and offsets where MySQL's GTIDs are off.
pub async fn uses_gtids(session: &mut Session) -> Result<bool, Error> {
    if session.flavor.is_mariadb() {
        return Ok(true);
    }
    let answer = session.query("SELECT @@global.gtid_mode").await?;
    Ok(answer.scalar().is_some_and(|mode| mode.eq_ignore_ascii_case("ON")))
}

/// The position of the last transaction committed so far.
pub async fn head(session: &mut Session) -> Result<Position, Error> {
    if session.flavor.is_mariadb() {
        let answer = session.query("SELECT @@global.gtid_binlog_pos").await?;
        return mariadb(answer.scalar().unwrap_or_default());
    }
    if uses_gtids(session).await? {
        let answer = session.query("SELECT @@global.gtid_executed").await?;
        return Ok(Position::MySqlGtid(gtid_set(answer.scalar().unwrap_or_default())?));
    }
    let answer = session.query(session.flavor.clone().binlog_status_statement()).await?;
    let file = answer.value("File").filter(|file| !file.is_empty());
    let offset = answer.value("Position").and_then(|offset| offset.parse().ok());
    match (file, offset) {
        (Some(file), Some(offset)) => Ok(Position::BinlogOffset { file: file.to_owned(), offset }),
        _ => Err(Error::Setting {
            subject: "log_bin".to_owned(),
            finding: "the server writes no binlog".to_owned(),
            remedy: "add log_bin=binlog to the server's configuration and restart it".to_owned(),
        }),
    }
}

pub fn mariadb(text: &str) -> Result<Position, Error> {
    format!("mariadb:{text}")
        .parse()
        .map_err(|_| Error::Protocol { position: text.to_owned(), finding: "not a MariaDB GTID position".to_owned() })
}

fn gtid_set(text: &str) -> Result<GtidSet, Error> {
    text.parse().map_err(|_| Error::Protocol { position: text.to_owned(), finding: "not a MySQL GTID set".to_owned() })
}

/// Checks that everything after `position` can be read.
pub async fn check_available(session: &mut Session, position: &Position) -> Result<(), Error> {
    let lost = |cause: String| Error::PositionLost { position: position.clone(), cause };
    let server = session.flavor.to_string();
    let gtids = uses_gtids(session).await?;
    match position {
        Position::MariaDbGtid(domains) if session.flavor.is_mariadb() => {
            // An unknown domain is no error to the server when a reader names it.
            let answer = session.query("SELECT @@global.gtid_binlog_state").await?;
            let known = highest_by_domain(answer.scalar().unwrap_or_default());
            for (domain, (server_id, sequence)) in domains {
                if known.get(domain).is_none_or(|highest| highest < sequence) {
                    return Err(lost(format!(
                        "the server's log does not hold transaction {domain}-{server_id}-{sequence} \
                         (gtid_binlog_state is `{}`): it was reset, or is another server",
                        answer.scalar().unwrap_or_default()
                    )));
                }
            }
            let logs = session.query("SHOW BINARY LOGS").await?;
            let Some(first) = logs.scalar() else {
                return Err(lost("the server has no binary logs".to_owned()));
            };
            let statement = format!("SELECT BINLOG_GTID_POS({}, 4)", literal(first));
            let answer = session.query(&statement).await?;
            let oldest = mariadb(answer.scalar().unwrap_or_default())?;
            if position.covers(&oldest) {
                Ok(())
            } else {
                Err(lost(format!("the oldest binary log, {first}, begins after {oldest}: earlier ones were purged")))
            }
        }
        Position::MySqlGtid(ours) if gtids && !session.flavor.is_mariadb() => {
            let answer = session.query("SELECT @@global.gtid_purged, @@global.gtid_executed").await?;
            let row = answer.rows.into_iter().next().unwrap_or_default();
            let mut values = row.into_iter().map(Option::unwrap_or_default);
            let purged = gtid_set(&values.next().unwrap_or_default())?;
            let executed = gtid_set(&values.next().unwrap_or_default())?;
            if !ours.covers(&purged) {
                return Err(lost(format!("the server has purged transactions that were not read yet ({purged})")));
            }
            if !executed.covers(ours) {
                return Err(lost(format!(
                    "the server lacks transactions that the lake has (gtid_executed is {executed}): it was reset, or is another server"
                )));
            }
            Ok(())
        }
        Position::BinlogOffset { file, offset } if !gtids => {
            let logs = session.query("SHOW BINARY LOGS").await?;
            let size = logs
                .rows
                .iter()
                .find(|row| row.first().is_some_and(|name| name.as_deref() == Some(file)))
                .map(|row| row.get(1).cloned().flatten().and_then(|size| size.parse::<u64>().ok()).unwrap_or(0));
            match size {
                None => Err(lost(format!("binary log {file} is no longer on the server"))),
                Some(size) if size < *offset => Err(lost(format!("binary log {file} ends at {size}: it was reset"))),
                Some(_) => Ok(()),
            }
        }
        _ => Err(lost(format!("{server} names its log in another way now (see gtid_mode)"))),
    }
}

/// `0-1-100,0-2-90,7-1-3`: several servers may have written in a domain.
fn highest_by_domain(state: &str) -> HashMap<u32, u64> {
    let mut highest: HashMap<u32, u64> = HashMap::new();
    for gtid in state.split(',') {
        let mut parts = gtid.trim().splitn(3, '-');
        let domain = parts.next().and_then(|part| part.parse().ok());
        let sequence = parts.nth(1).and_then(|part| part.parse().ok());
        if let (Some(domain), Some(sequence)) = (domain, sequence) {
            let entry = highest.entry(domain).or_default();
            *entry = (*entry).max(sequence);
        }
    }
    highest
}

/// The XA transactions that are prepared and undecided now, or `None` when the user may not ask.
pub async fn undecided(session: &mut Session) -> Result<Option<Vec<String>>, Error> {
    /// MySQL tells no more than that something failed when XA_RECOVER_ADMIN is missing.
    const RECOVERY_REFUSED: u16 = 1401;
    let statement = if session.flavor.is_mariadb() { "XA RECOVER FORMAT='SQL'" } else { "XA RECOVER CONVERT XID" };
    let answer = match session.conn.query::<Row, _>(statement).await {
        Ok(rows) => rows,
        Err(mysql_async::Error::Server(server)) if server.code == RECOVERY_REFUSED => return Ok(None),
        Err(error) => return Err(session.error(statement, &error)),
    };
    Ok(Some(answer.into_iter().filter_map(|row| row.get_opt::<String, _>("data")?.ok()).collect()))
}

#[cfg(test)]
mod tests {
    use super::*;

    ///
    #[test]
    fn the_highest_transaction_of_a_domain_counts() {
        let highest = highest_by_domain("0-1-100,0-2-190,7-1-3");
        assert_eq!(highest.get(&0), Some(&190));
        assert_eq!(highest.get(&7), Some(&3));
        assert!(highest_by_domain("").is_empty());
    }
}
