//! A group of tasks that live and die together.

use std::future::Future;
use std::time::Duration;

use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

/// Why a group ended before it was asked to.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// A component returned an error.
    #[error("{component} failed: {source}")]
    Failed {
        /// Its name.
        component: &'static str,
        /// What it returned.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A component panicked; its message is in the log.
    #[error("{component} panicked")]
    Panicked {
        /// Its name.
        component: &'static str,
    },
    /// A component ended although nobody asked it to.
    #[error("{component} ended unexpectedly")]
    Ended {
        /// Its name.
        component: &'static str,
    },
}

type Outcome = Result<(), Box<dyn std::error::Error + Send + Sync>>;

/// How a component ended.
#[derive(Debug)]
struct Ended {
    component: &'static str,
    outcome: Result<Outcome, tokio::task::JoinError>,
    /// Nobody had asked it to.
    early: bool,
}

/// Named tasks with one cancellation token.
#[derive(Debug)]
pub struct Group {
    token: CancellationToken,
    tasks: JoinSet<Ended>,
}

impl Group {
    /// An empty group that ends when `token` is cancelled.
    pub fn new(token: CancellationToken) -> Self {
        Self { token, tasks: JoinSet::new() }
    }

    /// The token to hand to what belongs to the group.
    pub fn token(&self) -> CancellationToken {
        self.token.clone()
    }

    /// Starts a component. It must run until the token is cancelled; ending earlier ends the group.
    pub fn spawn<F, E>(&mut self, component: &'static str, task: F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<Box<dyn std::error::Error + Send + Sync>> + 'static,
    {
        let task = tokio::spawn(async move { task.await.map_err(Into::into) });
        let token = self.token.clone();
        self.tasks.spawn(async move {
            let outcome = task.await;
            let early = !token.is_cancelled();
            // Whoever waits for something that this component was to bring must not wait for ever.
            token.cancel();
            Ended { component, outcome, early }
        });
    }

    /// Waits until the token is cancelled, which the first component that ends does too, and gives the rest `grace` to
    /// end.
    ///
    /// # Errors
    /// What made the group end, if nobody asked it to.
    pub async fn run(mut self, grace: Duration) -> Result<(), GroupError> {
        self.token.cancelled().await;
        let mut first = None;
        let rest = async {
            while let Some(ended) = self.tasks.join_next().await {
                match ended {
                    Ok(ended) if ended.early && first.is_none() => first = Some(ended),
                    _ => {}
                }
            }
        };
        let in_time = tokio::time::timeout(grace, rest).await.is_ok();
        if !in_time {
            tracing::warn!(left = self.tasks.len(), "components did not stop in time and are dropped");
        }
        first.map_or(Ok(()), |ended| Err(error_of(ended.component, ended.outcome)))
    }
}

fn error_of(component: &'static str, outcome: Result<Outcome, tokio::task::JoinError>) -> GroupError {
    match outcome {
        Ok(Ok(())) => GroupError::Ended { component },
        // A group within a group tells of its own component.
        Ok(Err(source)) => match source.downcast() {
            Ok(inner) => *inner,
            Err(source) => GroupError::Failed { component, source },
        },
        Err(_) => GroupError::Panicked { component },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GRACE: Duration = Duration::from_secs(5);

    async fn until_cancelled(token: CancellationToken) -> Result<(), std::io::Error> {
        token.cancelled().await;
        Ok(())
    }

    #[tokio::test]
    async fn cancelling_ends_every_task() {
        let token = CancellationToken::new();
        let mut group = Group::new(token.clone());
        group.spawn("one", until_cancelled(group.token()));
        group.spawn("two", until_cancelled(group.token()));
        token.cancel();
        assert!(group.run(GRACE).await.is_ok());
    }

    #[tokio::test]
    async fn the_first_failure_ends_the_group_and_is_told() {
        let mut group = Group::new(CancellationToken::new());
        group.spawn("good", until_cancelled(group.token()));
        group.spawn("bad", async { Err(std::io::Error::other("no disk")) });
        let error = group.run(GRACE).await.err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("bad failed: no disk"));
    }

    #[tokio::test]
    async fn a_group_within_a_group_tells_of_its_own() {
        let mut outer = Group::new(CancellationToken::new());
        let mut inner = Group::new(outer.token().child_token());
        inner.spawn("bad", async { Err(std::io::Error::other("no disk")) });
        outer.spawn("inner", inner.run(GRACE));
        let error = outer.run(GRACE).await.err().map(|e| e.to_string());
        assert_eq!(error.as_deref(), Some("bad failed: no disk"));
    }

    #[tokio::test]
    async fn a_panic_is_a_failure() {
        let mut group = Group::new(CancellationToken::new());
        group.spawn("bad", async {
            if std::hint::black_box(true) {
                panic!("expected in this test");
            }
            Ok::<(), std::io::Error>(())
        });
        assert!(matches!(group.run(GRACE).await, Err(GroupError::Panicked { component: "bad" })));
    }
}
