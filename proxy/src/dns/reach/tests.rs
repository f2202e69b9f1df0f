use std::time::Duration;

use selvedge_model::{Endpoints, SpiffeId};
use selvedge_ops::ResolverArgs;
use tempfile::TempDir;

use super::*;
use crate::discovery::fixtures;

/// Names out of a hosts file; without a DNS server.
fn names(hosts: &str) -> (Names, TempDir) {
    names_of(hosts, "")
}

fn names_of(hosts: &str, resolv_conf: &str) -> (Names, TempDir) {
    let directory = tempfile::tempdir().unwrap();
    let args = ResolverArgs {
        resolv_conf: directory.path().join("resolv.conf"),
        hosts_file: directory.path().join("hosts"),
    };
    std::fs::write(&args.resolv_conf, resolv_conf).unwrap();
    std::fs::write(&args.hosts_file, hosts).unwrap();
    (Names::new(Arc::new(Resolver::new(args)), Arc::new(Metrics::new(1))), directory)
}

fn named(address: &str, dial: &str) -> NamedEndpoint {
    NamedEndpoint {
        address: address.parse().unwrap(),
        dial: dial.parse().unwrap(),
        one_address: false,
        identity: Some(identity()),
        workload: Some("shop/reviews-v1".parse().unwrap()),
        labels: std::sync::Arc::default(),
        weight: 1,
        place: None,
    }
}

fn identity() -> SpiffeId {
    fixtures::identity("reviews")
}

fn endpoints(named: Vec<NamedEndpoint>) -> Arc<Listed> {
    Arc::new(Endpoints { named, ..Endpoints::new(fixtures::key(), Vec::new()) }.into())
}

