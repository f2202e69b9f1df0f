//! Real handshakes over an in-memory duplex.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use rustls::{CipherSuite, HandshakeKind, NamedGroup, ProtocolVersion};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio_rustls::{TlsAcceptor, TlsConnector, client, server};

use super::*;
use crate::{
    bundle::Bundle,
    control_plane_identity,
    facts::fingerprint,
    forge::{Forger, identity, uri},
    leaf::Leaf,
};

const LIMIT: Duration = Duration::from_secs(10);
const HOUR: Duration = Duration::from_secs(3600);

type Client = client::TlsStream<DuplexStream>;
type Server = server::TlsStream<DuplexStream>;

/// Both ends' outcomes. Each end sends a byte and awaits one, so that what the other end makes of its
/// certificate, and the session tickets, have arrived.
async fn handshake(
    client: Arc<ClientConfig>,
    server: Arc<ServerConfig>,
) -> (io::Result<Client>, io::Result<Server>) {
    let (near, far) = duplex(64 * 1024);
    let dial: SocketAddr = "10.0.0.1:4143".parse().unwrap();
    let connect = async {
        let mut stream = TlsConnector::from(client).connect(session_name(dial), near).await?;
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    let accept = async {
        let mut stream = TlsAcceptor::from(server).accept(far).await?;
        stream.write_u8(1).await?;
        stream.read_u8().await?;
        Ok(stream)
    };
    tokio::time::timeout(LIMIT, async { tokio::join!(connect, accept) }).await.expect("ends in time")
}

async fn connected(client: &Live, server: &Live) -> (Client, Server) {
    let (client, server) = (client.current().unwrap(), server.current().unwrap());
    let (client, server) = handshake(Arc::clone(&client.client), Arc::clone(&server.server)).await;
    (client.unwrap(), server.unwrap())
}

fn live(ca: &Forger, service_account: &str) -> Live {
    let live = Live::new();
    live.set(ca.credentials(&identity(service_account))).unwrap();
    live
}

/// What an honest server, and then an honest client, make of a peer with `leaf`.
async fn refusals(ca: &Forger, leaf: Leaf) -> [PeerError; 2] {
    let (honest, other) = (live(ca, "honest").current().unwrap(), Live::new());
    let other = other.set(Credentials { leaf, bundle: ca.bundle() }).unwrap();

    let (client, server) = handshake(Arc::clone(&other.client), Arc::clone(&honest.server)).await;
    let by_server = peer_error(&server.unwrap_err()).expect("our own refusal").clone();
    assert!(client.is_err(), "the client saw that it was refused");
    let (client, server) = handshake(Arc::clone(&honest.client), Arc::clone(&other.server)).await;
    let by_client = peer_error(&client.unwrap_err()).expect("our own refusal").clone();
    assert!(server.is_err(), "the server saw that it was refused");
    [by_server, by_client]
}

#[tokio::test]
async fn two_workloads_prove_themselves_to_each_other() {
    let ca = Forger::new();
    let (frontend, reviews) = (live(&ca, "frontend"), live(&ca, "reviews"));

    let (client, server) = connected(&frontend, &reviews).await;

    let now = SystemTime::now();
    let seen_by_client = peer_of(client.get_ref().1, &frontend.current().unwrap(), now).unwrap();
    let seen_by_server = peer_of(server.get_ref().1, &reviews.current().unwrap(), now).unwrap();
    assert_eq!(seen_by_client.identity, identity("reviews"));
    assert_eq!(seen_by_server.identity, identity("frontend"));
}

#[tokio::test]
async fn the_post_quantum_hybrid_over_tls_13_is_negotiated() {
    let ca = Forger::new();

    let (client, _server) = connected(&live(&ca, "frontend"), &live(&ca, "reviews")).await;

    let connection = client.get_ref().1;
    assert_eq!(connection.negotiated_key_exchange_group().unwrap().name(), NamedGroup::X25519MLKEM768);
    assert_eq!(connection.protocol_version(), Some(ProtocolVersion::TLSv1_3));
    assert_eq!(connection.alpn_protocol(), Some(ALPN_MESH));
}

#[tokio::test]
async fn another_ca_is_refused_by_client_and_server() {
    let foreign = Forger::new().leaf(&identity("reviews"));

    for error in refusals(&Forger::new(), foreign).await {
        assert!(matches!(error, PeerError::Untrusted { .. }), "{error}");
    }
}

#[tokio::test]
async fn an_expired_leaf_is_refused_by_client_and_server() {
    let ca = Forger::new();
    let now = SystemTime::now();
    let expired = ca.leaf_with(&identity("reviews"), |params| params.not_after = (now - HOUR / 120).into());

    for error in refusals(&ca, expired).await {
        assert!(matches!(error, PeerError::Expired { .. }), "{error}");
    }
}

#[tokio::test]
async fn two_spiffe_ids_are_refused_by_client_and_server() {
    let ca = Forger::new();
    let two = ca.leaf_with(&identity("reviews"), |params| {
        params.subject_alt_names.push(uri(identity("admin").as_str()));
    });

    for error in refusals(&ca, two).await {
        assert!(matches!(error, PeerError::Identity { .. }), "{error}");
    }
}

#[tokio::test]
async fn another_trust_domain_is_refused_by_client_and_server() {
    let ca = Forger::new();
    let elsewhere = ca.leaf_with(&identity("reviews"), |params| {
        params.subject_alt_names = vec![uri("spiffe://elsewhere/ns/shop/sa/reviews")];
    });

    for error in refusals(&ca, elsewhere).await {
        assert!(matches!(error, PeerError::OtherTrustDomain { .. }), "{error}");
    }
}

#[tokio::test]
async fn a_client_without_a_certificate_is_refused() {
    let ca = Forger::new();
    let verifier = verifier::Workloads::any(crate::verify::Anchors::new(&ca.bundle()).unwrap());
    let anonymous = Arc::new(client_config(Arc::new(verifier), None, ALPN_MESH));

    let (client, server) =
        handshake(anonymous, Arc::clone(&live(&ca, "reviews").current().unwrap().server)).await;

    assert!(client.is_err());
    assert!(server.unwrap_err().to_string().contains("peer sent no certificates"));
}

#[tokio::test]
async fn a_resumed_handshake_still_names_the_peer() {
    let ca = Forger::new();
    let (frontend, reviews) = (live(&ca, "frontend"), live(&ca, "reviews"));
    let (first, _) = connected(&frontend, &reviews).await;

    let (client, server) = connected(&frontend, &reviews).await;

    assert_eq!(first.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    assert_eq!(client.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let now = SystemTime::now();
    let seen_by_client = peer_of(client.get_ref().1, &frontend.current().unwrap(), now).unwrap();
    let seen_by_server = peer_of(server.get_ref().1, &reviews.current().unwrap(), now).unwrap();
    assert_eq!(seen_by_client.identity, identity("reviews"));
    assert_eq!(seen_by_server.identity, identity("frontend"));
}

#[tokio::test]
async fn a_session_does_not_outlive_the_peers_certificate() {
    let ca = Forger::new();
    let (frontend, reviews) = (live(&ca, "frontend"), live(&ca, "reviews"));
    connected(&frontend, &reviews).await;

    let (client, server) = connected(&frontend, &reviews).await;

    assert_eq!(server.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let later = SystemTime::now() + 2 * HOUR;
    for (connection, current) in [
        (client.get_ref().1 as &CommonState, frontend.current().unwrap()),
        (server.get_ref().1 as &CommonState, reviews.current().unwrap()),
    ] {
        let error = peer_of(connection, &current, later).unwrap_err();
        assert!(matches!(error, PeerError::Expired { .. }), "{error}");
    }
}

#[tokio::test]
async fn after_a_change_of_either_side_the_next_handshake_is_full() {
    let ca = Forger::new();
    for client_changes in [true, false] {
        let (frontend, reviews) = (live(&ca, "frontend"), live(&ca, "reviews"));
        connected(&frontend, &reviews).await;
        let (changed, service_account) =
            if client_changes { (&frontend, "frontend") } else { (&reviews, "reviews") };

        changed.set(ca.credentials(&identity(service_account))).unwrap();

        let (client, server) = connected(&frontend, &reviews).await;
        assert_eq!(client.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
        assert_eq!(server.get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    }
}

#[tokio::test]
async fn sessions_of_one_address_are_not_offered_to_another_port() {
    let name = |dial: &str| session_name(dial.parse().unwrap());

    assert_eq!(name("10.0.0.1:4143"), name("10.0.0.1:4143"));
    assert_ne!(name("10.0.0.1:4143"), name("10.0.0.1:4144"));
    assert_ne!(name("10.0.0.1:4143"), name("10.0.0.11:4143"));
    assert_ne!(name("[::1]:4143"), name("[::2]:4143"));
    assert_ne!(name("[fe80::1%1]:4143"), name("[fe80::1%2]:4143"));
    assert_ne!(name("[::ffff:10.0.0.1]:4143"), name("10.0.0.1:4143"));
}

/// A hello as OpenSSL 1.0 sent it: version 1.2, one ECDHE-ECDSA suite, no `supported_versions`.
fn tls12_hello() -> Vec<u8> {
    let extensions = [
        &[0, 10, 0, 4, 0, 2, 0, 23][..], // supported_groups: secp256r1
        &[0, 11, 0, 2, 1, 0][..],        // ec_point_formats: uncompressed
        &[0, 13, 0, 4, 0, 2, 4, 3][..],  // signature_algorithms: ecdsa_secp256r1_sha256
    ]
    .concat();
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.extend([0, 0, 2, 0xc0, 0x2b, 1, 0]); // no session, TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256, no compression
    body.extend([0, extensions.len() as u8]);
    body.extend(extensions);
    let mut record = vec![22, 3, 1, 0, body.len() as u8 + 4, 1, 0, 0, body.len() as u8];
    record.extend(body);
    record
}

#[tokio::test]
async fn a_tls_12_client_is_refused() {
    let server = live(&Forger::new(), "reviews").current().unwrap();
    let (mut near, far) = duplex(64 * 1024);
    near.write_all(&tls12_hello()).await.unwrap();

    let accepted =
        tokio::time::timeout(LIMIT, TlsAcceptor::from(Arc::clone(&server.server)).accept(far)).await;

    let error = accepted.expect("ends in time").unwrap_err();
    let reason = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>());
    assert!(matches!(reason, Some(rustls::Error::PeerIncompatible(_))), "{error:?}");
    let mut alert = [0; 7];
    near.read_exact(&mut alert).await.unwrap();
    assert_eq!((alert[0], alert[6]), (21, 70), "alert: protocol_version");
}

#[test]
fn an_expired_certificate_of_our_own_is_not_usable() {
    let current = live(&Forger::new(), "reviews").current().unwrap();
    let now = SystemTime::now();

    assert_eq!(current.usable(now), Ok(()));
    assert!(matches!(current.usable(now + 2 * HOUR), Err(Unusable::Expired { .. })));
    assert!(matches!(current.usable(now - 2 * HOUR), Err(Unusable::NotYetValid { .. })));
}

#[test]
fn a_withdrawn_root_retires_what_was_verified_with_it_and_an_added_one_does_not() {
    let (old, new) = (Forger::new(), Forger::new());
    let both = Bundle { roots: vec![old.root.clone(), new.root.clone()], ..old.bundle() };
    let live = Live::new();
    let me = identity("reviews");

    let first = live.set(old.credentials(&me)).unwrap();
    let renewed = live.set(old.credentials(&me)).unwrap();
    let overlap = live.set(Credentials { leaf: old.leaf(&me), bundle: both }).unwrap();
    assert!(![&first, &renewed, &overlap].iter().any(|current| current.is_retired()));

    let last = live.set(new.credentials(&me)).unwrap();
    assert!([&first, &renewed, &overlap].iter().all(|current| current.is_retired()));
    assert!(!last.is_retired());
}

#[tokio::test]
async fn a_peer_is_vouched_for_until_its_own_root_is_withdrawn_whatever_is_renewed() {
    let (old, new) = (Forger::new(), Forger::new());
    let both = Bundle { roots: vec![old.root.clone(), new.root.clone()], ..old.bundle() };
    let (me, frontend) = (identity("reviews"), identity("frontend"));
    let reviews = Live::new();
    let overlap = reviews.set(Credentials { leaf: old.leaf(&me), bundle: both.clone() }).unwrap();
    let now = SystemTime::now();
    let [by_old, by_new] = [&old, &new].map(|ca| {
        let client = Live::new();
        client.set(Credentials { leaf: ca.leaf(&frontend), bundle: both.clone() }).unwrap();
        client
    });
    let (_, by_old) = connected(&by_old, &reviews).await;
    let (_, by_new) = connected(&by_new, &reviews).await;
    let [by_old, by_new] = [by_old, by_new].map(|stream| shown(stream.get_ref().1, Role::Client, now));
    assert!([&by_old, &by_new].iter().all(|peer| overlap.vouches_for(peer).is_ok()));

    let renewed = reviews.set(Credentials { leaf: new.leaf(&me), bundle: both }).unwrap();
    assert!([&by_old, &by_new].iter().all(|peer| renewed.vouches_for(peer).is_ok()));

    let withdrawn = reviews.set(new.credentials(&me)).unwrap();
    assert!(matches!(withdrawn.vouches_for(&by_old), Err(PeerError::Untrusted { .. })));
    assert_eq!(withdrawn.vouches_for(&by_new), Ok(()));
}

#[test]
fn every_change_is_announced_to_all_clones() {
    let ca = Forger::new();
    let live = Live::new();
    let seen = live.clone();
    let changes = seen.subscribe();
    assert!(seen.current().is_none());
    assert_eq!(*changes.borrow(), 0);

    live.set(ca.credentials(&identity("reviews"))).unwrap();
    live.set(ca.credentials(&identity("reviews"))).unwrap();

    assert_eq!(*changes.borrow(), 2);
    assert_eq!(seen.current().unwrap().generation, 2);
}

#[test]
fn credentials_that_cannot_work_leave_those_in_use() {
    let ca = Forger::new();
    let live = live(&ca, "reviews");
    let elsewhere = Bundle { trust_domain: "elsewhere".parse().unwrap(), ..ca.bundle() };
    let empty = Bundle { roots: Vec::new(), ..ca.bundle() };

    for bundle in [elsewhere, empty] {
        assert!(live.set(Credentials { leaf: ca.leaf(&identity("reviews")), bundle }).is_err());
    }

    assert_eq!(live.current().unwrap().generation, 1);
}

fn control_plane(ca: &Forger) -> Arc<ServerConfig> {
    let own = ca.credentials(&control_plane_identity(&ca.bundle().trust_domain));
    grpc_server(&own, Some(&TicketSecret::of(b"secret"))).unwrap()
}

#[tokio::test]
async fn a_session_with_the_control_plane_outlives_its_process_and_certificate_but_not_the_roots() {
    let (ca, other) = (Forger::new(), Forger::new());
    let client = grpc_client(&ca.credentials(&identity("reviews"))).unwrap();
    let (first, _) = handshake(Arc::clone(&client), control_plane(&ca)).await;
    assert_eq!(first.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));

    let (resumed, server) = handshake(Arc::clone(&client), control_plane(&ca)).await;
    let (resumed, server) = (resumed.unwrap(), server.unwrap());
    assert_eq!(resumed.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    let suite = resumed.get_ref().1.negotiated_cipher_suite().unwrap().suite();
    assert_eq!(suite, CipherSuite::TLS13_AES_128_GCM_SHA256);
    let (now, later) = (SystemTime::now(), SystemTime::now() + 2 * HOUR);
    let chain = server.get_ref().1.peer_certificates().unwrap();
    let trust_domain = ca.bundle().trust_domain;
    assert_eq!(verify::established(chain, &trust_domain, now).unwrap().identity, identity("reviews"));
    let expired = verify::established(chain, &trust_domain, later).unwrap_err();
    assert!(matches!(expired, PeerError::Expired { .. }), "{expired}");
    still_valid(resumed.get_ref().1, now).unwrap();
    let expired = still_valid(resumed.get_ref().1, later).unwrap_err();
    assert!(matches!(expired, PeerError::Expired { .. }), "{expired}");

    let mut own = ca.credentials(&control_plane_identity(&trust_domain));
    own.bundle.roots.extend(other.bundle().roots);
    let with_another_root = grpc_server(&own, Some(&TicketSecret::of(b"secret"))).unwrap();
    let (full, _) = handshake(Arc::clone(&client), with_another_root).await;
    assert_eq!(full.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
    let own = ca.credentials(&control_plane_identity(&trust_domain));
    let with_another_secret = grpc_server(&own, Some(&TicketSecret::of(b"other"))).unwrap();
    let (full, _) = handshake(client, with_another_secret).await;
    assert_eq!(full.unwrap().get_ref().1.handshake_kind(), Some(HandshakeKind::Full));
}

#[tokio::test]
async fn the_root_pin_is_enough_to_trust_the_control_plane() {
    let ca = Forger::new();
    let trust_domain = ca.bundle().trust_domain;

    let right = bootstrap_client(&[fingerprint(&ca.root).0], &trust_domain);
    let (client, server) = handshake(right, control_plane(&ca)).await;

    assert_eq!(client.unwrap().get_ref().1.alpn_protocol(), Some(ALPN_GRPC));
    assert!(server.unwrap().get_ref().1.peer_certificates().is_none());
}

#[tokio::test]
async fn another_root_than_the_pinned_one_is_not_trusted() {
    let (ca, other) = (Forger::new(), Forger::new());
    let trust_domain = ca.bundle().trust_domain;

    let wrong = bootstrap_client(&[fingerprint(&other.root).0], &trust_domain);
    let (client, server) = handshake(wrong, control_plane(&ca)).await;

    let error = client.unwrap_err();
    assert!(matches!(peer_error(&error), Some(PeerError::OtherRoot { .. })), "{error}");
    assert!(explain(&error).contains("make a new token"), "{}", explain(&error));
    assert!(explain(&server.unwrap_err()).contains("its log says why"));
}

/// Knowing the right root is public knowledge: to send it along must not be enough.
#[tokio::test]
async fn a_chain_that_only_carries_the_pinned_root_is_not_trusted() {
    let (ca, other) = (Forger::new(), Forger::new());
    let trust_domain = ca.bundle().trust_domain;
    let mut impostor = other.credentials(&control_plane_identity(&trust_domain));
    impostor.bundle.roots.push(ca.root.clone());

    let client = bootstrap_client(&[fingerprint(&ca.root).0], &trust_domain);
    let (client, _) = handshake(client, grpc_server(&impostor, None).unwrap()).await;

    assert!(matches!(peer_error(&client.unwrap_err()), Some(PeerError::Untrusted { .. })));
}

#[tokio::test]
async fn a_workload_cannot_pass_for_the_control_plane() {
    let ca = Forger::new();
    let trust_domain = ca.bundle().trust_domain;
    let impostor = || grpc_server(&ca.credentials(&identity("reviews")), None).unwrap();

    for client in [
        bootstrap_client(&[fingerprint(&ca.root).0], &trust_domain),
        grpc_client(&ca.credentials(&identity("frontend"))).unwrap(),
    ] {
        let (client, _) = handshake(client, impostor()).await;
        let error = client.unwrap_err();
        assert!(matches!(peer_error(&error), Some(PeerError::OtherIdentity { .. })), "{error}");
    }
}

#[tokio::test]
async fn a_workload_with_a_certificate_proves_itself_to_the_control_plane() {
    let ca = Forger::new();
    let workload = grpc_client(&ca.credentials(&identity("reviews"))).unwrap();

    let (client, server) = handshake(workload, control_plane(&ca)).await;

    client.unwrap();
    let server = server.unwrap();
    let chain = server.get_ref().1.peer_certificates().unwrap();
    let peer = verify::established(chain, &ca.bundle().trust_domain, SystemTime::now()).unwrap();
    assert_eq!(peer.identity, identity("reviews"));
}

#[tokio::test]
async fn the_control_plane_refuses_a_certificate_of_another_ca() {
    let ca = Forger::new();
    let mut stranger = Forger::new().credentials(&identity("reviews"));
    stranger.bundle = ca.bundle();

    let (_, server) = handshake(grpc_client(&stranger).unwrap(), control_plane(&ca)).await;

    assert!(matches!(peer_error(&server.unwrap_err()), Some(PeerError::Untrusted { .. })));
}

#[tokio::test]
async fn who_calls_us_from_outside_the_mesh_may_speak_tls_1_2_and_shows_nothing() {
    let ca = Forger::new();
    let server = https_server(&ca.credentials(&identity("control-plane")), None).unwrap();
    let mut old = ClientConfig::builder_with_provider(provider())
        .with_protocol_versions(&[&rustls::version::TLS12])
        .unwrap()
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(kubernetes::AnyServer))
        .with_no_client_auth();
    old.alpn_protocols = vec![ALPN_HTTP1.to_vec()];

    for (client, version) in
        [(unverified_client(), ProtocolVersion::TLSv1_3), (Arc::new(old), ProtocolVersion::TLSv1_2)]
    {
        let (client, server) = handshake(client, Arc::clone(&server)).await;
        let (client, server) = (client.unwrap(), server.unwrap());

        assert_eq!(client.get_ref().1.protocol_version(), Some(version));
        assert_eq!(server.get_ref().1.alpn_protocol(), Some(ALPN_HTTP1));
        assert!(server.get_ref().1.peer_certificates().is_none());
    }
}
