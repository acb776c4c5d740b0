//! The lease: which process runs a source.
//!
//! A holder writes lease n+1 put-if-absent before lease n ends; whoever finds the newest lease ended, released, or its
//! process dead may write n+1 instead. Exactly one of them succeeds, and the other learns of it with its next write. The
//! lease keeps honest processes apart; what makes a sleeper harmless is the Delta commit itself, which fails when the
//! table has moved on. Clocks of machines that share a lake must agree to within [`TTL`].

use std::fs;
use std::sync::Arc;
use std::time::{Duration, Instant};

use chrono::{DateTime, Utc};
use object_store::ObjectStore;
use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::Error;
use super::series::{Put, Series};

/// How long a lease lasts without renewal.
pub const TTL: Duration = Duration::from_secs(60);

/// How often it is renewed.
pub const RENEW_EVERY: Duration = Duration::from_secs(20);

/// A process, well enough described that another on the same machine can tell whether it still lives.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    /// Differs for every run.
    pub id: Uuid,
    pub host: String,
    pub pid: u32,
    /// Kernel boot, PID namespace and process start: same pid, same process.
    boot: String,
    pid_namespace: String,
    started: String,
}

impl Holder {
    /// This process.
    pub fn this_process() -> Self {
        let pid = std::process::id();
        Self {
            id: Uuid::new_v4(),
            host: hostname::get().map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            pid,
            boot: boot_id(),
            pid_namespace: pid_namespace(),
            started: process_start(pid).unwrap_or_default(),
        }
    }

    /// Whether it is certain that this process is gone: only its own machine can tell.
    fn is_dead(&self) -> bool {
        let same_machine = !self.boot.is_empty() && self.boot == boot_id() && self.pid_namespace == pid_namespace();
        same_machine && process_start(self.pid).as_deref() != Some(self.started.as_str())
    }
}

fn boot_id() -> String {
    fs::read_to_string("/proc/sys/kernel/random/boot_id").map(|id| id.trim().to_owned()).unwrap_or_default()
}

fn pid_namespace() -> String {
    fs::read_link("/proc/self/ns/pid").map(|link| link.to_string_lossy().into_owned()).unwrap_or_default()
}

/// Start time in clock ticks since boot: field 22 of `/proc/<pid>/stat` (proc(5)); `None` when there is no such process.
fn process_start(pid: u32) -> Option<String> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The command name, field 2, is in parentheses and may hold spaces.
    let after_name = stat.rsplit_once(')')?.1;
    after_name.split_whitespace().nth(19).map(str::to_owned)
}

#[derive(Serialize, Deserialize)]
struct Document {
    holder: Holder,
    written_at: DateTime<Utc>,
    expires_at: DateTime<Utc>,
    released: bool,
}

/// A held lease. Renew it before [`TTL`] has passed.
pub struct Lease {
    series: Series,
    source: String,
    holder: Holder,
    number: u64,
    renewed: Instant,
}

impl Lease {
    /// Takes the lease, or says who has it. `store` is rooted at the source's ledger folder.
    pub async fn acquire(store: Arc<dyn ObjectStore>, source: &str, holder: &Holder) -> Result<Self, Error> {
        let series = Series::new(store, "lease");
        let mut lease =
            Self { series, source: source.to_owned(), holder: holder.clone(), number: 0, renewed: Instant::now() };
        if let Some((number, current)) = lease.newest().await? {
            let theirs = &current.holder;
            if !current.released && current.expires_at > Utc::now() && theirs.id != holder.id && !theirs.is_dead() {
                return Err(lease.held(&current));
            }
            lease.number = number;
        }
        match lease.write(false).await? {
            Put::Landed => Ok(lease),
            Put::Taken => Err(match lease.newest().await? {
                Some((_, current)) => lease.held(&current),
                None => lease.lost("its objects are being removed"),
            }),
        }
    }

    /// Extends the lease by another [`TTL`].
    pub async fn renew(&mut self) -> Result<(), Error> {
        if self.renewed.elapsed() > TTL {
            return Err(self.lost("it was not renewed in time"));
        }
        match self.write(false).await? {
            Put::Landed => Ok(()),
            Put::Taken => Err(match self.newest().await? {
                Some((_, current)) => {
                    self.lost(&format!("process {} on {} took it", current.holder.pid, current.holder.host))
                }
                None => self.lost("its objects were removed"),
            }),
        }
    }

