//! What must hold for any bytes. Each function takes what a peer or a user could send and panics if a rule is
//! broken; fuzzers call them (`tests/fuzz`), and a plain test with every file of their corpus.

use std::{
    net::SocketAddr,
    path::Path,
    sync::{Arc, LazyLock},
    time::{Duration, SystemTime},
};

use axum::{Router, routing::get};
use bytes::BytesMut;
use clap::Parser;
use futures_util::FutureExt;
use http::header;
use k8s_openapi::api::core::v1::Pod;
use prost::Message;
use selvedge_api::{preamble, wire};
use selvedge_certs::{ca::Authority, facts::Facts};
use selvedge_control_plane::{
    compile,
    inject::{
        Decision, InjectArgs, InjectionSettings, NamespaceFacts, decide, revert::revert, review::Review,
        validate,
    },
    resources::{DecodeOutcome, Resources, calico::Expression, decode},
    serve::attestation::Attestor,
};
use selvedge_model::{
    Mesh, SpiffeId, TrustDomain, WorkloadName,
    normalize::path,
    token::{self, Authentication, Keys, TokenRule},
};
use selvedge_ops::{
    Admin, Drain, Readiness, http1, logging,
    places::{Limits, Places},
};
use selvedge_proxy::{
    authenticate,
    detect::{First, detect},
    io::Framed,
    tokens::Tokens,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    runtime::{Builder, Runtime},
};

/// The clock of what waits only for so long.
static CLOCK: LazyLock<Runtime> =
    LazyLock::new(|| Builder::new_current_thread().enable_time().build().expect("a runtime"));

/// The first bytes of a connection: detected without waiting for more than there are, and none lost.
pub fn detection(sent: &[u8]) {
    let _clock = CLOCK.enter();
    let (mut rest, mut read) = (sent, BytesMut::new());
    let first = detect(&mut rest, &mut read, None).now_or_never().expect("a slice makes nobody wait");
    let first = first.expect("a slice does not fail");
    assert_eq!(first == First::End, sent.is_empty(), "{first:?}");
    assert_eq!([&read[..], rest].concat(), sent, "nothing is lost");
}

/// A preamble between sidecars: refused, or the same when it is written again.
pub fn preamble(sent: &[u8]) {
    let Ok(read) = preamble::decode(sent) else { return };
    let written = preamble::encode(&read);
    let prefix = written.first_chunk().copied().expect("a length comes first");
    if let Ok(length) = preamble::length(prefix) {
        assert_eq!(length, written.len() - prefix.len());
        assert_eq!(preamble::decode(&written[prefix.len()..]).expect("it was read before"), read);
    }
    drop(preamble::decode_answer(sent));
}

/// Sessions of opaque TCP on a mesh connection: what is read of them is the same when it is written again.
pub fn sessions(sent: &[u8]) {
    let read = read_sessions(sent);
    assert!(read.concat().len() <= sent.len(), "no byte is made up");
    let mut written = Framed::new(tokio::io::join(tokio::io::empty(), Vec::new()));
    for (at, session) in read.iter().enumerate() {
        if at > 0 {
            written.begin();
        }
        let writing = async {
            written.write_all(session).await?;
            written.shutdown().await
        };
        writing.now_or_never().expect("a Vec makes nobody wait").expect("a Vec takes all");
    }
    assert_eq!(read_sessions(written.get_ref().writer()), read);
}

/// The sessions that come to their end.
fn read_sessions(sent: &[u8]) -> Vec<Vec<u8>> {
    let mut stream = Framed::new(tokio::io::join(sent, tokio::io::sink()));
    let mut sessions = Vec::new();
    loop {
        let mut session = Vec::new();
        let ended = stream.read_to_end(&mut session).now_or_never().expect("a slice makes nobody wait");
        if ended.is_err() {
            return sessions;
        }
        sessions.push(session);
        let more = stream.next_session().now_or_never().expect("a slice makes nobody wait");
        if !more.unwrap_or(false) {
            return sessions;
        }
    }
}

