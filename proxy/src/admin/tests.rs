use std::time::Duration;

use selvedge_api::wire;
use serde_json::Value;

use super::*;
use crate::{
    balance::Outcome,
    discovery::{
        fake::Ca,
        fixtures::{self, AUTHORITY},
        held::{Draft, Resources},
        status,
    },
    telemetry::Metrics,
};

/// What is shown of a proxy with one service in force.
fn shown() -> Shown {
    let mut held = Resources::default();
    let mut draft = Draft::default();
    draft.add(wire::Transaction {
        nonce: 4,
        upserts: vec![
            fixtures::own("1", "shop/frontend-1"),
            fixtures::lookup("1"),
            fixtures::service("5", &[90, 10]),
            fixtures::endpoints("6", 3),
        ],
        ..wire::Transaction::default()
    });
    held.take_in(draft, &fixtures::us(), |_| true).unwrap();
    let mut binder = fixtures::binder(&Arc::new(Metrics::new(1)));
    let (store, _asked) = Store::new();
    store.publish(binder.bind(&held, |_| true, Instant::now()).0);
    let applied = status::Applied { nonce: 4, at: SystemTime::now(), upserts: 4, removals: 0 };
    let status = Status {
        stream: status::Stream::Connected { since: SystemTime::UNIX_EPOCH },
        applied: Some(applied),
        versions: Arc::clone(held.versions()),
        ..Status::default()
    };
    Shown {
        workload: fixtures::workload(),
        control_plane: "127.0.0.1:8086".parse().unwrap(),
        store,
        workload_api: None,
        live: Live::new(),
        status: watch::channel(status).1,
        ports: None,
        drain: Drain::default(),
    }
}

#[tokio::test]
async fn config_shows_what_is_in_force_and_in_which_version() {
    let shown = shown();
    let identity = fixtures::identity("frontend");
    shown.live.set(Ca::new().credentials(&identity, Duration::from_secs(3600))).unwrap();

    let config = serde_json::to_value(config(State(shown)).await.0).unwrap();

    assert_eq!(config["workload"], "shop/frontend-1");
    assert_eq!(config["certificate"]["identity"], identity.as_str());
    assert_eq!(config["control_plane"]["stream"], "connected");
    assert_eq!(config["control_plane"]["since"], "1970-01-01T00:00:00Z");
    assert_eq!(config["control_plane"]["last_transaction"]["nonce"], 4);
    assert_eq!(config["own"]["policy"]["default"]["mode"], "Permissive");
    let destination = &config["destinations"][0];
    assert_eq!(destination["authority"], AUTHORITY);
    assert_eq!(destination["service"]["version"], "5");
    assert_eq!(destination["service"]["called"], "by-name");
    assert_eq!(destination["service"]["routes"]["rules"][0]["backends"][0]["weight"], 90);
    assert_eq!(destination["service"]["backends"][0]["endpoints"], 2);
    assert_eq!(destination["service"]["backends"][0]["version"], "6");
    assert_eq!(config["versions"]["self"], "1");
}

#[tokio::test]
async fn config_before_anything_is_known_says_so() {
    let (store, _asked) = Store::new();
    let shown = Shown { store, status: watch::channel(Status::default()).1, ..shown() };

    let config = serde_json::to_value(config(State(shown)).await.0).unwrap();

    assert_eq!(config["certificate"], Value::Null);
    assert_eq!(config["own"], Value::Null);
    assert_eq!(config["control_plane"]["stream"], "not-yet");
}

#[tokio::test]
async fn endpoints_show_who_is_ejected_why_and_until_when() {
    let shown = shown();
    let table = shown.store.table();
    let backend = &table.destinations[AUTHORITY].bound.as_ref().unwrap().backends[0];
    let ejection = backend.ejection.as_ref().unwrap();
    let now = Instant::now();
    let health = &backend.endpoints[0].health;
    let rng = &mut fastrand::Rng::new();
    let ejected = ejection.record(health, Outcome::GatewayFailure, now, rng).unwrap();
    health.explain(&ejected, "connect-failure: nobody listens".to_owned());
    let earliest = utc(SystemTime::now() + Duration::from_secs(30));

    let states = serde_json::to_value(endpoint_states(&shown.store, now)).unwrap();
    let metrics = metrics(&Arc::new(Metrics::new(1)), &shown.store);

    assert!(metrics.contains("\nselvedge_outbound_endpoints_out 1\n"), "{metrics}");
    assert_eq!(states.as_array().unwrap().len(), 3);
    let ejected = &states[0];
    assert_eq!(ejected["backend"], "reviews.shop.svc.cluster.local:9080/v1");
    assert_eq!(ejected["ejected"], true);
    let until = ejected["ejected_until"].as_str().unwrap();
    let latest = utc(SystemTime::now() + Duration::from_secs(30));
    assert!(earliest.as_str() <= until && until <= latest.as_str(), "{until}");
    assert_eq!(ejected["ejected_for_seconds"], 30.0);
    assert_eq!(ejected["ejection"]["reason"], "consecutive-5xx");
    assert_eq!(ejected["ejection"]["failures"], 1);
    assert_eq!(ejected["ejection"]["last_failure"], "connect-failure: nobody listens");
    assert_eq!(ejected["consecutive_failures"], 1);
    assert_eq!(states[1]["ejected"], false);
    for field in ["ejected_until", "ejected_for_seconds", "ejection"] {
        assert_eq!(states[1][field], Value::Null, "{field}");
    }
    assert_eq!(states[2]["backend"], "reviews.shop.svc.cluster.local:9080/v2");
}

#[tokio::test]
async fn drain_begins_the_drain() {
    let shown = shown();

    drain(State(shown.clone())).await;

    assert_eq!(shown.drain.reason(), Some(Reason::Asked));
}
