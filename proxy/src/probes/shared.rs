//! One probe of each kind at a time, whoever asks for it: strangers cannot make the app answer as often as they call.

use std::time::Duration;

use hyper::StatusCode;
use tokio::{sync::Mutex, time::Instant};

/// How long an answer of the app is given again. The kubelet asks once a second at most.
const FRESH: Duration = Duration::from_millis(100);

/// What an asker is told.
pub(super) type Told = (StatusCode, String);

/// The last answer; locked while the app is asked.
#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<Option<(Instant, Told)>>);

impl Shared {
    /// The result of `ask`, or of another caller's probe that began after this call, or just before.
    pub(super) async fn told(&self, ask: impl Future<Output = Told>) -> Told {
        let came = Instant::now();
        let mut last = self.0.lock().await;
        if let Some((at, told)) = &*last
            && *at + FRESH > came
        {
            return told.clone();
        }
        let told = ask.await;
        *last = Some((Instant::now(), told.clone()));
        told
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    };

    use tokio::{task::JoinSet, time::sleep};

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn many_who_ask_at_once_are_one_question_to_the_app() {
        let (shared, asked) = (Arc::new(Shared::default()), Arc::new(AtomicUsize::new(0)));
        let ask = || {
            let (shared, asked) = (Arc::clone(&shared), Arc::clone(&asked));
            async move {
                let question = async {
                    asked.fetch_add(1, Ordering::Relaxed);
                    sleep(Duration::from_secs(1)).await;
                    (StatusCode::OK, "passed".to_owned())
                };
                shared.told(question).await
            }
        };

        let mut askers = JoinSet::new();
        (0..100).for_each(|_| drop(askers.spawn(ask())));
        let told = askers.join_all().await;

        assert!(told.iter().all(|told| told.0 == StatusCode::OK));
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        sleep(FRESH).await;
        ask().await;
        assert_eq!(asked.load(Ordering::Relaxed), 2, "later it is asked again");
    }
}
