//! Step 5: STRICT. Who cannot prove an identity of this mesh gets nothing, and so does a server that proves
//! the wrong one.

use std::time::{Duration, SystemTime};

use anyhow::Context;
use selvedge_certs::{ca::Authority, leaf::Leaf, tls::Credentials};
use selvedge_demo::{
    call::{self, Answer},
    documents::{self, Entry},
    wait,
    workload::Spec,
};
use selvedge_model::{SpiffeId, TrustDomain};

use super::{
    super::{
        FRONTEND, SOON, V2,
        mesh_client::{self, Reception},
    },
    Demo, Observed,
};

pub(super) const NAME: &str = "STRICT: only identities that this mesh's CA has certified";
pub(super) const DOING: &str =
    "calling without a certificate, with another CA's certificate, and at a reused address";

/// The workload that now has an address at which another is still expected.
const SQUATTER: &str = "ledger";

pub(super) fn expected(_: &Demo) -> String {
    "refused: a caller in plaintext, a caller with another CA's certificate (a caller with this CA's is answered), and a \
     server with another workload's certificate at a reused address"
        .to_owned()
}

pub(super) async fn run(demo: &mut Demo) -> anyhow::Result<Observed> {
    let plaintext = plaintext_caller(demo).await?;
    let known = certified_caller(demo, &credentials(demo, None)?).await?;
    let elsewhere = tempfile::tempdir()?;
    let foreign = Authority::create(elsewhere.path(), &TrustDomain::default())?;
    let foreign = certified_caller(demo, &credentials(demo, Some(&foreign))?).await?;
    let (squatter, reused) = reused_address(demo).await?;

    let passed = plaintext.status == 403
        && matches!(&known, Reception::Answered(status) if status.contains(" 200"))
        && matches!(foreign, Reception::Refused(_))
        && squatter.status == 200
        && reused.status == 503
        && reused.proxy_error().is_some_and(|reason| reason.starts_with("identity"));
    Ok(Observed {
        words: format!(
            "plaintext: {}; this CA: {}; another CA: {}; {SQUATTER} at its own name: {}, at the reused address: {}",
            plaintext.summary(),
            words(&known),
            words(&foreign),
            squatter.summary(),
            reused.summary()
        ),
        passed,
    })
}

/// A caller outside the mesh: plain HTTP to the sidecar's inbound port.
async fn plaintext_caller(demo: &Demo) -> anyhow::Result<Answer> {
    Ok(call::send(demo.cluster.workload(V2).inbound, call::to("reviews:9080", "/")).await?)
}

async fn certified_caller(demo: &Demo, credentials: &Credentials) -> anyhow::Result<Reception> {
    let server = demo.cluster.workload(V2);
    mesh_client::call(server.inbound, server.app.port(), credentials).await
}

/// The frontend's identity as our own CA certifies it, or as `other` does; either way trusting our roots.
pub(super) fn credentials(demo: &Demo, other: Option<&Authority>) -> anyhow::Result<Credentials> {
    let own = Authority::load(&demo.cluster.data_dir()).context("cannot load the demo's own CA")?;
    let identity = SpiffeId::new(own.trust_domain(), "default", FRONTEND)?;
    let leaf: Leaf =
        other.unwrap_or(&own).issue(&identity, &[], Duration::from_secs(600), SystemTime::now())?;
    Ok(Credentials { leaf, bundle: own.bundle() })
}

/// `archive` once ran where `ledger` runs now, and its entry is still there: both are called.
async fn reused_address(demo: &mut Demo) -> anyhow::Result<(Answer, Answer)> {
    demo.cluster.write("ledger.yaml", &documents::service(SQUATTER, "default", 9090))?;
    demo.cluster.add([Spec::server(SQUATTER, SQUATTER, 9090)]).await?;
    let squatter = demo.cluster.workload(SQUATTER);
    let mut gone = squatter.app;
    gone.set_port(9081);
    let entry = documents::workload_entry(&Entry {
        name: "archive",
        namespace: "default",
        service_account: "archive",
        labels: &[("app".to_owned(), "archive".to_owned())],
        app: gone,
        inbound: Some(squatter.inbound),
    });
    let service = documents::service("archive", "default", 9081);
    demo.cluster.write("archive.yaml", &format!("{service}---\n{entry}"))?;

    let answers = wait::until(SOON, "ledger answers, and archive is known", async || {
        let ledger = via_frontend(demo, "ledger:9090").await?;
        let archive = via_frontend(demo, "archive:9081").await?;
        // A name that is not known yet passes through, and no host has it.
        let unresolved = archive.proxy_error().is_some_and(|reason| reason.starts_with("connect-failure"));
        let known = ledger.status == 200 && !unresolved;
        if known {
            Ok((ledger, archive))
        } else {
            Err(anyhow::anyhow!("{}, {}", ledger.summary(), archive.summary()))
        }
    });
    Ok(answers.await?)
}

async fn via_frontend(demo: &Demo, authority: &str) -> anyhow::Result<Answer> {
    Ok(demo.cluster.workload(FRONTEND).call(call::to(authority, "/")).await?)
}

fn words(reception: &Reception) -> String {
    match reception {
        Reception::Answered(status) => format!("answered {status:?}"),
        Reception::Refused(words) => format!("refused ({words})"),
    }
}
