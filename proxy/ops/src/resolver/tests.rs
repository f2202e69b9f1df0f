//! Against a DNS server of our own, on loopback.

use std::{collections::HashMap, net::SocketAddr};

use hickory_resolver::proto::{
    op::{Message, MessageType, OpCode},
    rr::{RData, Record},
    serialize::binary::{BinDecodable, BinEncodable},
};
use tempfile::TempDir;
use tokio::net::UdpSocket;

use super::*;

/// A server that knows these names, with a TTL in seconds; says NXDOMAIN to others.
async fn server(known: &[(&str, u32, &[&str])]) -> SocketAddr {
    let known: HashMap<String, (u32, Vec<IpAddr>)> = known
        .iter()
        .map(|(name, ttl, ips)| {
            ((*name).to_owned(), (*ttl, ips.iter().map(|ip| ip.parse().unwrap()).collect()))
        })
        .collect();
    let socket = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let address = socket.local_addr().unwrap();
    tokio::spawn(async move {
        let mut buffer = [0; 1500];
        while let Ok((length, from)) = socket.recv_from(&mut buffer).await {
            let request = Message::from_bytes(&buffer[..length]).unwrap();
            let query = request.queries[0].clone();
            let mut answer = Message::new(request.id, MessageType::Response, OpCode::Query);
            answer.add_query(query.clone());
            match known.get(query.name().to_string().trim_end_matches('.')) {
                None => answer.metadata.response_code = ResponseCode::NXDomain,
                Some(_) if query.query_type() == RecordType::AAAA && is_silent(query.name()) => continue,
                Some((ttl, ips)) => {
                    let fits = |ip: &&IpAddr| ip.is_ipv4() == (query.query_type() == RecordType::A);
                    for ip in ips.iter().filter(fits) {
                        let record = Record::from_rdata(query.name().clone(), *ttl, RData::from(*ip));
                        answer.add_answer(record);
                    }
                }
            }
            socket.send_to(&answer.to_bytes().unwrap(), from).await.unwrap();
        }
    });
    address
}

/// Whether questions about IPv6 are not answered: some servers never do.
fn is_silent(name: &Name) -> bool {
    name.to_string().starts_with("silent.")
}

fn resolver(directory: &TempDir, resolv_conf: &str, hosts: &str) -> Resolver {
    let args = ResolverArgs {
        resolv_conf: directory.path().join("resolv.conf"),
        hosts_file: directory.path().join("hosts"),
    };
    fs::write(&args.resolv_conf, resolv_conf).unwrap();
    fs::write(&args.hosts_file, hosts).unwrap();
    Resolver::new(args)
}

fn found(resolved: Result<Resolved, ResolveError>) -> Vec<String> {
    resolved.unwrap().addresses.iter().map(ToString::to_string).collect()
}

#[tokio::test]
async fn a_name_has_its_ipv4_addresses_or_else_its_ipv6_ones_or_both() {
    let known: &[(&str, u32, &[&str])] =
        &[("both.test", 60, &["10.0.0.1", "10.0.0.2", "fd00::1"]), ("six_only.test", 60, &["fd00::2"])];
    let directory = tempfile::tempdir().unwrap();
    let resolver = resolver(&directory, &format!("nameserver {}\n", server(known).await), "");

    assert_eq!(found(resolver.addresses("both.test").await), ["10.0.0.1", "10.0.0.2"]);
    assert_eq!(found(resolver.addresses("six_only.test").await), ["fd00::2"]);
    assert_eq!(found(resolver.all_addresses("both.test").await), ["10.0.0.1", "10.0.0.2", "fd00::1"]);
    assert_eq!(found(resolver.addresses("10.9.9.9").await), ["10.9.9.9"]);
}

