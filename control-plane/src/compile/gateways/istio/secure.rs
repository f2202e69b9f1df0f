//! Servers of TLS: each of their hosts is a listener, which a client chooses by the TLS server name.
//!
//! As in Istio, a Secret that `credentialName` means is in the namespace of the gateway's workload, whichever namespace the
//! `Gateway` is in. All hosts of a server show the same certificates and ask for the same ones, so that a connection for
//! one of them may carry requests for another ([`Listener::shares`](selvedge_model::gateway::Listener::shares)).

use std::collections::HashSet;

use selvedge_model::{
    Layer,
    gateway::{Carries, CertificateName, ClientValidation, Hostname, ListenerTls, Termination},
};

use super::{
    super::{
        super::{
            Problems,
            certificates::{Refused, Remark, Shown},
        },
        draft::NewListener,
    },
    Bound, Draft, Routing, Server, add_opaque, add_rules,
    hosts::served_at,
    is_visible, new_listener, sort,
};
use crate::resources::istio_gateway::{AskedClients, GatewayServer, ServerProtocol, ServerTls};

/// What the Secret beside that of a certificate is called, in which its clients' authorities may be.
pub(in super::super) const AUTHORITIES_SUFFIX: &str = "-cacert";

/// Adds a server that does this with TLS.
pub(super) fn add<'a>(
    (bound, server): (&Bound<'a>, &'a GatewayServer),
    tls: &ServerTls,
    draft: &mut Draft<'a>,
    routing: &Routing<'_>,
    problems: &mut Problems,
) {
    let mut seen = HashSet::new();
    let hostnames = server.hosts.iter().map(|host| &host.hostname);
    let hostnames: Vec<&Hostname> = hostnames.filter(|hostname| seen.insert(*hostname)).collect();
    let at = (bound.gateway, server);
    let does = at_each(at, tls, &hostnames, draft, problems);
    for (hostname, does) in hostnames.into_iter().zip(does) {
        let new = new_listener(at, Carries::Tls, hostname.clone());
        let place = draft.listen(NewListener { tls: Some(does), ..new });
        for document in bound.documents.iter().filter(|document| is_visible(document, draft.seat)) {
            for served in served_at(document, at, hostname, routing) {
                match (tls, server.protocol) {
                    (ServerTls::Passthrough, _) => {
                        add_opaque(place, &served.hostname, (document, at), Layer::Tls, draft, problems);
                    }
                    (_, ServerProtocol::Https) => {
                        add_rules(place, &served.hostname, (document, at), draft, problems);
                    }
                    _ => add_opaque(place, &served.hostname, (document, at), Layer::Tcp, draft, problems),
                }
            }
        }
        sort(place, draft);
    }
}

/// What happens to TLS at each of `hostnames`. One that no certificate is for serves nobody.
fn at_each(
    at: Server<'_>,
    tls: &ServerTls,
    hostnames: &[&Hostname],
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) -> Vec<ListenerTls> {
    let ServerTls::Terminate { secrets, clients, tls12 } = tls else {
        return vec![ListenerTls::Passthrough; hostnames.len()];
    };
    // Without a workload nobody knows in which namespace the Secrets are.
    let is_served = !draft.seat.workloads.is_empty();
    let (certificates, has_one) = match is_served {
        true => certificates(at, secrets, hostnames, draft, problems),
        false => (Vec::new(), vec![false; hostnames.len()]),
    };
    let clients = clients.as_ref().map(|asked| {
        let roots = if is_served { roots(at, asked, secrets, draft, problems) } else { Vec::new() };
        let AskedClients { optional, subject_alt_names, .. } = asked.clone();
        ClientValidation { roots, optional, subject_alt_names }
    });
    let http = at.1.protocol == ServerProtocol::Https;
    let all = Termination { certificates, clients, tls12: *tls12, http };
    let none = Termination { certificates: Vec::new(), ..all.clone() };
    let does = has_one.into_iter().map(|has_one| if has_one { all.clone() } else { none.clone() });
    does.map(ListenerTls::Terminate).collect()
}

