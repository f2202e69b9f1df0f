//! Who gets a certificate, and for what.

use std::time::SystemTime;

use selvedge_api::wire::{self};
use selvedge_certs::{
    csr::KeyAndCsr,
    leaf::Leaf,
    tls::{Credentials, grpc_client},
};
use tonic::Code;

use super::{
    super::*,
    harness::{ProxyStream, TestMesh, hello, mesh, names},
};
use crate::testing::identity;

#[tokio::test]
async fn a_token_becomes_a_certificate_and_that_opens_the_stream() {
    let world = TestMesh::start(mesh());
    let identity = identity("shop", "frontend");
    let made = KeyAndCsr::generate(&identity).unwrap();
    let request = wire::SignRequest {
        csr: made.der.into(),
        workload: "shop/frontend".into(),
        token: Some(world.token(identity, SystemTime::now())),
        ttl_seconds: Some(60),
    };

    let signed = world.newcomer().await.sign(request).await.unwrap().into_inner();
    let chain = signed.chain.iter().map(|der| der.to_vec().into()).collect();
    let leaf = Leaf::new(chain, made.key).unwrap();
    let own = Credentials { leaf, bundle: world.authority.bundle() };
    let channel = world.connect(grpc_client(&own).unwrap()).await;
    let mut talk = ProxyStream::open(channel, hello("shop/frontend")).await;

    assert_eq!(names(&talk.apply().await), ["self", "bundle"]);
}

#[tokio::test]
async fn a_request_for_somebody_elses_certificate_is_refused() {
    let world = TestMesh::start(mesh());
    let mut newcomer = world.newcomer().await;
    let csr = KeyAndCsr::generate(&identity("shop", "reviews")).unwrap().der;
    let request = wire::SignRequest {
        csr: csr.into(),
        workload: "shop/frontend".into(),
        token: Some(world.token(identity("shop", "frontend"), SystemTime::now())),
        ttl_seconds: None,
    };

    let other_csr = newcomer.sign(request.clone()).await.unwrap_err();
    let other_workload = wire::SignRequest { workload: "shop/reviews-1".into(), ..request };
    let other_workload = newcomer.sign(other_workload).await.unwrap_err();

    assert_eq!(other_csr.code(), Code::InvalidArgument, "{other_csr}");
    assert_eq!(other_workload.code(), Code::PermissionDenied, "{other_workload}");
    assert!(
        other_workload.message().contains("spiffe://cluster.local/ns/shop/sa/reviews"),
        "{other_workload}"
    );
}

#[tokio::test]
async fn an_expired_and_an_altered_token_are_refused() {
    let world = TestMesh::start(mesh());
    let mut newcomer = world.newcomer().await;
    let identity = identity("shop", "frontend");
    let request = |token| wire::SignRequest {
        csr: KeyAndCsr::generate(&identity).unwrap().der.into(),
        workload: "shop/frontend".into(),
        token: Some(token),
        ttl_seconds: None,
    };
    let expired = world.token(identity.clone(), SystemTime::now() - Duration::from_secs(3600));
    let valid = world.token(identity.clone(), SystemTime::now());
    let altered = if valid.ends_with('A') { format!("{valid}B") } else { format!("{valid}A") };

    for (token, word) in [(expired, "expired"), (altered, "join token")] {
        let refused = newcomer.sign(request(token)).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{refused}");
        assert!(refused.message().contains(word), "{refused}");
    }
    newcomer.sign(request(valid)).await.unwrap();
}