    /// Gives the lease back, so that the next process need not wait.
    pub async fn release(mut self) -> Result<(), Error> {
        self.write(true).await.map(drop)
    }

    /// How long this process may still write without renewal.
    pub fn remaining(&self) -> Duration {
        TTL.saturating_sub(self.renewed.elapsed())
    }

    /// Who runs the source now, as far as the lease says; takes nothing.
    pub async fn holder(store: Arc<dyn ObjectStore>) -> Result<Option<Holder>, Error> {
        let current = newest(&Series::new(store, "lease")).await?.map(|(_, current)| current);
        let held =
            current.filter(|current| !current.released && current.expires_at > Utc::now() && !current.holder.is_dead());
        Ok(held.map(|current| current.holder))
    }

    async fn newest(&self) -> Result<Option<(u64, Document)>, Error> {
        newest(&self.series).await
    }

    async fn write(&mut self, released: bool) -> Result<Put, Error> {
        let started = Instant::now();
        let written_at = Utc::now();
        let document = Document { holder: self.holder.clone(), written_at, expires_at: written_at + TTL, released };
        let number = self.number + 1;
        let text = serde_json::to_string_pretty(&document).map_err(|cause| Error::Unreadable {
            path: self.series.path(number).to_string(),
            cause: cause.to_string(),
        })?;
        let put = self.series.put(number, &text).await?;
        if put == Put::Landed {
            self.number = number;
            self.renewed = started;
            self.series.forget_before(number).await;
        }
        Ok(put)
    }

    fn held(&self, current: &Document) -> Error {
        Error::Held {
            source_name: self.source.clone(),
            holder: format!("process {} on host {}", current.holder.pid, current.holder.host),
            expires_at: current.expires_at,
        }
    }

    /// The error that says so.
    pub fn lost(&self, cause: &str) -> Error {
        Error::Lost { source_name: self.source.clone(), cause: cause.to_owned() }
    }
}

async fn newest(series: &Series) -> Result<Option<(u64, Document)>, Error> {
    let Some((number, text)) = series.latest().await? else { return Ok(None) };
    let document = serde_json::from_str(&text)
        .map_err(|cause| Error::Unreadable { path: series.path(number).to_string(), cause: cause.to_string() })?;
    Ok(Some((number, document)))
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    fn store() -> Arc<dyn ObjectStore> {
        Arc::new(InMemory::new())
    }

    /// As another live process would describe itself: one on a machine we know nothing of.
    fn elsewhere() -> Holder {
        Holder { host: "elsewhere".into(), boot: "another boot".into(), ..Holder::this_process() }
    }

    #[tokio::test]
    async fn a_second_process_is_refused_and_told_who_holds_it() {
        let store = store();
        assert_eq!(Lease::holder(store.clone()).await.expect("readable"), None);
        let lease = Lease::acquire(store.clone(), "booking", &elsewhere()).await.expect("free");
        let holder = Lease::holder(store.clone()).await.expect("readable").expect("held");
        assert_eq!(holder.host, "elsewhere");
        let refused = Lease::acquire(store.clone(), "booking", &Holder::this_process()).await;
        let text = refused.err().expect("held").to_string();
        assert!(text.contains("on host elsewhere"), "{text}");
        lease.release().await.expect("put");
        assert_eq!(Lease::holder(store.clone()).await.expect("readable"), None);
        Lease::acquire(store, "booking", &Holder::this_process()).await.expect("released");
    }

    #[tokio::test]
    async fn a_dead_process_of_this_machine_holds_nothing() {
        let store = store();
        let dead = Holder { started: "1".into(), ..Holder::this_process() };
        Lease::acquire(store.clone(), "booking", &dead).await.expect("free");
        let mut lease = Lease::acquire(store, "booking", &Holder::this_process()).await.expect("its holder is dead");
        lease.renew().await.expect("ours");
    }

    #[tokio::test]
    async fn who_was_taken_over_learns_it_at_the_next_renewal() {
        let store = store();
        let dead = Holder { started: "1".into(), ..Holder::this_process() };
        let mut old = Lease::acquire(store.clone(), "booking", &dead).await.expect("free");
        Lease::acquire(store, "booking", &elsewhere()).await.expect("its holder is dead");
        assert!(matches!(old.renew().await, Err(Error::Lost { .. })));
    }

    #[test]
    fn this_process_is_alive() {
        assert!(!Holder::this_process().is_dead());
    }
}
