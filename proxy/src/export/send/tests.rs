//! When whom to trust is looked up again: a system has some hundred authorities.

use std::fs;

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use selvedge_certs::tls::provider;
use selvedge_ops::ResolverArgs;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
    sync::mpsc::{Receiver, channel},
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        ServerConfig,
        pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer},
    },
};

use super::*;

/// An authority's certificate in PEM form, and a server whose certificate is from it.
fn authority_and_server() -> (String, ServerConfig) {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let issuer = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
    let key = KeyPair::generate().unwrap();
    let leaf =
        CertificateParams::new(vec!["127.0.0.1".to_owned()]).unwrap().signed_by(&key, &issuer).unwrap();
    let key = PrivateKeyDer::from(PrivatePkcs8KeyDer::from(key.serialize_der()));
    let builder =
        ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
    let config = builder.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key).unwrap();
    (issuer.pem(), config)
}

/// What a collector does with the next message.
#[expect(clippy::large_enum_variant, reason = "a test has a few of them")]
enum Next {
    /// Answers with this status.
    Answer(&'static str),
    /// Shows this certificate first.
    Show(ServerConfig, &'static str),
    /// Ends the connection without TLS.
    Leave,
}

async fn serve(listener: TcpListener, config: ServerConfig, mut next: Receiver<Next>) {
    let mut config = Arc::new(config);
    while let Some(next) = next.recv().await {
        let (stream, _) = listener.accept().await.unwrap();
        let status = match next {
            Next::Answer(status) => status,
            Next::Show(other, status) => {
                config = Arc::new(other);
                status
            }
            Next::Leave => continue,
        };
        let Ok(mut stream) = TlsAcceptor::from(Arc::clone(&config)).accept(stream).await else { continue };
        let mut head = Vec::new();
        while !head.windows(4).any(|end| end == b"\r\n\r\n") && stream.read_buf(&mut head).await.unwrap() > 0
        {
        }
        let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 0\r\nconnection: close\r\n\r\n");
        stream.write_all(answer.as_bytes()).await.unwrap();
        let _ = stream.shutdown().await;
    }
}

#[tokio::test]
async fn whom_to_trust_is_read_again_when_a_certificate_is_not_believed_and_after_no_other_failure() {
    let (authority, server) = authority_and_server();
    let (other, other_server) = authority_and_server();
    let files = tempfile::tempdir().unwrap();
    let ca = files.path().join("ca.pem");
    fs::write(&ca, authority).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let collector = format!("https://{}", listener.local_addr().unwrap()).parse().unwrap();
    let (tell, told) = channel(1);
    tokio::spawn(serve(listener, server, told));
    let resolver = Arc::new(Resolver::new(ResolverArgs::default()));
    let mut link = Link::new(collector, Protocol::Http, resolver, Some(ca.clone()));
    let parcel = Parcel::spans(otlp::Resource::default(), Vec::new());
    let mut send = async |next| {
        tell.send(next).await.unwrap_or_else(|_| panic!("the collector serves"));
        link.send(&parcel).await.map_err(|error| error.what)
    };

    assert_eq!(send(Next::Answer("200 OK")).await, Ok(0));
    // From here on it would fail to read it.
    fs::remove_file(&ca).unwrap();
    assert!(send(Next::Answer("503 Service Unavailable")).await.unwrap_err().contains("503"));
    assert!(send(Next::Leave).await.is_err());
    assert_eq!(send(Next::Answer("200 OK")).await, Ok(0), "it is still known");

    let doubted = send(Next::Show(other_server, "200 OK")).await.unwrap_err();
    assert!(doubted.contains("not from a certificate authority that is trusted here"), "{doubted}");
    // The collector has another certificate: so others are to be trusted, and there they are.
    fs::write(&ca, other).unwrap();
    assert_eq!(send(Next::Answer("200 OK")).await, Ok(0));
}