async fn reach(names: &mut Names, endpoints: &Arc<Listed>, authority: &str) -> Arc<Reached> {
    let found = async {
        loop {
            if let Some(reached) = names.reach(endpoints, authority, &[]) {
                return reached;
            }
            names.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("answers in time")
}

fn places(reached: &Reached) -> Vec<(String, String)> {
    reached.list().map(|(one, _)| (one.address.to_string(), one.dial.to_string())).collect()
}

fn pair(address: &str, dial: &str) -> (String, String) {
    (address.to_owned(), dial.to_owned())
}

#[tokio::test]
async fn every_address_of_a_name_is_an_endpoint_with_the_same_identity() {
    let (mut names, _directory) = names("10.0.0.1 reviews\n10.0.0.2 reviews\n");
    let endpoints = endpoints(vec![named("reviews:9080", "reviews:9080")]);

    assert!(names.reach(&endpoints, "reviews", &[]).is_none(), "not before the answer");
    let reached = reach(&mut names, &endpoints, "reviews").await;

    let expected = [pair("10.0.0.1:9080", "10.0.0.1:9080"), pair("10.0.0.2:9080", "10.0.0.2:9080")];
    assert_eq!(places(&reached), expected);
    assert!(reached.list().all(|(one, found)| {
        one.identity == Some(identity()) && &*found.unwrap().dns_name.name == "reviews"
    }));
    let again = names.reach(&endpoints, "reviews", &[]).unwrap();
    assert!(Arc::ptr_eq(&reached, &again), "what has not changed keeps its Arc");
    let address = "10.0.0.2:9080".parse().unwrap();
    assert_eq!(reached.at(address).unwrap().workload, Some("shop/reviews-v1".parse().unwrap()));
}

#[tokio::test]
async fn a_name_is_looked_up_at_once_for_an_address_that_is_new() {
    let (mut names, directory) = names("10.0.0.1 reviews\n");
    let endpoints = endpoints(vec![named("reviews:9080", "reviews:9080")]);
    reach(&mut names, &endpoints, "reviews").await;
    std::fs::write(directory.path().join("hosts"), "10.0.0.2 reviews\n").unwrap();

    let since = Instant::now();
    assert_eq!(names.may_have_since(&endpoints, since), Doubt::Waiting);
    assert_eq!(settled(&mut names, &endpoints, since).await, Doubt::None);
    let address = "10.0.0.2:9080".parse().unwrap();
    assert!(names.reach(&endpoints, "reviews", &[]).unwrap().at(address).is_some());
}

/// What there is to say once no answer is waited for.
async fn settled(names: &mut Names, endpoints: &Listed, since: Instant) -> Doubt {
    loop {
        match names.may_have_since(endpoints, since) {
            Doubt::Waiting => {}
            doubt => return doubt,
        }
        // Longer than the time for an answer, and shorter than the longest pause between two look-ups.
        let limit = Duration::from_secs(3);
        tokio::time::timeout(limit, names.changed()).await.expect("no pause is waited for");
    }
}

#[tokio::test]
async fn an_address_may_be_a_workloads_while_dns_does_not_say_where_that_is() {
    let silent = tokio::net::UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let server = format!("nameserver {}\noptions timeout:1 attempts:1\n", silent.local_addr().unwrap());
    let (mut names, directory) = names_of("10.0.0.1 known\n", &server);
    let meshed = endpoints(vec![named("known:9080", "known:9080"), named("quiet:9080", "quiet:9080")]);
    let outside = NamedEndpoint { identity: None, ..named("silent:9080", "silent:9080") };
    let outside = endpoints(vec![outside, named("known:9080", "known:9080")]);
    let since = Instant::now();

    let Doubt::Silence(doubt) = settled(&mut names, &meshed, since).await else { panic!("no doubt") };
    assert!(doubt.starts_with("quiet "), "{doubt}");
    assert_eq!(settled(&mut names, &outside, since).await, Doubt::None, "spoken to in plaintext anyway");

    // Once it is said, nobody has to ask for it again.
    std::fs::write(directory.path().join("hosts"), "10.0.0.1 known\n10.0.0.3 quiet\n").unwrap();
    tokio::time::timeout(Duration::from_secs(20), async {
        while names.may_have_since(&meshed, since) != Doubt::None {
            names.changed().await;
        }
    })
    .await
    .expect("known at last");
}

#[tokio::test]
async fn one_address_is_one_endpoint() {
    let (mut names, _directory) = names("10.0.0.1 reviews\n10.0.0.2 reviews\n");
    let one = NamedEndpoint { one_address: true, ..named("reviews:9080", "reviews:9080") };

    let reached = reach(&mut names, &endpoints(vec![one]), "reviews").await;

    assert_eq!(places(&reached), [pair("10.0.0.1:9080", "10.0.0.1:9080")]);
}

#[tokio::test]
async fn an_inbound_listener_by_another_name_is_where_to_dial() {
    let (mut names, _directory) = names("10.0.0.1 app\n10.0.0.8 sidecar\n10.0.0.9 sidecar\n");
    let by_names = endpoints(vec![named("app:9080", "sidecar:4143")]);
    let app_unknown = endpoints(vec![named("nobody:9080", "sidecar:4143")]);

    let reached = reach(&mut names, &by_names, "reviews").await;
    let expected = [pair("10.0.0.1:9080", "10.0.0.8:4143"), pair("10.0.0.1:9080", "10.0.0.9:4143")];
    assert_eq!(places(&reached), expected);

    let reached = reach(&mut names, &app_unknown, "reviews").await;
    assert_eq!(places(&reached)[0], pair("10.0.0.8:9080", "10.0.0.8:4143"));
}

#[tokio::test]
async fn a_name_without_an_address_is_named_with_the_reason() {
    let (mut names, _directory) = names("10.0.0.1 reviews\n");
    let some = endpoints(vec![named("reviews:9080", "reviews:9080"), named("gone:9080", "gone:9080")]);

    let reached = reach(&mut names, &some, "reviews").await;

    assert_eq!(reached.len(), 1);
    let words = reached.unresolved.as_deref().unwrap();
    assert!(words.starts_with("gone ") && words.contains("names no DNS server"), "{words}");
}

#[tokio::test]
async fn a_request_that_goes_where_it_says_reaches_its_own_host() {
    let (mut names, _directory) = names("10.0.0.1 api.example.com\n");
    for port in [9080, 443] {
        let anywhere = Endpoints { requested: Some(port), ..Endpoints::new(fixtures::key(), Vec::new()) };
        let anywhere = Arc::new(Listed::from(anywhere));

        for (authority, ip) in [
            ("api.example.com:9080", "10.0.0.1"),
            ("api.example.com", "10.0.0.1"),
            ("10.7.7.7:9080", "10.7.7.7"),
        ] {
            let reached = reach(&mut names, &anywhere, authority).await;
            let place = format!("{ip}:{port}");
            assert_eq!(places(&reached), [pair(&place, &place)], "{authority}");
        }
    }
}

#[tokio::test]
async fn what_nobody_looks_at_is_forgotten() {
    let (mut names, _directory) = names("10.0.0.1 reviews\n");
    let endpoints = endpoints(vec![named("reviews:9080", "reviews:9080")]);
    reach(&mut names, &endpoints, "reviews").await;

    names.begin();
    names.end();

    assert!(names.reach(&endpoints, "reviews", &[]).is_none(), "it is looked up anew");
}

/// The workload `reviews` with an app at port 9080 of `host`, and a sidecar elsewhere.
fn beside_sidecar(host: &str, sidecar: &str) -> Arc<Listed> {
    let host = HostPort::new(host.parse().unwrap(), 9080);
    let named = vec![named(&host.to_string(), sidecar)];
    let (list, named) = match named[0].fixed() {
        Some(fixed) => (vec![fixed], Vec::new()),
        None => (Vec::new(), named),
    };
    Arc::new(Endpoints { named, ..Endpoints::new(ServiceKey::beside_sidecars(9080), list) }.into())
}

/// A name of which nobody says who is there.
fn outside(place: &str) -> NamedEndpoint {
    NamedEndpoint { identity: None, workload: None, ..named(place, place) }
}

async fn reach_past(names: &mut Names, outside: NamedEndpoint, workloads: &Arc<Listed>) -> Arc<Reached> {
    let endpoints = endpoints(vec![outside]);
    let found = async {
        loop {
            let workloads = names.reach(workloads, "", &[]);
            if let Some(reached) = names.reach(&endpoints, "outside", &[workloads]) {
                return reached;
            }
            names.changed().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(10), found).await.expect("answers in time")
}

#[tokio::test]
async fn a_name_that_leads_to_a_workload_is_called_as_that_workload_and_at_its_sidecar() {
    let (mut names, _directory) = names("10.0.0.1 outside\n10.0.0.2 outside\n10.0.0.1 reviews\n");

    for workloads in [beside_sidecar("10.0.0.1", "10.0.0.1:4143"), beside_sidecar("reviews", "reviews:4143")]
    {
        let reached = reach_past(&mut names, outside("outside:9080"), &workloads).await;

        let called: Vec<_> = reached.list().map(|(one, _)| (one.dial.to_string(), &one.identity)).collect();
        let identity = Some(identity());
        assert_eq!(called, [("10.0.0.1:4143".to_owned(), &identity), ("10.0.0.2:9080".to_owned(), &None)]);
        assert_eq!(reached.list().next().unwrap().0.workload, Some("shop/reviews-v1".parse().unwrap()));
    }
    // An address may be written in another way.
    let (mut odd, _directory) = names_of("::ffff:10.0.0.1 outside\n", "");
    let workloads = beside_sidecar("10.0.0.1", "10.0.0.1:4143");
    let reached = reach_past(&mut odd, outside("outside:9080"), &workloads).await;
    assert_eq!(places(&reached)[0].1, "10.0.0.1:4143");
    // At another port there may be anything, such as a database beside the workload.
    let workloads = beside_sidecar("10.0.0.1", "10.0.0.1:4143");
    let reached = reach_past(&mut names, outside("outside:5432"), &workloads).await;
    assert_eq!(places(&reached)[0], pair("10.0.0.1:5432", "10.0.0.1:5432"));
    assert!(reached.list().all(|(one, _)| one.identity.is_none()));
}

#[tokio::test]
async fn no_other_address_of_a_name_leads_past_a_sidecar() {
    let hosts = "10.0.0.1 outside\nfd00::1 outside\nfd00::2 outside\n10.0.0.9 reviews\nfd00::1 reviews\n";
    let (mut names, _directory) = names(hosts);
    let others = |reached: &Reached| -> Vec<Vec<String>> {
        let found = reached.list().filter_map(|(_, found)| found);
        found.map(|found| found.others.iter().map(ToString::to_string).collect()).collect()
    };

    for workloads in [beside_sidecar("fd00::1", "[fd00::1]:4143"), beside_sidecar("reviews", "reviews:4143")]
    {
        let reached = reach_past(&mut names, outside("outside:9080"), &workloads).await;

        assert_eq!(places(&reached), [pair("10.0.0.1:9080", "10.0.0.1:9080")]);
        assert_eq!(others(&reached), [["[fd00::2]:9080"]]);
    }
    let workloads = beside_sidecar("10.0.0.1", "10.0.0.1:4143");
    let reached = reach_past(&mut names, outside("outside:9080"), &workloads).await;
    assert_eq!(places(&reached), [pair("10.0.0.1:9080", "10.0.0.1:4143")]);
    assert_eq!(others(&reached), [[""; 0]]);
}
