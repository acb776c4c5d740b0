//! Work that only who has a source's lease may do.

use std::pin::Pin;
use std::time::Duration;

use tokio_util::sync::CancellationToken;

use super::Error;
use crate::ledger::{self, Lease};

/// How long the end of a run waits for what is good to have but not needed.
pub(super) const FAREWELL_MAX: Duration = Duration::from_secs(10);

/// Does `work` while the lease is kept; it is dropped where it stands when the lease is lost. Boxed, for it is large, and would
/// be on the stack more than once.
pub(super) async fn under_lease<T>(
    lease: Lease,
    source: &str,
    work: Pin<Box<impl Future<Output = T>>>,
) -> Result<T, Error> {
    let (lost, done) = (CancellationToken::new(), CancellationToken::new());
    let keeper = tokio::spawn(keep(lease, lost.clone(), done.clone()));
    let result = tokio::select! {
        result = work => Some(result),
        () = lost.cancelled() => None,
    };
    done.cancel();
    let kept = keeper.await?;
    match result {
        Some(result) => {
            if let Err(error) = kept {
                tracing::warn!(source, %error, "the lease could not be given back");
            }
            Ok(result)
        }
        None => Err(kept.err().map_or_else(
            || {
                let cause = "it ended without a reason".to_owned();
                ledger::Error::Lost { source_name: source.to_owned(), cause }.into()
            },
            Error::from,
        )),
    }
}

/// Renews the lease until `done`, then gives it back; cancels `lost` when it is lost.
async fn keep(mut lease: Lease, lost: CancellationToken, done: CancellationToken) -> Result<(), ledger::Error> {
    // Nobody may write for the last seconds of a lease: a PUT takes time.
    const MARGIN: Duration = Duration::from_secs(5);
    let mut pause = ledger::RENEW_EVERY;
    loop {
        tokio::select! {
            () = done.cancelled() => {
                // Not given back, it ends by itself.
                return tokio::time::timeout(FAREWELL_MAX, lease.release()).await.unwrap_or(Ok(()));
            }
            () = tokio::time::sleep(pause) => {}
        }
        let remaining = lease.remaining().saturating_sub(MARGIN);
        let error = match tokio::time::timeout(remaining, lease.renew()).await {
            Ok(Ok(())) => {
                pause = ledger::RENEW_EVERY;
                continue;
            }
            Ok(Err(error)) => error,
            Err(_) => lease.lost("the store did not answer before it ended"),
        };
        if !matches!(error, ledger::Error::Store { .. }) || lease.remaining() < MARGIN {
            lost.cancel();
            return Err(error);
        }
        tracing::warn!(%error, "the lease could not be renewed; trying again");
        pause = Duration::from_secs(2);
    }
}
