//! Certificates from a control plane on loopback, over real TLS.

use selvedge_certs::tls::Live;
use selvedge_ops::Readiness;
use tokio::task::JoinSet;

use super::{super::token::Trust, *};
use crate::discovery::{
    fake::{Asked, Ca, FakeControlPlane, PATIENCE, join_token, until},
    fixtures,
};

const HOUR: Duration = Duration::from_secs(3600);

struct Rig {
    ca: Arc<Ca>,
    control_plane: FakeControlPlane,
    live: Live,
    joined: watch::Receiver<Option<Arc<Joined>>>,
    bundle: watch::Sender<Option<Arc<Bundle>>>,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl Rig {
    /// With certificates of this lifetime.
    async fn new(ttl: Duration) -> (Self, Own) {
        let ca = Ca::new();
        let control_plane = FakeControlPlane::start(&ca, fixtures::identity("frontend"), ttl).await;
        let live = Live::new();
        let (joined_sender, joined) = watch::channel(None);
        let (bundle, bundles) = watch::channel(None);
        let readiness = Readiness::default();
        let metrics = Arc::new(Metrics::new(1));
        let own = Own {
            control_plane: fixtures::control_plane(control_plane.address),
            workload: fixtures::workload(),
            token: TokenSource::Given(join_token(&ca, SystemTime::now() + HOUR)),
            trust: Trust::default(),
            ttl,
            traffic: Some(Traffic {
                live: live.clone(),
                certificate: readiness.condition("certificate"),
                metrics: Arc::clone(&metrics),
            }),
            joined: joined_sender,
            bundle: bundles,
            metrics: Arc::clone(&metrics),
        };
        (Self { ca, control_plane, live, joined, bundle, readiness, metrics }, own)
    }

    async fn asked(&mut self) -> Asked {
        tokio::time::timeout(PATIENCE, self.control_plane.asked.recv()).await.expect("asked in time").unwrap()
    }

    fn generation(&self) -> u64 {
        self.live.current().map_or(0, |current| current.generation)
    }
}

fn keeper(own: Own, credentials: Option<Credentials>) -> Keeper {
    Keeper { own, credentials, clocks: Complaint::new("the clocks") }
}

fn running(own: Own) -> JoinSet<()> {
    let mut task = JoinSet::new();
    task.spawn(run(own));
    task
}

#[tokio::test]
async fn the_first_certificate_is_proven_by_token_and_the_next_by_the_first() {
    let (mut rig, own) = Rig::new(Duration::from_secs(2)).await;
    let _task = running(own);

    let first = rig.asked().await;
    assert!(first.token.is_some() && !first.with_certificate, "{first:?}");
    until("the first is in use", || rig.generation() == 1).await;
    assert!(rig.readiness.missing().is_empty());
    assert!(rig.joined.borrow().is_some());
    assert_eq!(rig.live.current().unwrap().identity, fixtures::identity("frontend"));
    let first_key = Arc::as_ptr(&rig.live.current().unwrap().client);

    let second = rig.asked().await;
    assert!(second.token.is_none() && second.with_certificate, "{second:?}");
    until("the second is in use", || rig.generation() == 2).await;
    assert_ne!(Arc::as_ptr(&rig.live.current().unwrap().client), first_key);
    assert_eq!(rig.metrics.control.certificates_obtained.get(), 2);
    assert_eq!(rig.metrics.control.certificate_failures.get(), 0);
}

#[tokio::test]
async fn trust_roots_from_the_stream_are_put_into_use_with_the_same_certificate() {
    let (rig, own) = Rig::new(HOUR).await;
    let _task = running(own);
    until("the first is in use", || rig.generation() == 1).await;
    let not_after = rig.live.current().unwrap().not_after;
    let mut bundle = rig.ca.authority.bundle();
    bundle.roots.extend(Ca::new().authority.bundle().roots);

    rig.bundle.send_replace(Some(Arc::new(bundle.clone())));
    until("the roots are in use", || rig.generation() == 2).await;

    let current = rig.live.current().unwrap();
    assert_eq!((&current.bundle, current.not_after), (&bundle, not_after));
}

#[tokio::test]
async fn a_token_that_comes_late_is_taken() {
    let (rig, own) = Rig::new(HOUR).await;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("token");
    let _task = running(Own { token: TokenSource::File(path.clone()), ..own });
    until("the first attempt failed", || rig.metrics.control.certificate_failures.get() > 0).await;
    assert_eq!(rig.readiness.missing(), ["certificate"]);

    std::fs::write(&path, join_token(&rig.ca, SystemTime::now() + HOUR)).unwrap();

    until("a certificate is in use", || rig.generation() == 1).await;
}

#[tokio::test]
async fn an_expired_certificate_is_no_proof_but_the_token_is() {
    let (rig, own) = Rig::new(HOUR).await;
    let credentials = rig.ca.credentials(&fixtures::identity("frontend"), HOUR / 2);
    let keeper = keeper(own, Some(credentials));
    let now = SystemTime::now();

    assert!(keeper.proof(now).unwrap().token.is_none());
    assert!(keeper.proof(now + HOUR * 3 / 4).unwrap().token.is_some());

    let error = keeper.proof(now + 2 * HOUR).err().expect("the token has expired as well").to_string();
    assert!(error.contains("expired") && error.contains("selvedge token create"), "{error}");
}

#[tokio::test]
async fn a_control_plane_under_another_root_gets_no_token() {
    let (mut rig, own) = Rig::new(HOUR).await;
    let elsewhere = Ca::new();
    let token = TokenSource::Given(join_token(&elsewhere, SystemTime::now() + HOUR));
    let mut keeper = keeper(Own { token, ..own }, None);

    let error = keeper.obtain().await.expect_err("it is not believed");

    assert!(matches!(error, OwnError::Connect(ConnectError::NotControlPlane { .. })), "{error}");
    assert!(rig.control_plane.asked.try_recv().is_err());
}

#[tokio::test]
async fn a_refusal_is_told_in_the_control_planes_words() {
    let (rig, own) = Rig::new(HOUR).await;
    // The token says frontend; this control plane signs for reviews alone.
    let control_plane = FakeControlPlane::start(&rig.ca, fixtures::identity("reviews"), HOUR).await;
    let control_plane = fixtures::control_plane(control_plane.address);
    let mut keeper = keeper(Own { control_plane, ..own }, None);

    let error = keeper.obtain().await.expect_err("it refuses");

    assert!(matches!(error, OwnError::Refused { code: tonic::Code::InvalidArgument, .. }), "{error}");
    assert!(error.to_string().contains("sa/frontend"), "{error}");
}

#[tokio::test]
async fn a_refusal_names_both_clocks_where_they_differ_and_is_the_same_failure_later() {
    let ours = SystemTime::now();
    let mut status = tonic::Status::unauthenticated("the join token expired");
    let error = |status: &tonic::Status, ours| OwnError::Refused {
        message: status.message().to_owned(),
        code: status.code(),
        clocks: Clocks::of(status, ours),
    };
    let late = (ours + HOUR).duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs();
    status.metadata_mut().insert(selvedge_api::TIME_METADATA, late.into());

    let [first, second] = [ours, ours + Duration::from_secs(7)].map(|ours| error(&status, ours));

    let words = first.to_string();
    assert!(words.contains(&format!("the control plane's clock says {}", Utc(ours + HOUR))), "{words}");
    assert!(words.contains(&format!("this host's says {}", Utc(ours))), "{words}");
    assert_ne!(words, second.to_string());
    assert_eq!(first.timeless(), second.timeless());
}

#[tokio::test]
async fn the_less_life_is_left_the_sooner_an_attempt_is_given_up() {
    let (rig, own) = Rig::new(HOUR).await;
    let credentials = rig.ca.credentials(&fixtures::identity("frontend"), HOUR);
    let expires = credentials.leaf.not_after;
    let mut keeper = keeper(own, None);
    assert_eq!(keeper.patience(SystemTime::now()), SIGN_TIMEOUT);

    keeper.credentials = Some(credentials);
    assert_eq!(keeper.patience(expires - HOUR / 2), SIGN_TIMEOUT);
    assert_eq!(keeper.patience(expires - Duration::from_secs(9)), Duration::from_secs(3));
    assert_eq!(keeper.patience(expires - Duration::from_secs(1)), SHORTEST_SIGN_TIMEOUT);
    assert_eq!(keeper.patience(expires), SIGN_TIMEOUT);
}
