//! Requests of people, found in the ledger while the source runs.

use std::time::Duration;

use tokio::sync::mpsc;

use crate::ledger::Requests;

/// How often it is looked whether there is one: one GET each time.
const EVERY: Duration = Duration::from_secs(2);

/// Says once that there is a request after number `taken`. Trouble with the store is waited out. `None`: nobody asks.
pub(super) async fn look_out(requests: Requests, taken: Option<u64>, found: mpsc::Sender<()>) {
    // The channel stays open as long as this runs.
    let Some(taken) = taken else { return std::future::pending().await };
    loop {
        tokio::time::sleep(EVERY).await;
        match requests.any_after(taken).await {
            Ok(true) => {
                tracing::info!("somebody asks for something; the source begins anew with it");
                // Whoever listens is gone when the attempt has ended.
                let _ = found.send(()).await;
                return std::future::pending().await;
            }
            Ok(false) => {}
            Err(error) => tracing::debug!(%error, "requests could not be looked for"),
        }
    }
}
