//! The drain signal: a daemon finishes what it has begun and takes nothing new.
//!
//! The signal says only that the daemon drains, and why. Each daemon decides how long it waits, and for what.

use std::{
    io::{self, Read},
    sync::Arc,
    time::Duration,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::watch,
};

/// How long a daemon whose parent is gone may take to leave.
const ORPHAN_GRACE: Duration = Duration::from_secs(1);

/// Why a daemon drains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// SIGTERM or SIGINT.
    Signal,
    /// `POST /drain` or `POST /shutdown` on the admin port.
    Asked,
    /// `--exit-on-stdin-close`: the parent is gone. The process exits within a second, drained or not.
    StdinClosed,
    /// A part without which the daemon cannot go on has failed.
    Failed,
}

/// The drain signal. Cheap to clone; all clones are one signal, which is given once and never taken back.
#[derive(Debug, Clone)]
pub struct Drain {
    state: Arc<watch::Sender<Option<Reason>>>,
}

impl Default for Drain {
    fn default() -> Self {
        Self { state: Arc::new(watch::Sender::new(None)) }
    }
}

impl Drain {
    /// Gives the signal. The first reason stays.
    pub fn begin(&self, reason: Reason) {
        let first = self.state.send_if_modified(|state| {
            let first = state.is_none();
            state.get_or_insert(reason);
            first
        });
        if first {
            tracing::info!(?reason, "draining");
        }
    }

    /// Why, if the signal was given.
    pub fn reason(&self) -> Option<Reason> {
        *self.state.borrow()
    }

    /// Whether the signal was given.
    pub fn is_draining(&self) -> bool {
        self.reason().is_some()
    }

    /// Waits until the signal is given. Cancel-safe.
    pub async fn drained(&self) -> Reason {
        let mut receiver = self.state.subscribe();
        let reason = receiver.wait_for(Option::is_some).await.map(|reason| *reason);
        reason.ok().flatten().expect("`self` keeps the sender, and the value that was waited for is there")
    }

    /// Begins the drain on SIGTERM or SIGINT; a second one ends the process at once.
    ///
    /// # Errors
    /// If the signal handlers cannot be installed.
    pub fn on_signals(&self) -> io::Result<()> {
        let mut terminate = signal(SignalKind::terminate())?;
        let mut interrupt = signal(SignalKind::interrupt())?;
        let drain = self.clone();
        tokio::spawn(async move {
            either(&mut terminate, &mut interrupt).await;
            drain.begin(Reason::Signal);
            either(&mut terminate, &mut interrupt).await;
            tracing::warn!("second signal: exiting without waiting for what is in progress");
            std::process::exit(130);
        });
        Ok(())
    }

    /// Begins the drain when stdin closes, so that not even `kill -9` of the parent leaves us behind.
    ///
    /// A thread and not a task: a blocking read would keep the runtime from ending.
    ///
    /// # Errors
    /// If the thread cannot be started.
    pub fn on_stdin_close(&self) -> io::Result<()> {
        let drain = self.clone();
        let watcher = std::thread::Builder::new().name("stdin".into());
        watcher.spawn(move || {
            let mut ignored = [0; 256];
            // An error means as much as the end: nobody is there any more.
            while matches!(io::stdin().read(&mut ignored), Ok(1..)) {}
            drain.begin(Reason::StdinClosed);
            std::thread::park_timeout(ORPHAN_GRACE);
            std::process::exit(0);
        })?;
        Ok(())
    }
}

async fn either(terminate: &mut Signal, interrupt: &mut Signal) {
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn every_clone_hears_the_signal_and_the_first_reason_stays() {
        let drain = Drain::default();
        let elsewhere = drain.clone();
        let waiting = tokio::spawn(async move { elsewhere.drained().await });
        assert!(!drain.is_draining());

        drain.begin(Reason::Asked);
        drain.begin(Reason::Signal);

        assert_eq!(waiting.await.unwrap(), Reason::Asked);
        assert_eq!(drain.drained().await, Reason::Asked);
    }
}
