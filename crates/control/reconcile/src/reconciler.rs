//! From keys to work.

use std::fmt::{Debug, Display};
use std::future::Future;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::Queue;

/// When to look at a key again although nothing changed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requeue {
    /// Only when something changes.
    Never,
    /// After this time.
    After(Duration),
}

/// Brings one key from what is to what should be.
pub trait Reconciler: Send + Sync + 'static {
    /// What the queue holds: usually [`crate::Key`].
    type Key: Clone + Debug + Eq + Hash + Send + Sync + 'static;
    /// Why it did not work this time.
    type Error: Display + Send;

    /// The controller's name in logs.
    const NAME: &'static str;

    /// Reads, plans, writes. It may be called again at any time for the same key and must then change nothing.
    fn reconcile(&self, key: &Self::Key) -> impl Future<Output = Result<Requeue, Self::Error>> + Send;
}

/// Works on the queue with so many workers until the token is cancelled.
pub async fn run<R: Reconciler>(
    reconciler: Arc<R>,
    queue: Queue<R::Key>,
    workers: usize,
    token: CancellationToken,
) {
    let mut tasks = JoinSet::new();
    for _ in 0..workers {
        tasks.spawn(work(reconciler.clone(), queue.clone(), token.clone()));
    }
    while tasks.join_next().await.is_some() {}
}

async fn work<R: Reconciler>(reconciler: Arc<R>, queue: Queue<R::Key>, token: CancellationToken) {
    while let Some(key) = token.run_until_cancelled(queue.next()).await {
        let Some(result) = token.run_until_cancelled(reconciler.reconcile(&key)).await else { return };
        match result {
            Ok(requeue) => {
                queue.done(&key);
                if let Requeue::After(delay) = requeue {
                    queue.add_after(key, delay);
                }
            }
            Err(error) => {
                tracing::debug!(controller = R::NAME, ?key, %error, "trying again");
                queue.failed(&key);
            }
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    struct Flaky {
        calls: Mutex<u32>,
        token: CancellationToken,
    }

    impl Reconciler for Flaky {
        type Key = &'static str;
        type Error = &'static str;
        const NAME: &'static str = "flaky";

        async fn reconcile(&self, _key: &&'static str) -> Result<Requeue, &'static str> {
            let mut calls = self.calls.lock().unwrap();
            *calls += 1;
            match *calls {
                1 => Err("not yet"),
                2 => Ok(Requeue::After(Duration::from_secs(5))),
                _ => {
                    self.token.cancel();
                    Ok(Requeue::Never)
                }
            }
        }
    }

    #[tokio::test(start_paused = true)]
    async fn failures_and_requeues_come_again() {
        let token = CancellationToken::new();
        let flaky = Arc::new(Flaky { calls: Mutex::new(0), token: token.clone() });
        let queue = Queue::new();
        queue.add("a");
        run(flaky.clone(), queue, 2, token).await;
        assert_eq!(*flaky.calls.lock().unwrap(), 3);
    }
}