#[tokio::test]
async fn who_has_ipv4_does_not_wait_long_for_ipv6() {
    let known: &[(&str, u32, &[&str])] = &[
        ("both.test", 60, &["10.0.0.1", "fd00::1"]),
        ("six_only.test", 60, &["fd00::2"]),
        ("silent.test", 60, &["10.0.0.3", "fd00::3"]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let resolver = resolver(&directory, &format!("nameserver {}\n", server(known).await), "");

    assert_eq!(found(resolver.all_addresses_soon("six_only.test").await), ["fd00::2"]);
    let silent = resolver.all_addresses_soon("silent.test").await;
    assert!(silent.as_ref().unwrap().lacks_ipv6);
    assert_eq!(found(silent), ["10.0.0.3"]);
    assert_eq!(resolver.all_addresses_soon("none.test").await, Err(ResolveError::NoSuchName));
    // A machine that is busy may answer late for once.
    while resolver.all_addresses_soon("both.test").await.unwrap().lacks_ipv6 {}
    assert_eq!(found(resolver.all_addresses_soon("both.test").await), ["10.0.0.1", "fd00::1"]);
}

#[tokio::test]
async fn answers_are_believed_for_their_ttl_and_never_long() {
    let known: &[(&str, u32, &[&str])] = &[
        ("long.test", 3600, &["10.0.0.1"]),
        ("short.test", 2, &["10.0.0.1"]),
        ("zero.test", 0, &["10.0.0.1"]),
    ];
    let directory = tempfile::tempdir().unwrap();
    let resolver = resolver(&directory, &format!("nameserver {}\n", server(known).await), "");
    let valid_for = async |name| resolver.addresses(name).await.unwrap().valid_for;

    assert!(valid_for("long.test").await <= MAX_KEPT);
    assert!(valid_for("long.test").await > Duration::from_secs(2));
    assert!(valid_for("short.test").await <= Duration::from_secs(2));
    assert_eq!(valid_for("zero.test").await, Duration::ZERO);

    // Who watches a name comes back when its TTL is over.
    let valid_for = async |name| resolver.all_addresses_soon(name).await.unwrap().valid_for;
    let long = valid_for("long.test").await;
    assert!(long <= MAX_TTL && long > MAX_KEPT, "{long:?}");
    assert!(valid_for("short.test").await <= Duration::from_secs(2));
}

#[tokio::test]
async fn search_domains_are_tried_as_ndots_says() {
    let known: &[(&str, u32, &[&str])] = &[
        ("reviews.shop.test", 60, &["10.0.0.1"]),
        ("a.b.shop.test", 60, &["10.0.0.2"]),
        ("a.b", 60, &["10.0.0.3"]),
    ];
    let server = server(known).await;
    let directory = tempfile::tempdir().unwrap();
    let one = resolver(&directory, &format!("nameserver {server}\nsearch other.test shop.test\n"), "");
    let five = format!("nameserver {server}\nsearch shop.test\noptions ndots:5\n");
    let elsewhere = tempfile::tempdir().unwrap();
    let five = resolver(&elsewhere, &five, "");

    assert_eq!(found(one.addresses("reviews").await), ["10.0.0.1"]);
    assert_eq!(found(one.addresses("a.b").await), ["10.0.0.3"]);
    assert_eq!(found(five.addresses("a.b").await), ["10.0.0.2"]);
    assert_eq!(found(five.addresses("a.b.").await), ["10.0.0.3"], "a dot at the end ends it");
}

#[tokio::test]
async fn the_hosts_file_comes_first_and_needs_no_server() {
    let directory = tempfile::tempdir().unwrap();
    let resolver =
        resolver(&directory, "search example.com\n", "10.1.1.1 Reviews reviews.local\nfd00::9 reviews\n");

    assert_eq!(found(resolver.addresses("reviews").await), ["10.1.1.1"]);
    assert_eq!(found(resolver.all_addresses("reviews").await), ["10.1.1.1", "fd00::9"]);
    assert!(found(resolver.addresses("localhost").await).contains(&"127.0.0.1".to_owned()));
    let error = resolver.addresses("ratings").await.unwrap_err().to_string();
    assert!(error.contains("names no DNS server"), "{error}");
}

#[tokio::test]
async fn files_that_change_are_read_again() {
    let directory = tempfile::tempdir().unwrap();
    let resolver = resolver(&directory, "", "10.1.1.1 reviews\n");
    assert_eq!(found(resolver.addresses("reviews").await), ["10.1.1.1"]);

    fs::write(directory.path().join("hosts"), "10.1.1.2 reviews\n").unwrap();
    resolver.state.lock().unwrap().looked_at -= LOOK_AGAIN;

    assert_eq!(found(resolver.addresses("reviews").await), ["10.1.1.2"]);
}

#[tokio::test]
async fn what_goes_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let known: &[(&str, u32, &[&str])] = &[("empty.test", 60, &[])];
    let knows = resolver(&directory, &format!("nameserver {}\n", server(known).await), "");

    assert_eq!(knows.addresses("nobody.test").await, Err(ResolveError::NoSuchName));
    assert_eq!(knows.addresses("empty.test").await, Err(ResolveError::NoAddress));
    assert_eq!(knows.addresses("a..b").await, Err(ResolveError::NotAName));
}

#[tokio::test]
async fn a_server_that_says_nothing_is_waited_for_within_limits() {
    let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
    let conf = format!("nameserver {}\noptions timeout:1 attempts:1\n", silent.local_addr().unwrap());
    let directory = tempfile::tempdir().unwrap();
    let resolver = resolver(&directory, &conf, "");

    let error = resolver.addresses("reviews.test").await.unwrap_err();

    assert!(matches!(error, ResolveError::NoAnswer { .. }), "{error}");
}
