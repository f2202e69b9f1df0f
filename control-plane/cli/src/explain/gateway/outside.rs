//! What a client outside of the mesh asks for, and what is known of it.

use std::{
    fs,
    net::{IpAddr, Ipv4Addr},
    path::Path,
};

use http::{HeaderValue, Request, header, uri::Scheme};
use selvedge_model::gateway::host_of;
use selvedge_proxy::{
    edge::{self, FORWARDED_FOR, REQUEST_ID},
    fields::is_grpc,
    normalize::settle_with,
    settings::PathSlashes,
    step,
};
use tokio_rustls::rustls::pki_types::CertificateDer;

use super::super::{
    arguments::{ConnectionArgs, OutsideArgs, RequestArgs},
    question::{put_headers, request_of, target},
};

/// What stands for the address of a client whose address is not given.
const SOME_CLIENT: &str = "(the client's address)";
/// What stands for a new random one.
const NEW_ID: &str = "(a new one)";

/// What a client outside of the mesh asks for.
#[derive(Debug)]
pub(in crate::explain) struct Outside {
    /// The gateway that it calls, `NAMESPACE/NAME`. `None`: the one that is for its host.
    pub(super) gateway: Option<String>,
    /// The port that it calls.
    pub(super) port: u16,
    /// What it speaks.
    pub(super) asks: Asks,
    /// The host that it asks for, as host names are compared.
    pub(super) host: String,
    /// The name that its TLS asks for, in lower case.
    pub(super) server_name: Option<String>,
    /// Where it connects from.
    pub(super) address: Option<IpAddr>,
    /// The certificate that it shows, the leaf first.
    pub(super) certificate: Vec<CertificateDer<'static>>,
    /// How many proxies before the gateway are trusted.
    pub(super) trusted_hops: u8,
    slashes: PathSlashes,
    /// Its request, as it sends it.
    pub(super) request: Request<()>,
    pub(super) is_grpc: bool,
    pub(super) seed: Option<u64>,
}

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asks {
    /// HTTP in plaintext.
    Http,
    /// HTTP over TLS.
    Https,
    /// Whatever the listener takes: it is asked about a connection.
    Anything,
}

impl Outside {
    /// The request of this command line.
    pub(in crate::explain) fn request(args: &RequestArgs) -> Result<Self, String> {
        let to = target(&args.to, &["http", "https"])?;
        let asks = if to.is_secure { Asks::Https } else { Asks::Http };
        let request = request_of(args, &to)?;
        let own = Self::new(&args.outside, &to.authority, to.port(), asks, request)?;
        Ok(Self { trusted_hops: args.trusted_hops, slashes: args.path_slashes, seed: args.seed, ..own })
    }

    /// The connection of this command line.
    pub(in crate::explain) fn connection(args: &ConnectionArgs) -> Result<Self, String> {
        let wrong =
            || format!("--to {:?}: write HOST:PORT, as a client outside of the mesh calls it", args.to);
        let authority: http::uri::Authority = args.to.parse().map_err(|_| wrong())?;
        let port = authority.port_u16().filter(|port| *port != 0).ok_or_else(wrong)?;
        if args.method.is_some() || args.path.is_some() || !args.headers.is_empty() || args.token.is_some() {
            let message = "a request to a gateway is explained by `selvedge explain request`; leave -X, --path, -H and --token \
                           out here";
            return Err(message.to_owned());
        }
        let mut request = Request::builder().uri("/").header(header::HOST, &args.to).body(());
        let request = request.as_mut().map_err(|error| format!("--to {:?}: {error}", args.to))?;
        put_headers(request, &[], None)?;
        Self::new(&args.outside, &args.to, port, Asks::Anything, request.clone())
    }

    fn new(
        args: &OutsideArgs,
        authority: &str,
        port: u16,
        asks: Asks,
        request: Request<()>,
    ) -> Result<Self, String> {
        let host = host_of(authority).into_owned();
        let is_name = selvedge_model::snapshot::address(&host).is_none();
        let server_name = args.sni.as_ref().map(|name| name.to_ascii_lowercase());
        Ok(Self {
            gateway: args.gateway.clone(),
            port,
            asks,
            // An address is no server name (RFC 6066, section 3).
            server_name: server_name.or_else(|| is_name.then(|| host.clone())),
            host,
            address: args.from_address.map(|address| address.to_canonical()),
            certificate: args.client_certificate.as_deref().map(chain).transpose()?.unwrap_or_default(),
            trusted_hops: 0,
            slashes: PathSlashes::Decoded,
            is_grpc: is_grpc(request.headers()),
            request,
            seed: None,
        })
    }

    /// Where it connects from, or what stands for that.
    pub(super) fn peer(&self) -> IpAddr {
        self.address.unwrap_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED))
    }

    /// Brings `request`, which is its own, into the form in which the gateway sends it on.
    pub(super) fn settle(
        &self,
        request: &mut Request<()>,
        is_secure: bool,
        certificate: Option<&str>,
    ) -> Result<(), step::Error> {
        settle_with(request, false, false, self.slashes.into())?;
        let spoken = if is_secure { Scheme::HTTPS } else { Scheme::HTTP };
        edge::tell(request, self.peer(), &spoken, self.trusted_hops);
        // What only a gateway that runs could know.
        let unknown = [
            (REQUEST_ID, NEW_ID, self.trusted_hops == 0),
            (FORWARDED_FOR, SOME_CLIENT, self.address.is_none() && self.trusted_hops == 0),
        ];
        for (name, text, _) in unknown.into_iter().filter(|(.., is_unknown)| *is_unknown) {
            request.headers_mut().insert(name, HeaderValue::from_static(text));
        }
        if let Some(certificate) = certificate.and_then(|text| HeaderValue::try_from(text).ok()) {
            request.headers_mut().insert(selvedge_proxy::fields::FORWARDED_CLIENT_CERT, certificate);
        }
        Ok(())
    }
}

/// The certificates of the PEM file `file`.
fn chain(file: &Path) -> Result<Vec<CertificateDer<'static>>, String> {
    let wrong = |why: &str| format!("--client-certificate {}: {why}", file.display());
    let text = fs::read_to_string(file).map_err(|error| wrong(&error.to_string()))?;
    let all = pem::parse_many(text).map_err(|error| wrong(&error.to_string()))?;
    let chain: Vec<_> = all.into_iter().filter(|one| one.tag() == "CERTIFICATE").collect();
    if chain.is_empty() {
        return Err(wrong("has no certificate in it (PEM)"));
    }
    Ok(chain.into_iter().map(|one| CertificateDer::from(one.into_contents())).collect())
}