/// A path: refused, or brought into a form that stays as it is and climbs nowhere.
pub fn normal_path(sent: &[u8]) {
    let Ok(sent) = std::str::from_utf8(sent) else { return };
    let Ok(changed) = path::normalize(sent) else { return };
    let normal = changed.as_deref().unwrap_or(sent);
    assert!(normal.starts_with('/'), "{sent:?} -> {normal:?}");
    assert!(!normal.split('/').any(|segment| matches!(segment, "." | "..")), "{sent:?} -> {normal:?}");
    assert!(!normal.contains(['\\', '\0', '\r', '\n']), "{sent:?} -> {normal:?}");
    let again = path::normalize(normal).expect("a normal form is a path");
    assert_eq!(again.as_deref().unwrap_or(normal), normal, "{sent:?} is not brought into form at once");
    let target = http::uri::PathAndQuery::try_from(normal).expect("a normal form can be sent");
    assert_eq!(target.path(), normal, "{sent:?}: a normal form has no query");
}

/// Documents: understood or reported, always at a line that the text has.
pub fn yaml(sent: &[u8]) {
    let Ok(text) = std::str::from_utf8(sent) else { return };
    // YAML 1.2, section 5.4: a carriage return alone ends a line, too.
    let lines = text.replace("\r\n", "\n").split(['\n', '\r']).count() as u64 + 1;
    for document in decode(text, &Arc::from(Path::new("fuzz.yaml")), "default") {
        assert!((1..=lines).contains(&document.line), "line {} of {lines}", document.line);
        for problem in &document.problems {
            assert!(!problem.message.is_empty(), "{problem:?}");
            let line = problem.line.expect("a document's problem has a place");
            assert!((1..=lines).contains(&line), "{problem:?}: there are {lines} lines");
        }
    }
}

/// The public half of a key whose private half was thrown away: nobody can sign with it.
const LOST_KEY: &str = r#"{"keys": [{"kty": "OKP", "crv": "Ed25519", "kid": "lost", "alg": "EdDSA",
    "x": "bzlsz6DYtnspvbT2CjI9s9mMqb1x-hMBPj4zYF8A3Qo"}]}"#;
/// What the tokens of the corpus are dated by, in seconds since 1970.
const TOKENS_NOW: u64 = 1_790_000_000;

/// Rules that look for tokens wherever one may be.
static TOKENS: LazyLock<Arc<Authentication>> = LazyLock::new(|| {
    let places = token::Places { cookies: vec!["token".into()], ..token::Places::usual() };
    let rule = |issuer: Option<&str>, keys| TokenRule {
        keys_from: None,
        name: "RequestAuthentication fuzz/jwt rule 1".into(),
        issuer: issuer.map(Into::into),
        audiences: vec!["shop".into()],
        keys,
        places: places.clone(),
        forward: true,
        payload_header: Some(http::HeaderName::from_static("x-claims")),
        claim_headers: Vec::new(),
        lists: vec!["scope".into()],
        ports: None,
    };
    let known = rule(Some("https://issuer.example"), Keys::Known(LOST_KEY.into()));
    Arc::new(Authentication { rules: vec![known, rule(None, Keys::Missing("none".into()))] })
});

/// A token, where requests have one: refused with words, or passed over. None is accepted, since nobody can have signed it.
pub fn jwt(sent: &[u8]) {
    let bearer = [b"Bearer ", sent].concat();
    let cookie = [b"a=b; token=", sent].concat();
    for (name, value) in [(header::AUTHORIZATION, bearer), (header::COOKIE, cookie)] {
        let Ok(value) = http::HeaderValue::from_bytes(&value) else { continue };
        let mut request = http::Request::new(());
        request.headers_mut().insert(name, value);
        match authenticate::apply(&Tokens::default(), &TOKENS, 80, &mut request, TOKENS_NOW) {
            Ok(None) => {}
            Ok(Some(rule)) => panic!("{} accepts a token that nobody has signed", rule.name),
            Err(refused) => assert!(!authenticate::words(&refused).0.is_empty()),
        }
        assert!(!request.headers().contains_key("x-claims"), "nobody has claimed anything");
    }
}

