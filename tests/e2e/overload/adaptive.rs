//! `--adaptive-concurrency`: an app that gets twice as many requests as it can answer, with and without it.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use http::StatusCode;
use selvedge_demo::{
    call::{self, Answer},
    workload::{AppKind, Spec},
};
use selvedge_tests::{Mesh, poll};
use tokio::{net::TcpListener, sync::Semaphore};

use crate::{SELVEDGE, retries::server};

/// The app works at so many requests at once, each for so long: 20 in a second.
const CAPACITY: usize = 4;
const WORK: Duration = Duration::from_millis(200);
/// Twice that.
const PAUSE: Duration = Duration::from_millis(25);
/// So many requests may wait for their answers, so that the test itself does not break down.
const MOST_WAITING: usize = 100;
/// The latest answers that count.
const LATEST: usize = 40;
/// How long the difference may take to show.
const LIMIT: Duration = Duration::from_secs(40);

/// Serves an app of a fixed capacity as that of `workload`.
async fn serve(mesh: &Mesh, workload: &str) {
    let listener = TcpListener::bind(mesh.workload(workload).app).await.expect("the app's address is ours");
    let places = Arc::new(Semaphore::new(CAPACITY));
    server::serve(listener, move |_, _| {
        let places = Arc::clone(&places);
        async move {
            let _place = places.acquire().await.expect("it stays open");
            tokio::time::sleep(WORK).await;
            server::answer(200, "done")
        }
    });
}

/// What came of the requests to one app.
#[derive(Debug, Default)]
struct Load {
    waiting: AtomicUsize,
    latest: Mutex<VecDeque<Duration>>,
    refused: Mutex<Option<Answer>>,
}

impl Load {
    /// Sends requests to `service`, however long answers take, until nobody looks any more.
    fn start(mesh: &Mesh, service: &'static str) -> Arc<Self> {
        let load = Arc::new(Self::default());
        let (weak, outbound) = (Arc::downgrade(&load), mesh.workload("caller").outbound);
        tokio::spawn(async move {
            let mut pace = tokio::time::interval(PAUSE);
            while let Some(load) = weak.upgrade() {
                pace.tick().await;
                if load.waiting.fetch_add(1, Ordering::Relaxed) < MOST_WAITING {
                    tokio::spawn(async move {
                        let began = Instant::now();
                        let answer = call::send(outbound, call::to(service, "/")).await;
                        load.came(answer.ok(), began.elapsed());
                    });
                } else {
                    load.waiting.fetch_sub(1, Ordering::Relaxed);
                }
            }
        });
        load
    }

    fn came(&self, answer: Option<Answer>, time: Duration) {
        self.waiting.fetch_sub(1, Ordering::Relaxed);
        match answer {
            Some(answer) if answer.status == StatusCode::OK => {
                let mut latest = self.latest.lock().unwrap();
                latest.push_back(time);
                if latest.len() > LATEST {
                    latest.pop_front();
                }
            }
            Some(answer) => *self.refused.lock().unwrap() = Some(answer),
            None => {}
        }
    }

    /// The median of the latest answers of the app; `None`: there are not enough.
    fn median(&self) -> Option<Duration> {
        let mut times: Vec<_> = self.latest.lock().unwrap().iter().copied().collect();
        times.sort_unstable();
        (times.len() == LATEST).then(|| times[LATEST / 2])
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn with_adaptive_concurrency_an_overloaded_app_answers_those_who_are_let_in_as_fast_as_ever() {
    let server = |name: &str, service: &str| {
        let mut spec = Spec::server(name, service, 8080);
        spec.app = AppKind::None;
        spec
    };
    let mut limited = server("limited-1", "limited");
    limited.flags.push("--adaptive-concurrency".to_owned());
    let mesh = Mesh::of(SELVEDGE, [Spec::client("caller"), limited, server("usual-1", "usual")]).await;
    serve(&mesh, "limited-1").await;
    serve(&mesh, "usual-1").await;

    let (limited, usual) = (Load::start(&mesh, "limited:8080"), Load::start(&mesh, "usual:8080"));

    poll(LIMIT, "those who are let in wait a third as long as without the limit", async || {
        let found = (limited.median(), usual.median());
        match found {
            // And not much longer than the work takes.
            (Some(limited), Some(usual)) if usual > 3 * limited && limited < 2 * WORK => Ok(()),
            _ => Err(format!("{found:?}")),
        }
    })
    .await;
    let refused = limited.refused.lock().unwrap().take().expect("some are refused");
    assert_eq!(refused.status, StatusCode::SERVICE_UNAVAILABLE, "{}", refused.summary());
    assert!(
        refused.proxy_error().is_some_and(|error| error.starts_with("concurrency: ")),
        "{:?}",
        refused.headers
    );
    assert_eq!(refused.headers["retry-after"], "1");
    assert!(usual.refused.lock().unwrap().is_none(), "nobody else is refused");
    let limit =
        mesh.workload("limited-1").metric("selvedge_inbound_concurrency_limit").await.expect("an answer");
    assert!(limit.is_some_and(|limit| (3.0..100.0).contains(&limit)), "{limit:?}");
    let without =
        mesh.workload("usual-1").metric("selvedge_inbound_concurrency_limit").await.expect("an answer");
    assert_eq!(without, None);
}
