//! The question: who connects to what. Whatever the mesh could not be asked is refused here, with what to write instead.

use std::net::IpAddr;

use http::{Request, header};
use selvedge_model::WorkloadName;
use selvedge_proxy::normalize::settle;

use crate::explain::{
    arguments::ConnectionArgs,
    question::{Asked, method, put_headers},
};

/// Who connects, as the command line says it.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum From {
    /// A workload or a ServiceAccount.
    Named(Asked),
    /// Whoever has this address.
    Address(IpAddr),
}

/// Where to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum To {
    /// Host and port, as the app writes them.
    Authority(String),
    /// A port of one workload.
    Workload(WorkloadName, u16),
}

/// A connection, and perhaps a request on it.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) from: From,
    pub(super) to: To,
    /// The request, in normal form.
    pub(super) request: Option<Request<()>>,
}

impl Question {
    pub(super) fn new(args: &ConnectionArgs) -> Result<Self, String> {
        let from = args.from.as_deref().unwrap_or_default();
        let from = match from.parse::<IpAddr>() {
            Ok(address) => From::Address(address),
            Err(_) => From::Named(from.parse()?),
        };
        Ok(Self { from, to: to(&args.to)?, request: request(args)? })
    }
}

fn to(text: &str) -> Result<To, String> {
    let wrong =
        |what: &str| format!("--to {text:?}: {what}; write HOST:PORT, or NAMESPACE/NAME:PORT for a workload");
    if text.contains("://") {
        return Err(wrong("is a URL"));
    }
    let (host, port) = text.rsplit_once(':').ok_or_else(|| wrong("names no port"))?;
    let port = port.parse().ok().filter(|port| *port != 0).ok_or_else(|| wrong("has no port that is one"))?;
    match host.split_once('/') {
        Some((namespace, name)) => {
            let name = WorkloadName::new(namespace, name).map_err(|error| wrong(&error.to_string()))?;
            Ok(To::Workload(name, port))
        }
        None => {
            let authority: http::uri::Authority =
                text.parse().map_err(|_| wrong("is not a host and a port"))?;
            if authority.host().is_empty() || text.contains('@') {
                return Err(wrong("names no host"));
            }
            Ok(To::Authority(text.to_owned()))
        }
    }
}

/// The request that is asked for, if one is.
fn request(args: &ConnectionArgs) -> Result<Option<Request<()>>, String> {
    let no_headers = args.headers.is_empty() && args.token.is_none();
    if args.method.is_none() && args.path.is_none() && no_headers {
        return Ok(None);
    }
    let path = args.path.as_deref().unwrap_or("/");
    if !path.starts_with('/') {
        return Err(format!("--path {path:?} does not begin with a slash"));
    }
    // As the app writes it; a workload's own name is not one that it could write.
    let host = args.to.replace('/', ".");
    let request =
        Request::builder().method(method(args.method.as_deref())?).uri(path).header(header::HOST, host);
    let mut request = request.body(()).map_err(|error| format!("--path {path:?}: {error}"))?;
    put_headers(&mut request, &args.headers, args.token.as_deref())?;
    settle(&mut request, false, false)
        .map_err(|error| format!("the sidecar would refuse this as malformed: {}", error.failure))?;
    Ok(Some(request))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_a_host_or_a_workload_and_a_port() {
        assert_eq!(to("reviews:9080").unwrap(), To::Authority("reviews:9080".to_owned()));
        assert_eq!(to("[::1]:80").unwrap(), To::Authority("[::1]:80".to_owned()));
        assert_eq!(to("shop/web:80").unwrap(), To::Workload(WorkloadName::new("shop", "web").unwrap(), 80));
        for wrong in [
            "reviews",
            "reviews:",
            "reviews:0",
            "reviews:70000",
            ":80",
            "http://a:80",
            "/a:80",
            "a b:80",
            "me@a:80",
        ] {
            assert!(to(wrong).unwrap_err().contains("write HOST:PORT"), "{wrong}");
        }
    }
}
