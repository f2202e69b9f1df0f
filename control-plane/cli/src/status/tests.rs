use selvedge_model::seen::Svid;
use serde_json::json;

use super::*;

fn config(newest: u64, proxies: &[(&str, Option<u64>, Option<&str>)]) -> Result<Config, String> {
    let proxy = |(workload, version, refused): &(&str, Option<u64>, Option<&str>)| {
        json!({
            "workload": workload,
            "identity": "spiffe://cluster.local/ns/shop/sa/reviews",
            "proof": "proven",
            "certificate_serial": "1f",
            "address": "127.0.0.1:40000",
            "proxy_version": "0.1.0",
            "connected_at": "2026-11-28T10:00:00Z",
            "certificate_expires_at": "2026-11-28T12:00:00Z",
            "authorities": ["reviews:80"],
            "holds": {"self": "1", "service/reviews:80": "2"},
            "acknowledged": 1,
            "under_way": null,
            "configuration_version": version,
            "refused": refused.map(|reason| json!({"nonce": 1, "at": "2026-11-28T11:00:00Z", "reason": reason})),
        })
    };
    let proxies: Vec<_> = proxies.iter().map(proxy).collect();
    Ok(serde_json::from_value(json!({"configuration_version": newest, "proxies": proxies})).unwrap())
}

fn report_of(replicas: BTreeMap<String, Result<Config, String>>, expect: Option<usize>) -> Report {
    Report::new(Answers::of(replicas, "mesh").unwrap(), expect)
}

#[test]
fn each_replica_counts_its_own_versions() {
    let replicas = BTreeMap::from([
        ("a".to_owned(), config(3, &[("shop/r-1", Some(3), None)])),
        ("b".to_owned(), config(7, &[("shop/r-2", Some(7), None), ("shop/r-3", Some(3), None)])),
    ]);

    let report = report_of(replicas, None);

    assert_eq!((report.arrived, report.up_to_date), (false, 2));
    assert_eq!(
        (report.proxies[0].workload.to_string().as_str(), report.proxies[0].state),
        ("shop/r-3", State::Behind)
    );
}

#[test]
fn a_refusal_is_told_with_its_reason_until_something_newer_is_taken() {
    let stands = config(3, &[("shop/r-1", Some(2), Some("unknown enum"))]);
    let over = config(4, &[("shop/r-1", Some(4), Some("unknown enum"))]);

    let report = report_of(BTreeMap::from([("a".to_owned(), stands)]), None);
    let text = report.to_text(false);
    assert!(text.contains("shop/r-1 refused: unknown enum at 2026-11-28T11:00:00Z"), "{text}");
    assert!(text.ends_with("has not arrived everywhere: 0 of 1 proxies have it\n"), "{text}");
    assert!(report_of(BTreeMap::from([("a".to_owned(), over)]), None).arrived);
}

#[test]
fn what_cannot_be_asked_has_not_arrived() {
    let replicas = BTreeMap::from([
        ("a".to_owned(), config(3, &[("shop/r-1", Some(3), None)])),
        ("b".to_owned(), Err("forbidden".to_owned())),
    ]);

    let report = report_of(replicas, None);

    assert!(!report.arrived);
    assert!(report.to_text(false).contains("replica b does not answer: forbidden"));
}

#[test]
fn proxies_that_are_up_to_date_are_summed_up() {
    let report =
        report_of(BTreeMap::from([("a".to_owned(), config(3, &[("shop/r-1", Some(3), None)]))]), None);

    let text = report.to_text(false);
    assert!(text.contains("spiffe://cluster.local/ns/shop/sa/reviews"), "{text}");
    assert!(!text.contains("shop/r-1"), "{text}");
    assert!(report.to_text(true).contains("shop/r-1"));
}

/// The same, of a replica that knows of these workloads.
fn expecting(config: Result<Config, String>, expected: &[&str]) -> Result<Config, String> {
    Ok(Config { expected: expected.iter().map(|name| name.parse().unwrap()).collect(), ..config? })
}

#[test]
fn who_should_be_connected_and_is_nowhere_is_named() {
    let known = ["shop/r-1", "shop/r-2", "shop/r-3"];
    let replicas = BTreeMap::from([
        ("a".to_owned(), expecting(config(3, &[("shop/r-1", Some(3), None)]), &known)),
        ("b".to_owned(), expecting(config(7, &[("shop/r-2", Some(7), None)]), &known)),
    ]);

    let report = report_of(replicas, None);

    assert!(!report.arrived);
    let text = report.to_text(false);
    assert!(text.contains("shop/r-3 is not connected") && !text.contains("shop/r-1 is not"), "{text}");
    assert!(text.ends_with("has not arrived everywhere: 2 of 3 proxies have it\n"), "{text}");
}

#[test]
fn nothing_at_all_is_no_success_unless_it_is_expected() {
    let nobody = || BTreeMap::from([("a".to_owned(), config(3, &[]))]);

    let report = report_of(nobody(), None);
    assert!(!report.arrived);
    assert!(
        report.to_text(false).contains("declares a workload with a sidecar"),
        "{}",
        report.to_text(false)
    );
    assert!(report_of(nobody(), Some(0)).arrived);
}

#[test]
fn fewer_than_expected_is_no_success() {
    let one = || BTreeMap::from([("a".to_owned(), config(3, &[("shop/r-1", Some(3), None)]))]);

    assert!(report_of(one(), Some(1)).arrived);
    let report = report_of(one(), Some(2));
    assert!(!report.arrived);
    assert!(report.to_text(false).ends_with("1 of 2 proxies have it\n"), "{}", report.to_text(false));
}

#[test]
fn who_gives_a_proxy_its_identity_is_told_with_its_end_and_the_trusted_roots() {
    let mut agents =
        config(1, &[("shop/a", Some(1), None), ("shop/b", Some(1), None), ("shop/c", Some(1), None)])
            .unwrap();
    agents.proxies[1].svid = Some(Svid { expires_at: Some(1_800_000_000) });
    agents.proxies[2].svid = Some(Svid { expires_at: None });
    agents.trust_roots = vec!["ab12".to_owned()];

    let report = report_of(BTreeMap::from([("one".to_owned(), Ok(agents))]), None);

    let text = report.to_text(true);
    for line in [
        "2026-11-28T12:00:00Z",
        "2027-01-15T08:00:00Z (Workload API)",
        "none (Workload API)",
        "trusted root: ab12",
    ] {
        assert!(text.contains(line), "{line}: {text}");
    }
    crate::documented::is_documented("status", &report);
    let json = serde_json::to_value(&report).unwrap();
    let of =
        |place: usize| (&json["proxies"][place]["identity_from"], &json["proxies"][place]["svid_expires_at"]);
    assert_eq!(of(0), (&json!("control-plane"), &json!(null)));
    assert_eq!(of(1), (&json!("workload-api"), &json!("2027-01-15T08:00:00Z")));
}

#[tokio::test(start_paused = true)]
async fn who_waits_waits_for_a_control_plane_that_is_away_too() {
    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        args: Args,
    }
    // Nobody listens there any more.
    let admin = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().to_string();
    let line = <Line as clap::Parser>::parse_from(["status", "--admin", &admin, "--wait", "3s"]);
    let began = Instant::now();

    watch(&line.args).await.unwrap_err();

    assert_eq!(began.elapsed().as_secs(), 3);
}