/// So many parentheses and `!` cannot be nested too deep when a selector is written again.
const FEW_NESTED: usize = 16;

/// A selector of Calico's: refused, or the same when it is written again, and it selects the same then.
pub fn selector(sent: &[u8]) {
    let Ok(text) = std::str::from_utf8(sent) else { return };
    let Ok(read) = Expression::parse(text) else { return };
    let labels = |label: &str| match label {
        "app" => Some("web"),
        "tier" => Some("front-end"),
        _ => None,
    };
    let selects = |selector: &Expression| [true, false].map(|global| selector.selects(&labels, global));
    let found = selects(&read);
    if text.len() > 1024 || text.matches(['(', '!']).count() > FEW_NESTED {
        return;
    }
    let written = read.to_string();
    let again =
        Expression::parse(&written).unwrap_or_else(|error| panic!("{text:?} -> {written:?}: {error}"));
    assert_eq!(selects(&again), found, "{text:?} -> {written:?}");
    assert_eq!(again.to_string(), written, "{text:?}");
}

/// Policies: what is understood of them is a mesh, and what is wrong is said.
pub fn policies(sent: &[u8]) {
    yaml(sent);
    let Ok(text) = std::str::from_utf8(sent) else { return };
    let mut resources = Resources::default();
    let documents =
        [text, POLICED].into_iter().flat_map(|text| decode(text, &Arc::from(Path::new("fuzz.yaml")), "shop"));
    for document in documents {
        if let DecodeOutcome::Understood(resource) = document.outcome {
            resources.push(resource);
        }
    }
    let (_, problems) = compile::compile(&resources, &compile::MeshSettings::default(), &Mesh::default());
    assert!(problems.iter().all(|problem| !problem.message.is_empty()));
}

/// Somebody for policies to select.
const POLICED: &str = "apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: web-1, namespace: shop}
spec: {address: 10.0.0.1, serviceAccount: web, labels: {app: web, tier: front-end}, ports: {http: 8080}}
";

/// How pods are injected where nobody says anything.
static INJECTION: LazyLock<InjectionSettings> = LazyLock::new(|| {
    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: InjectArgs,
    }
    let roots = vec!["0123456789abcdef".repeat(4)];
    Program::parse_from(["fuzz"]).args.settings(roots, TrustDomain::default(), "selvedge")
});

/// What an API server, or whoever takes its place, asks the webhook: answered, or refused with words. A pod that the API
/// server would take can take its patch, gets one sidecar and no second one, and is a pod again when that is taken out.
pub fn review(sent: &[u8]) {
    let Ok(request) = Review::request(sent) else { return };
    let mesh = compile::MeshSettings::default();
    drop(validate::validate(request.object.clone(), &request.namespace, &Resources::default(), &mesh, &[]));
    let namespace = NamespaceFacts { name: request.namespace.clone(), ..NamespaceFacts::default() };
    let Ok(Decision::Inject { patch, .. }) = decide(&request.object, &namespace, &INJECTION, true) else {
        return;
    };
    if !is_a_pod(&request.object) {
        return;
    }
    let patch = serde_json::to_value(patch).and_then(serde_json::from_value::<json_patch::Patch>);
    let mut pod = request.object;
    json_patch::patch(&mut pod, &patch.expect("a patch is JSON")).expect("the patch fits the pod");
    assert!(is_a_pod(&pod), "with a sidecar it is no pod any more: {pod}");
    let again = decide(&pod, &namespace, &INJECTION, true);
    assert!(!matches!(again, Ok(Decision::Inject { .. })), "a second sidecar: {pod}");
    assert!(revert(&mut pod), "the sidecar cannot be taken out: {pod}");
    assert!(is_a_pod(&pod), "without its sidecar it is no pod any more: {pod}");
}

