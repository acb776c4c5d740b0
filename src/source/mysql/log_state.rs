//! How the binlog stands: its end, its files, and since when it is kept.

use crate::config::SourceConfig;
use crate::source::{Error, Kept, LogFile, LogState, Position};

use super::connection::{Session, literal};
use super::position;

pub async fn read(config: &SourceConfig) -> Result<LogState, Error> {
    let mut session = Session::open(config).await?;
    let head = position::head(&mut session).await?;
    let files = files(&mut session).await?;
    let since = since(&mut session, &head, &files).await?;
    let expire_seconds = expire_seconds(&mut session).await?;
    Ok(LogState { head, kept: Kept { files, since, expire_seconds, ..Kept::default() } })
}

async fn files(session: &mut Session) -> Result<Vec<LogFile>, Error> {
    let answer = session.query("SHOW BINARY LOGS").await?;
    let file = |row: Vec<Option<String>>| {
        let mut values = row.into_iter();
        let name = values.next()??;
        let bytes = values.next()??.parse().ok()?;
        Some(LogFile { name, bytes })
    };
    Ok(answer.rows.into_iter().filter_map(file).collect())
}

/// What is gone already: everything after it can be read. In the words of `head`.
async fn since(session: &mut Session, head: &Position, files: &[LogFile]) -> Result<Option<Position>, Error> {
    let Some(oldest) = files.first() else { return Ok(None) };
    match head {
        Position::MariaDbGtid(_) => {
            let answer = session.query(&format!("SELECT BINLOG_GTID_POS({}, 4)", literal(&oldest.name))).await?;
            // The server answers NULL when the file was purged in between.
            answer.scalar().map(position::mariadb).transpose()
        }
        Position::MySqlGtid(_) => {
            let answer = session.query("SELECT @@global.gtid_purged").await?;
            let purged = answer.scalar().unwrap_or_default();
            Ok(purged.parse().ok().map(Position::MySqlGtid))
        }
        Position::BinlogOffset { .. } => Ok(Some(Position::BinlogOffset { file: oldest.name.clone(), offset: 0 })),
        Position::Lsn(_) => Ok(None),
    }
}

/// Servers of different age count in seconds or in days.
async fn expire_seconds(session: &mut Session) -> Result<Option<u64>, Error> {
    let answer = session
        .query("SHOW GLOBAL VARIABLES WHERE Variable_name IN ('binlog_expire_logs_seconds', 'expire_logs_days')")
        .await?;
    let number = |name: &str| {
        let row = answer.rows.iter().find(|row| row.first().is_some_and(|found| found.as_deref() == Some(name)))?;
        row.get(1)?.as_deref()?.parse::<f64>().ok()
    };
    let days = || number("expire_logs_days").map(|days| days * 86_400.0);
    // Whole numbers, and far below what a u64 holds.
    Ok(number("binlog_expire_logs_seconds").or_else(days).map(|seconds| seconds.max(0.0) as u64))
}
