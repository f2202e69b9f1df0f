//! How long certificates are valid: the roots that proxies trust, and each replica's own certificates.

use std::{
    collections::BTreeMap,
    time::{Duration, SystemTime},
};

use selvedge_certs::facts::{Facts as Certificate, Utc};
use selvedge_control_plane::status::{Life, Purpose};

use super::super::{facts::Facts, finding::Findings};

/// A root that ends sooner should be replaced now: every proxy must learn the new one before.
pub(crate) const ROOT_RESERVE: Duration = Duration::from_secs(60 * 86_400);
/// Certificates are renewed when about 30 % of their life is left; one with less than this is not.
pub(crate) const RENEWED_BEFORE: f64 = 0.2;
/// The certificates that a replica renews, and what people call them.
const RENEWED: [(Purpose, &str); 2] = [
    (Purpose::Grpc, "the certificate of the port for proxies"),
    (Purpose::Webhook, "the certificate of the webhooks"),
];

/// The roots, as DER.
pub(super) fn trust_roots(facts: &Facts, now: SystemTime, findings: &mut Findings) -> Vec<Vec<u8>> {
    let text = facts.trust_roots.as_ref().and_then(|found| found["data"]["ca.pem"].as_str());
    let Some(text) = text else {
        findings.error(
            "the control plane has not published its trust roots (ConfigMap selvedge-trust-roots)",
            "look at its log: it cannot start, or it lacks permission to write the ConfigMap",
        );
        return Vec::new();
    };
    let roots: Vec<Vec<u8>> =
        pem::parse_many(text).unwrap_or_default().into_iter().map(pem::Pem::into_contents).collect();
    for root in &roots {
        root_certificate(root, now, findings);
    }
    if roots.is_empty() {
        findings.error(
            "the ConfigMap selvedge-trust-roots has no certificate",
            "delete it; the control plane makes it again",
        );
    }
    roots
}

fn root_certificate(root: &[u8], now: SystemTime, findings: &mut Findings) {
    let certificate = match Certificate::parse(root) {
        Ok(certificate) => certificate,
        Err(error) => {
            findings.error(format!("a trust root cannot be read: {error}"), "repair the Secret selvedge-ca");
            return;
        }
    };
    let ends = Utc(certificate.not_after);
    let remedy = "make a new root, and let proxies trust both roots meanwhile (--trust-roots)";
    match certificate.not_after.duration_since(now) {
        Err(_) => findings.error(format!("the root certificate expired on {ends}"), remedy),
        Ok(left) if left < ROOT_RESERVE => {
            findings.warning(format!("the root certificate expires in {}, on {ends}", time(left)), remedy);
        }
        Ok(left) => findings.ok(format!("the root certificate expires in {}, on {ends}", time(left))),
    }
}

/// Each replica's own certificates; of several replicas, the one that ends first.
pub(super) fn of_replicas(facts: &Facts, now: SystemTime, findings: &mut Findings) {
    let mut earliest: BTreeMap<Purpose, (&str, &Life)> = BTreeMap::new();
    for (replica, config) in &facts.replicas {
        for (purpose, life) in config.iter().flat_map(|config| &config.certificates) {
            let first = earliest.entry(*purpose).or_insert((replica, life));
            if life.not_after < first.1.not_after {
                *first = (replica, life);
            }
        }
    }
    if let (Some((replica, issuer)), Some((_, root))) =
        (earliest.get(&Purpose::Issuer), earliest.get(&Purpose::Root))
    {
        issuer_certificate(replica, issuer, root, now, findings);
    }
    for (purpose, what) in RENEWED {
        let Some((replica, life)) = earliest.get(&purpose) else { continue };
        let ends = Utc(life.not_after);
        let look = format!("look at the log of {replica}, which should have renewed it");
        match left(life, now) {
            None => findings.error(format!("{what} expired on {ends} ({replica})"), look),
            Some((left, share)) if share < RENEWED_BEFORE => findings.warning(
                format!("{what} expires in {}, on {ends}, and was not renewed ({replica})", time(left)),
                look,
            ),
            Some((left, _)) => findings.ok(format!("{what} expires in {}, on {ends}", time(left))),
        }
    }
}

/// What signs workloads' certificates: made by the root's key at each start, or given in the CA's Secret.
fn issuer_certificate(replica: &str, issuer: &Life, root: &Life, now: SystemTime, findings: &mut Findings) {
    let ends = Utc(issuer.not_after);
    let remedy = "renew the CA in the Secret selvedge-ca; the control plane uses it within 10 s. If the control plane made \
                  the CA, it also renews it, and its log says why it did not";
    match left(issuer, now) {
        None => findings.error(
            format!("the issuer of workloads' certificates expired on {ends} ({replica}): no proxy gets a certificate"),
            remedy,
        ),
        // With its root: that has been judged.
        Some((left, share)) if share < RENEWED_BEFORE && issuer.not_after < root.not_after => findings
            .warning(
                format!("the issuer of workloads' certificates expires in {}, on {ends} ({replica})", time(left)),
                remedy,
            ),
        Some((left, _)) => {
            findings.ok(format!("the issuer of workloads' certificates expires in {}, on {ends}", time(left)));
        }
    }
}

/// What is left of a certificate's life, and which share of it; `None` if it is over.
fn left(life: &Life, now: SystemTime) -> Option<(Duration, f64)> {
    let left = life.not_after.duration_since(now).ok().filter(|left| !left.is_zero())?;
    let whole = life.not_after.duration_since(life.not_before).unwrap_or(left);
    Some((left, left.as_secs_f64() / whole.as_secs_f64()))
}

/// As many units as people need.
fn time(time: Duration) -> String {
    match time.as_secs() / 3600 {
        0 => format!("{} minutes", time.as_secs() / 60),
        hours @ 1..48 => format!("{hours} hours"),
        hours => format!("{} days", hours / 24),
    }
}
