use http::HeaderMap;
use selvedge_model::limit::Exception;

use super::*;

fn quota(requests: u32) -> Quota {
    Quota { requests, per: Duration::from_secs(3600), burst: requests }
}

fn document(name: &str, dry_run: bool, limits: Vec<Limit>) -> RateLimit {
    RateLimit::new(name.into(), None, dry_run, limits)
}

/// How many of 100 requests from `address` are let in.
fn admitted(limits: &BoundLimits, address: &str, now: Instant) -> usize {
    let headers = HeaderMap::new();
    let asker =
        Asker { address: Some(address.parse().unwrap()), identity: None, headers: &headers, route: None };
    (0..100).filter(|_| limits.take(80, asker, None, now, |_| {}).is_ok()).count()
}

#[test]
fn each_client_has_its_own_and_all_share_what_is_for_all() {
    let limiters = Limiters::default();
    let all = vec![Limit::new(By::Everyone, quota(15)), Limit::new(By::ClientAddress, quota(10))];
    let limits = limiters.bind(&[document("a", false, all)]).unwrap();
    let now = Instant::now();

    assert_eq!(admitted(&limits, "10.0.0.1", now), 10);
    assert_eq!(admitted(&limits, "10.0.0.2", now), 5);
    // What all share has refused it, so its own tokens were given back.
    let by_address = vec![Limit::new(By::ClientAddress, quota(10))];
    let alone = limiters.bind(&[document("a", false, by_address)]).unwrap();
    assert_eq!(admitted(&alone, "10.0.0.2", now), 5);
}

#[test]
fn of_the_limits_that_a_client_is_told_of_it_hears_of_the_tightest() {
    let by_address = |requests| vec![Limit::new(By::ClientAddress, quota(requests))];
    let told = |documents: &[RateLimit]| {
        let limits = Limiters::default().bind(documents).unwrap();
        let headers = HeaderMap::new();
        let address = Some("10.0.0.1".parse().unwrap());
        let asker = Asker { address, identity: None, headers: &headers, route: None };
        let left = limits.take(80, asker, None, Instant::now(), |_| {}).unwrap();
        left.map(|left| (left.limit, left.remaining, left.reset.is_some()))
    };
    let [wide, tight] = [document("a", false, by_address(10)), document("b", false, by_address(3))];

    assert_eq!(told(&[wide.clone(), tight.clone()]), None);
    assert_eq!(told(&[wide.clone().telling(true), tight.clone()]), Some((10, 9, true)));
    assert_eq!(told(&[wide.clone().telling(true), tight.telling(true)]), Some((3, 2, true)));
    let dry_run = RateLimit { dry_run: true, ..document("c", false, by_address(1)).telling(true) };
    assert_eq!(told(&[wide.telling(true), dry_run]), Some((10, 9, true)), "it is to be noticed by nobody");
}

#[test]
fn an_edit_of_something_else_changes_no_bucket() {
    let limiters = Limiters::default();
    let by_address = |requests| Limit::new(By::ClientAddress, quota(requests));
    let before = limiters.bind(&[document("a", false, vec![by_address(10)])]).unwrap();
    let now = Instant::now();
    assert_eq!(admitted(&before, "10.0.0.1", now), 10);

    let other = document("b", false, vec![by_address(50)]);
    let after = limiters.bind(&[other, document("a", false, vec![by_address(10)])]).unwrap();
    drop(before);
    assert_eq!(admitted(&after, "10.0.0.1", now), 0);

    // A larger number lets in as many more.
    let larger = limiters.bind(&[document("a", false, vec![by_address(15)])]).unwrap();
    drop(after);
    let let_in = admitted(&larger, "10.0.0.1", now);
    assert!((0..=5).contains(&let_in), "{let_in}");
}

#[test]
fn a_dry_run_refuses_nothing_and_takes_note() {
    let limiters = Limiters::default();
    let limits = limiters.bind(&[document("a", true, vec![Limit::new(By::Everyone, quota(10))])]).unwrap();
    let (headers, mut noted) = (HeaderMap::new(), 0);
    let asker = Asker { address: None, identity: None, headers: &headers, route: None };
    for _ in 0..15 {
        assert!(limits.take(80, asker, None, Instant::now(), |_| noted += 1).is_ok());
    }
    assert_eq!(noted, 5);
}

