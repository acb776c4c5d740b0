//! What only the server's time zone tables tell.

use chrono::{DateTime, Utc};
use mysql_async::prelude::Queryable;

use crate::source::Error;

use super::connection::{Session, literal};
use super::decimal;
use super::fill::Moment;
use super::temporal::Civil;

/// Server error for a time zone that its tables do not have.
const UNKNOWN_TIME_ZONE: u16 = 1298;

/// What the server's time zone tables say; `None` when they are not known to be those of the statement.
pub async fn ask(session: &mut Session, moment: &Moment, time: Option<DateTime<Utc>>) -> Result<Option<i64>, Error> {
    let (zone, micros) = match moment {
        Moment::Instant { zone, micros } | Moment::Clock { zone, micros } => (zone, *micros),
    };
    if zone.eq_ignore_ascii_case("SYSTEM") {
        // The machine's, as it was when the server started.
        let now = session.query("SELECT UNIX_TIMESTAMP()").await?.scalar().and_then(|text| text.parse::<i64>().ok());
        let uptime = session.query("SHOW GLOBAL STATUS LIKE 'Uptime'").await?;
        let uptime = uptime.value("Value").and_then(|text| text.parse::<i64>().ok());
        let same = match (now, uptime, time) {
            (Some(now), Some(uptime), Some(time)) => (now - uptime + 2..=now).contains(&time.timestamp()),
            _ => false,
        };
        if !same {
            return Ok(None);
        }
    }
    let set = format!("SET SESSION time_zone = {}", literal(zone));
    if let Err(error) = session.conn.query_drop(&set).await {
        return match &error {
            mysql_async::Error::Server(server) if server.code == UNKNOWN_TIME_ZONE => Ok(None),
            _ => Err(session.error(&set, &error)),
        };
    }
    let answer = match moment {
        Moment::Instant { .. } => {
            let clock = Civil::of_micros(micros).text(6);
            let answer = session.query(&format!("SELECT UNIX_TIMESTAMP({})", literal(&clock))).await?;
            let seconds = answer.scalar().and_then(decimal::text_value_any);
            let (unscaled, scale) = seconds.unwrap_or_default();
            // Zero is what there is for a clock that shows no moment, too.
            i64::try_from(unscaled)
                .ok()
                .filter(|_| scale <= 6 && unscaled > 0)
                .and_then(|unscaled| unscaled.checked_mul(10_i64.pow(6 - u32::from(scale))))
        }
        Moment::Clock { .. } => {
            let seconds = decimal::unscaled_text(i128::from(micros), 6);
            let answer = session.query(&format!("SELECT CAST(FROM_UNIXTIME({seconds}) AS CHAR)")).await?;
            answer.scalar().and_then(Civil::read).and_then(|clock| clock.micros())
        }
    };
    Ok(answer)
}
