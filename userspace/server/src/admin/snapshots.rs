//! Snapshots, shared by all who ask at about the same time, so that asking often costs the shards nothing.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use tokio::sync::Mutex;
use tokio::task::spawn_blocking;
use tokio::time::sleep;

use super::Snapshot;

/// The age up to which a snapshot is as good as a new one.
const MAX_AGE: Duration = Duration::from_millis(100);

/// The shortest time that rates are taken over.
const MIN_SPAN: Duration = Duration::from_millis(500);

/// The longest time that rates are taken over: the past is not the present.
const MAX_SPAN: Duration = Duration::from_secs(5);

/// Earlier snapshots that are kept: as many as make rates of a second or so possible for those who ask each second.
const MAX_EARLIER: usize = 3;

/// The reason why there is no snapshot.
pub(super) type Reason = Arc<str>;

/// A function that takes a snapshot, and may wait for it.
type Take = Arc<dyn Fn() -> Result<Snapshot, String> + Send + Sync>;

/// The last snapshots.
pub(super) struct Snapshots {
    take: Take,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    /// The last attempt, when it was over, and its outcome.
    last: Option<(Instant, Result<Arc<Snapshot>, Reason>)>,
    /// Oldest first, each at least [`MIN_SPAN`] after the one before.
    earlier: VecDeque<Arc<Snapshot>>,
}

impl Snapshots {
    /// Snapshots taken by `take`, which may block.
    pub(super) fn new(take: impl Fn() -> Result<Snapshot, String> + Send + Sync + 'static) -> Self {
        Self {
            take: Arc::new(take),
            taken: Mutex::default(),
        }
    }

    /// A snapshot that is at most [`MAX_AGE`] old.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub(super) async fn now(&self) -> Result<Arc<Snapshot>, Reason> {
        // Those who ask meanwhile wait here, and find the outcome.
        let mut taken = self.taken.lock().await;
        if let Some((_, outcome)) = taken.last.as_ref().filter(|(at, _)| at.elapsed() < MAX_AGE) {
            return outcome.clone();
        }
        let take = Arc::clone(&self.take);
        let outcome = match spawn_blocking(move || take()).await {
            Ok(Ok(snapshot)) => Ok(Arc::new(snapshot)),
            Ok(Err(reason)) => Err(Reason::from(reason)),
            Err(error) => Err(Reason::from(error.to_string())),
        };
        taken.last = Some((Instant::now(), outcome.clone()));
        if let Ok(snapshot) = &outcome {
            taken.remember(snapshot);
        }
        outcome
    }

    /// The last snapshot there was, however old.
    pub(super) async fn last(&self) -> Option<Arc<Snapshot>> {
        let taken = self.taken.lock().await;
        let last = taken.last.as_ref().and_then(|(_, outcome)| outcome.clone().ok());
        last.or_else(|| taken.earlier.back().cloned())
    }

    /// A snapshot of now, and one of [`MIN_SPAN`] to [`MAX_SPAN`] before.
    ///
    /// # Errors
    ///
    /// The reason why there is none.
    pub(super) async fn span(&self) -> Result<(Arc<Snapshot>, Arc<Snapshot>), Reason> {
        let mut now = self.now().await?;
        loop {
            let before = self.taken.lock().await.before(&now);
            match before {
                Some(before) => return Ok((before, now)),
                None => sleep(MIN_SPAN).await,
            }
            now = self.now().await?;
        }
    }
}

impl Taken {
    fn remember(&mut self, snapshot: &Arc<Snapshot>) {
        let is_due = |last: &Arc<Snapshot>| snapshot.at.duration_since(last.at) >= MIN_SPAN;
        if self.earlier.back().is_none_or(is_due) {
            self.earlier.push_back(Arc::clone(snapshot));
            if self.earlier.len() > MAX_EARLIER {
                self.earlier.pop_front();
            }
        }
    }

    /// The last one that is old enough to compare `now` with.
    fn before(&self, now: &Arc<Snapshot>) -> Option<Arc<Snapshot>> {
        let mut earlier = self.earlier.iter().rev();
        let span = MIN_SPAN..=MAX_SPAN;
        earlier
            .find(|before| span.contains(&now.at.duration_since(before.at)))
            .cloned()
    }
}