#[test]
fn those_of_one_exception_share_a_bucket() {
    let (a, b): (SpiffeId, SpiffeId) = (
        "spiffe://cluster.local/ns/x/sa/a".parse().unwrap(),
        "spiffe://cluster.local/ns/x/sa/b".parse().unwrap(),
    );
    let exceptions = vec![Exception { identities: [a.clone(), b.clone()].into(), quota: quota(7) }];
    let limit = Limit { exceptions, ..Limit::new(By::ClientIdentity, quota(3)) };
    let limits = Limiters::default().bind(&[document("a", false, vec![limit])]).unwrap();
    let headers = HeaderMap::new();
    let admitted = |identity| {
        let asker = Asker { address: None, identity, headers: &headers, route: None };
        (0..100).filter(|_| limits.take(80, asker, None, Instant::now(), |_| {}).is_ok()).count()
    };

    assert_eq!(admitted(Some(&a)) + admitted(Some(&b)), 7);
    assert_eq!(admitted(None), 3);
}

#[test]
fn what_a_connection_remembers_of_its_bucket_is_of_one_limit_alone() {
    let identity: SpiffeId = "spiffe://cluster.local/ns/x/sa/a".parse().unwrap();
    let (limiters, headers, now) = (Limiters::default(), HeaderMap::new(), Instant::now());
    let by_identity = |requests| Limit::new(By::ClientIdentity, quota(requests));
    let bound = |documents: &[RateLimit]| limiters.bind(documents).unwrap();
    let both = [document("a", false, vec![by_identity(10)]), document("b", false, vec![by_identity(30)])];
    let asker = Asker { address: None, identity: Some(&identity), headers: &headers, route: None };
    let [one, other] = [LastKey::default(), LastKey::default()];
    let admitted = |limits: &BoundLimits, last| {
        (0..100).filter(|_| limits.take(80, asker, last, now, |_| {}).is_ok()).count()
    };
    let (first, second, all) = (bound(&both[..1]), bound(&both[1..]), bound(&both));

    assert!(first.take(80, asker, Some(&one), now, |_| {}).is_ok());
    assert_eq!(admitted(&second, Some(&one)), 30, "another limit has another bucket");
    assert_eq!(admitted(&first, Some(&one)), 9);
    assert_eq!(admitted(&all, Some(&one)) + admitted(&all, Some(&other)) + admitted(&all, None), 0);

    // A limit by something else looks at nothing that is remembered.
    let address = document("c", false, vec![Limit::new(By::ClientAddress, quota(5))]);
    let limits = bound(&[address]);
    let of = |address: &str| Asker { address: Some(address.parse().unwrap()), ..asker };
    for client in ["10.0.0.1", "10.0.0.2"] {
        let taken = (0..100).filter(|_| limits.take(80, of(client), Some(&one), now, |_| {}).is_ok());
        assert_eq!(taken.count(), 5, "{client}");
    }
}

#[test]
fn each_namespace_has_a_table_of_its_own_and_there_are_not_too_many() {
    let limiters = Limiters::default();
    let by_address = || vec![Limit::new(By::ClientAddress, quota(10))];
    let bound = |name: &str| limiters.bind(&[document(name, false, by_address())]).unwrap();
    let table = |limits: &BoundLimits| Arc::as_ptr(&limits.all[0].own.state.buckets);

    let (one, same, other) =
        (bound("RateLimit shop/a"), bound("RateLimit shop/b"), bound("RateLimit other/a"));
    assert_eq!(table(&one), table(&same));
    assert_ne!(table(&one), table(&other));

    let many: Vec<_> = (0..100).map(|number| bound(&format!("RateLimit n{number}/a"))).collect();
    let tables: BTreeSet<_> = many.iter().chain([&one, &other]).map(table).collect();
    assert_eq!(tables.len(), MOST_TABLES + 1);
    assert_eq!(table(&bound("RateLimit shop/a")), table(&one));
}