/// Whose certificates are asked for; and who signs them, with a key that lives as long as the process.
static SIGNER: LazyLock<(Authority, Attestor, SpiffeId)> = LazyLock::new(|| {
    let (directory, domain) = (tempfile::tempdir().expect("a directory"), TrustDomain::default());
    let authority = Authority::create(directory.path(), &domain).expect("an authority");
    let attestor = Attestor::open(directory.path(), &domain).expect("a token key");
    (authority, attestor, SpiffeId::new(&domain, "shop", "reviews").expect("an identity"))
});

/// What a stranger asks to have signed: refused, or a leaf for the proven identity and nothing else.
pub fn sign(sent: &[u8]) {
    let Ok(request) = wire::SignRequest::decode(sent) else { return };
    let (authority, attestor, identity) = &*SIGNER;
    let now = SystemTime::now();
    drop(request.workload.parse::<WorkloadName>());
    if let Some(token) = &request.token {
        assert!(attestor.verify(token, now).is_err(), "nobody has made a token with this key");
    }
    let ttl = Duration::from_secs(request.ttl_seconds.unwrap_or(60).min(3600));
    let Ok(chain) = authority.sign(&request.csr, identity, ttl, now) else { return };
    let leaf = Facts::parse(&chain[0]).expect("what we sign is a certificate");
    assert_eq!(leaf.identity().as_ref(), Ok(identity));
    assert_eq!(leaf.authority_trust_domain(), None, "nobody is made an authority");
}

/// Whatever a stranger sends to an admin port: it is told nothing that only this host may know, and changes nothing.
pub fn admin(sent: &[u8]) {
    const SECRET: &str = "what only this host may know";
    let answered = CLOCK.block_on(async {
        let (layer, log_level) = logging::filter("info").expect("a filter");
        let drain = Drain::default();
        let admin = Admin {
            readiness: Readiness::default(),
            drain: drain.clone(),
            log_level: log_level.clone(),
            metrics: Arc::new(|| "# EOF\n".to_owned()),
            local: Router::new().route("/config", get(async || SECRET)),
        };
        let limits = Limits { strangers: 1, per_address: 1, known: 0, busy_stay: false };
        let stranger = SocketAddr::from(([192, 0, 2, 7], 50_000));
        let place = Places::new(limits).enter(stranger.ip(), false).expect("the only place");
        let (client, server) = tokio::io::duplex(1 << 20);
        let (mut answers, mut requests) = tokio::io::split(client);
        let asking = async {
            drop(requests.write_all(sent).await);
            drop(requests.shutdown().await);
        };
        let mut answer = Vec::new();
        let serving = http1::carry(stranger, server, place.activity(), admin.router());
        let all = async { tokio::join!(serving, asking, answers.read_to_end(&mut answer)) };
        // A body that does not come is waited for, and nobody answers then.
        drop(tokio::time::timeout(Duration::from_secs(10), all).await.expect("nobody waits for ever"));
        assert!(!drain.is_draining(), "a stranger has ended it");
        assert_eq!(log_level.filter(), "info", "a stranger has changed it");
        drop(layer);
        answer
    });
    let answered = String::from_utf8_lossy(&answered);
    assert!(!answered.contains(SECRET), "{answered}");
    assert!(answered.is_empty() || answered.starts_with("HTTP/1."), "{answered}");
}

fn is_a_pod(object: &Value) -> bool {
    let pod = serde_json::from_value::<Pod>(object.clone());
    pod.is_ok_and(|pod| pod.spec.is_some_and(|spec| !spec.containers.is_empty()))
}

#[cfg(test)]
mod tests {
    use std::{fs, path::PathBuf};

    use proptest::{collection::vec, prelude::*, sample::Index};

    use super::*;

    fn files(directory: &str) -> Vec<PathBuf> {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
        let entries = fs::read_dir(&directory).unwrap_or_else(|error| panic!("{directory:?}: {error}"));
        let files: Vec<PathBuf> = entries.map(|entry| entry.expect("a readable directory").path()).collect();
        files.into_iter().filter(|path| path.is_file()).collect()
    }

    fn replay(directory: &str, rule: fn(&[u8])) {
        let files = files(directory);
        assert!(!files.is_empty(), "{directory} is empty");
        for file in files {
            // A panic says what is wrong; this, with which file.
            println!("{}", file.display());
            rule(&fs::read(file).expect("a readable file"));
        }
    }

