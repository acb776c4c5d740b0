//! Keeps the loads of a source below a rate of rows, all tables together.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

/// See the module text.
pub struct Throttle {
    rows_per_second: f64,
    /// When what was taken so far has been paid for.
    free_at: Mutex<Instant>,
}

impl Throttle {
    /// 0: no limit.
    pub fn new(rows_per_second_max: u64) -> Self {
        Self { rows_per_second: rows_per_second_max as f64, free_at: Mutex::new(Instant::now()) }
    }

    /// Takes `rows` in, and waits until they are paid for.
    pub async fn take(&self, rows: u64) {
        if self.rows_per_second <= 0.0 || rows == 0 {
            return;
        }
        let until = {
            let mut free_at = self.free_at.lock().unwrap_or_else(PoisonError::into_inner);
            let seconds = rows as f64 / self.rows_per_second;
            // What nobody took while nothing was read is not saved up.
            *free_at = (*free_at).max(Instant::now()) + Duration::from_secs_f64(seconds);
            *free_at
        };
        tokio::time::sleep_until(until).await;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn all_who_share_it_stay_below_the_rate_together() {
        let throttle = Arc::new(Throttle::new(1000));
        let started = Instant::now();
        let taking = (0..4).map(|_| {
            let throttle = throttle.clone();
            tokio::spawn(async move {
                for _ in 0..5 {
                    throttle.take(10).await;
                }
            })
        });
        for taken in taking.collect::<Vec<_>>() {
            taken.await.expect("no panic");
        }
        assert!(started.elapsed() >= Duration::from_millis(190), "{:?} for 200 rows", started.elapsed());
        let started = Instant::now();
        Throttle::new(0).take(u64::MAX).await;
        assert!(started.elapsed() < Duration::from_secs(10), "no limit");
    }
}
