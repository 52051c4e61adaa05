//! How a component says that it serves, and how others wait for it.

use tokio::sync::watch;

/// The side that waits. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct Readiness(watch::Receiver<bool>);

/// The side that reports. Dropping it without reporting leaves the component not ready for good.
#[derive(Debug)]
pub struct ReadyHandle(watch::Sender<bool>);

impl Readiness {
    /// A pair that is not ready.
    pub fn new() -> (ReadyHandle, Self) {
        let (tx, rx) = watch::channel(false);
        (ReadyHandle(tx), Self(rx))
    }

    /// Whether it is ready now.
    pub fn is_ready(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is ready. `false`: the component has gone away and never will be.
    pub async fn wait(&mut self) -> bool {
        self.0.wait_for(|ready| *ready).await.is_ok()
    }
}

impl ReadyHandle {
    /// Reports readiness; repeating it changes nothing.
    pub fn ready(&self) {
        self.0.send_if_modified(|ready| !std::mem::replace(ready, true));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn readiness_is_waited_for() {
        let (handle, mut readiness) = Readiness::new();
        assert!(!readiness.is_ready());
        let waiter = tokio::spawn(async move { readiness.wait().await });
        handle.ready();
        assert!(waiter.await.is_ok_and(|ready| ready));
    }

    #[tokio::test]
    async fn a_dropped_component_is_never_ready() {
        let (handle, mut readiness) = Readiness::new();
        drop(handle);
        assert!(!readiness.wait().await);
    }
}