/// The certificates of a server, and which of `hostnames` have one. Those that cannot be shown are reported.
fn certificates(
    at: Server<'_>,
    secrets: &[String],
    hostnames: &[&Hostname],
    draft: &mut Draft<'_>,
    problems: &mut Problems,
) -> (Vec<CertificateName>, Vec<bool>) {
    let (mut certificates, mut has_one) = (Shown::default(), vec![false; hostnames.len()]);
    let mut refused_at: Vec<Option<Refused>> = vec![None; hostnames.len()];
    for secret in secrets {
        let (mut is_shown, mut first) = (false, None);
        for (place, hostname) in hostnames.iter().enumerate() {
            match draft.certificate(draft.seat.workload_namespace, secret, hostname) {
                Ok(found) => {
                    (is_shown, has_one[place]) = (true, true);
                    certificates.add(found, |remark| remark.report(at.0, &field(at.1), problems));
                }
                Err(refused) => {
                    first.get_or_insert_with(|| refused.clone());
                    refused_at[place].get_or_insert(refused);
                }
            }
        }
        if let Some(refused) = first.filter(|_| !is_shown) {
            let outcome =
                if secrets.len() == 1 { "so nobody is served here" } else { "so it is not shown here" };
            report(at, refused, outcome, problems);
        }
    }
    let certificates = certificates.names();
    for (place, refused) in refused_at.into_iter().enumerate() {
        if let Some(refused) = refused.filter(|_| !has_one[place] && !certificates.is_empty()) {
            report(at, refused, &format!("so nobody is served at {}", hostnames[place]), problems);
        }
    }
    (certificates, has_one)
}

/// The authorities of clients. None can be used: that is reported, and nobody is served.
fn roots(
    at: Server<'_>,
    asked: &AskedClients,
    secrets: &[String],
    draft: &Draft<'_>,
    problems: &mut Problems,
) -> Vec<Vec<u8>> {
    match authorities(asked, secrets, draft) {
        Ok((roots, remark)) => {
            remark.into_iter().for_each(|remark| remark.report(at.0, &field(at.1), problems));
            roots
        }
        Err(refused) => {
            report(at, refused, "so nobody is served here", problems);
            Vec::new()
        }
    }
}

/// They are in the Secret that is named for them; otherwise in that of the certificate, or if that has none in the one
/// beside it.
fn authorities(
    asked: &AskedClients,
    secrets: &[String],
    draft: &Draft<'_>,
) -> Result<(Vec<Vec<u8>>, Option<Remark>), Refused> {
    let find = |name: &str| draft.certificates.authorities("Secret", draft.seat.workload_namespace, name);
    let found = match (&asked.authorities, secrets.first()) {
        (Some(name), _) => find(name),
        (None, Some(own)) => find(own).or_else(|refused| match refused.at_object {
            None => find(&format!("{own}{AUTHORITIES_SUFFIX}")).map_err(|beside| match beside.at_object {
                None => refused,
                Some(_) => beside,
            }),
            Some(_) => Err(refused),
        }),
        (None, None) => return Ok((Vec::new(), None)),
    };
    let (roots, remark) = found?;
    Ok((roots.to_vec(), remark))
}

/// Where a server names its Secrets.
fn field(server: &GatewayServer) -> String {
    format!("spec.servers[{}].tls.credentialName", server.index)
}

/// Tells whoever names a Secret why it is no use, and whoever wrote that.
fn report((gateway, server): Server<'_>, refused: Refused, outcome: &str, problems: &mut Problems) {
    let field = field(server);
    let Refused { why, at_object, .. } = refused;
    problems.error(gateway, &field, format!("{why} ({outcome})"));
    at_object.into_iter().for_each(|problem| problems.add(*problem));
}