    #[test]
    fn the_corpus_breaks_no_rule() {
        replay("fuzz/corpus/detection", detection);
        replay("corpus", detection);
        replay("fuzz/corpus/preamble", preamble);
        replay("fuzz/corpus/sessions", sessions);
        replay("fuzz/corpus/path", normal_path);
        replay("fuzz/corpus/review", review);
        replay("fuzz/corpus/sign", sign);
        replay("fuzz/corpus/admin", admin);
        replay("corpus", admin);
        replay("fuzz/corpus/yaml", yaml);
        replay("fuzz/corpus/jwt", jwt);
        replay("fuzz/corpus/selector", selector);
        replay("fuzz/corpus/policies", policies);
        replay("../examples/policies", yaml);
    }

    /// What is done to a file of the corpus.
    #[derive(Debug, Clone)]
    enum Change {
        Set(Index, u8),
        Insert(Index, Vec<u8>),
        Remove(Index, usize),
        Repeat(Index, usize),
    }

    impl Change {
        fn any() -> impl Strategy<Value = Self> {
            let place = any::<Index>;
            prop_oneof![
                (place(), any::<u8>()).prop_map(|(at, byte)| Self::Set(at, byte)),
                (place(), vec(any::<u8>(), 1..6)).prop_map(|(at, bytes)| Self::Insert(at, bytes)),
                (place(), 1usize..20).prop_map(|(at, length)| Self::Remove(at, length)),
                (place(), 1usize..20).prop_map(|(at, length)| Self::Repeat(at, length)),
            ]
        }

        fn make(&self, bytes: &mut Vec<u8>) {
            let (Self::Set(at, _) | Self::Insert(at, _) | Self::Remove(at, _) | Self::Repeat(at, _)) = self;
            let at = at.index(bytes.len() + 1);
            let end = |length: &usize| bytes.len().min(at + length);
            match self {
                Self::Set(_, byte) => {
                    if let Some(place) = bytes.get_mut(at) {
                        *place = *byte;
                    }
                }
                Self::Insert(_, more) => drop(bytes.splice(at..at, more.iter().copied())),
                Self::Remove(_, length) => drop(bytes.drain(at..end(length))),
                Self::Repeat(_, length) => {
                    let again = bytes[at..end(length)].to_vec();
                    drop(bytes.splice(at..at, again));
                }
            }
        }
    }

    /// Any bytes, or a file of `directory` with a few changes.
    fn nearly(directory: &str) -> impl Strategy<Value = Vec<u8>> + use<> {
        let files: Vec<Vec<u8>> =
            files(directory).iter().map(|file| fs::read(file).expect("a readable file")).collect();
        let changed =
            (prop::sample::select(files), vec(Change::any(), 0..6)).prop_map(|(mut bytes, changes)| {
                changes.iter().for_each(|change| change.make(&mut bytes));
                bytes
            });
        prop_oneof![1 => vec(any::<u8>(), 0..100), 4 => changed]
    }

    proptest! {
        #[test]
        fn nothing_like_the_corpus_breaks_a_rule(
            first in nearly("fuzz/corpus/detection"), sent in nearly("fuzz/corpus/preamble"),
            target in nearly("fuzz/corpus/path"), text in nearly("fuzz/corpus/yaml"),
            carried in nearly("fuzz/corpus/sessions"), asked in nearly("fuzz/corpus/review"),
            request in nearly("fuzz/corpus/sign"), called in nearly("fuzz/corpus/admin"),
            token in nearly("fuzz/corpus/jwt"), selects in nearly("fuzz/corpus/selector"),
            policy in nearly("fuzz/corpus/policies"),
        ) {
            jwt(&token);
            selector(&selects);
            policies(&policy);
            admin(&called);
            sign(&request);
            review(&asked);
            sessions(&carried);
            detection(&first);
            preamble(&sent);
            normal_path(&target);
            yaml(&text);
        }
    }
}
