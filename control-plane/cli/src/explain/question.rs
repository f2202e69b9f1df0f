//! The question: who asks for what. Whatever the mesh could not be asked is refused here, with what to write instead.

use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read as _},
    path::Path,
};

use http::{HeaderName, HeaderValue, Method, Request, Uri, header};
use selvedge_model::token::LONGEST_TOKEN;
use selvedge_proxy::{fields::is_grpc, normalize::settle};

use super::arguments::RequestArgs;

/// Who sends a request, as the command line names it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) labels: BTreeMap<String, String>,
}

/// A request, as a sidecar takes it from its app, in normal form.
#[derive(Debug)]
pub(super) struct Question {
    pub(super) from: Asked,
    /// Host and port as the app writes them.
    pub(super) authority: String,
    pub(super) request: Request<()>,
    pub(super) is_grpc: bool,
}

impl Question {
    /// The request of this command line, which `from` sends.
    pub(super) fn new(args: &RequestArgs, from: &str) -> Result<Self, String> {
        let to = target(&args.to, &["http"])?;
        let mut request = request_of(args, &to)?;
        settle(&mut request, false, false)
            .map_err(|error| format!("the sidecar would refuse this as malformed: {}", error.failure))?;
        let is_grpc = is_grpc(request.headers());
        Ok(Self { from: from.parse()?, authority: to.authority, request, is_grpc })
    }
}

/// What a URL names.
#[derive(Debug)]
pub(super) struct Target {
    /// Host and port as they are written.
    pub(super) authority: String,
    /// The path with the query.
    path: String,
    /// Whether it is https.
    pub(super) is_secure: bool,
    port: Option<u16>,
}

impl Target {
    /// The port, which the scheme says if the URL does not.
    pub(super) fn port(&self) -> u16 {
        self.port.unwrap_or(if self.is_secure { 443 } else { 80 })
    }
}

/// The request of `args`, as its sender writes it.
pub(super) fn request_of(args: &RequestArgs, to: &Target) -> Result<Request<()>, String> {
    let mut builder = Request::builder().header(header::HOST, &to.authority);
    let mut path = to.path.clone();
    builder = match &args.grpc {
        None => builder.method(method(args.method.as_deref())?),
        Some(call) => {
            path = grpc_path(call, &path)?;
            builder.method(Method::POST).header(header::CONTENT_TYPE, "application/grpc")
        }
    };
    let request = builder.uri(path.as_str()).body(());
    let mut request = request.map_err(|error| format!("--to {:?}: {error}", args.to))?;
    put_headers(&mut request, &args.headers, args.token.as_deref())?;
    Ok(request)
}

impl std::str::FromStr for Asked {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = |what: &str| format!("--from {text:?}: {what}");
        let mut parts = text.split(',');
        let name = parts.next().unwrap_or_default().split_once('/');
        let (namespace, name) = name.ok_or_else(|| wrong("is not NAMESPACE/NAME"))?;
        selvedge_model::WorkloadName::new(namespace, name).map_err(|error| wrong(&error.to_string()))?;
        let mut labels = BTreeMap::new();
        for label in parts {
            let (name, value) = label
                .split_once('=')
                .filter(|(name, _)| !name.is_empty())
                .ok_or_else(|| wrong(&format!("{label:?} is not LABEL=VALUE")))?;
            labels.insert(name.to_owned(), value.to_owned());
        }
        Ok(Self { namespace: namespace.to_owned(), name: name.to_owned(), labels })
    }
}

/// What `url` names, whose scheme must be one of `schemes`.
pub(super) fn target(url: &str, schemes: &[&str]) -> Result<Target, String> {
    let wrong = |what: &str| format!("--to {url:?}: {what}");
    let uri: Uri = url.parse().map_err(|error| wrong(&format!("{error}; write http://HOST[:PORT]/PATH")))?;
    match uri.scheme_str() {
        Some(scheme) if schemes.contains(&scheme) => {}
        Some("https") => {
            let what = "what an app sends over TLS of its own is carried as it is, and no rule for requests sees it; write \
                        http:// for what it sends without";
            return Err(wrong(what));
        }
        _ => return Err(wrong("is not a URL of an HTTP request; write http://HOST[:PORT]/PATH")),
    }
    let authority = uri.authority().ok_or_else(|| wrong("names no host; write http://HOST[:PORT]/PATH"))?;
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    Ok(Target {
        authority: authority.to_string(),
        path: path.to_owned(),
        is_secure: uri.scheme_str() == Some("https"),
        port: authority.port_u16(),
    })
}

pub(super) fn method(text: Option<&str>) -> Result<Method, String> {
    let Some(text) = text else { return Ok(Method::GET) };
    let method =
        text.parse().map_err(|_| format!("-X {text:?} is not an HTTP method; write for example POST"))?;
    if method == Method::CONNECT {
        return Err(
            "-X CONNECT asks for a tunnel, which no rule for requests sees; name another method".to_owned()
        );
    }
    Ok(method)
}

/// The path of the gRPC method `call`.
fn grpc_path(call: &str, path: &str) -> Result<String, String> {
    if path != "/" {
        return Err(format!("--grpc says the path, and --to has {path:?} already; remove that"));
    }
    match call.trim_start_matches('/').split_once('/') {
        Some((service, method)) if !service.is_empty() && !method.is_empty() && !method.contains('/') => {
            Ok(format!("/{service}/{method}"))
        }
        _ => Err(format!("--grpc {call:?} is not SERVICE/METHOD, such as helloworld.Greeter/SayHello")),
    }
}

/// Puts headers into `request` as they are written, and the token of the file `token`.
pub(super) fn put_headers(
    request: &mut Request<()>,
    headers: &[String],
    token: Option<&Path>,
) -> Result<(), String> {
    for text in headers {
        let (name, value) = header(text)?;
        request.headers_mut().append(name, value);
    }
    let Some(file) = token else { return Ok(()) };
    if request.headers().contains_key(header::AUTHORIZATION) {
        return Err("--token and a header Authorization: give one of them".to_owned());
    }
    let value = bearing(&read_token(file)?);
    let mut value = value.map_err(|_| format!("--token {}: it is not a token (JWT)", file.display()))?;
    value.set_sensitive(true);
    request.headers_mut().insert(header::AUTHORIZATION, value);
    Ok(())
}

fn bearing(token: &str) -> Result<HeaderValue, header::InvalidHeaderValue> {
    format!("Bearer {}", token.trim()).parse()
}

/// The text of the file `file`, or of stdin; so much of it that a token which is too long is seen to be.
fn read_token(file: &Path) -> Result<String, String> {
    let most = u64::try_from(LONGEST_TOKEN).unwrap_or(u64::MAX) + 1024;
    let mut text = String::new();
    let read = match file.as_os_str() == "-" {
        true => io::stdin().lock().take(most).read_to_string(&mut text),
        false => File::open(file).and_then(|opened| opened.take(most).read_to_string(&mut text)),
    };
    read.map(|_| text).map_err(|error| format!("--token {}: {error}", file.display()))
}

fn header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = |what: &str| format!("-H {text:?}: {what}");
    let (name, value) = text.split_once(':').ok_or_else(|| wrong("is not 'NAME: VALUE'"))?;
    let name: HeaderName = name.trim().parse().map_err(|_| wrong("has no name that a header may have"))?;
    if name == header::HOST {
        return Err(wrong("the host stands in --to; write it there"));
    }
    let value = value.trim().parse().map_err(|_| wrong("has no value that a header may have"))?;
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_caller_is_a_name_and_labels() {
        let asked: Asked = "shop/web,app=web,version=".parse().unwrap();
        assert_eq!((asked.namespace.as_str(), asked.name.as_str()), ("shop", "web"));
        assert_eq!(asked.labels["app"], "web");
        assert_eq!(asked.labels["version"], "");
        for wrong in ["web", "/web", "shop/", "shop/web,app", "shop/web,=x", "Shop/web"] {
            assert!(wrong.parse::<Asked>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_target_is_a_url_of_http() {
        let found = target("http://a:1/b?c", &["http"]).unwrap();
        assert_eq!((&*found.authority, &*found.path, found.port()), ("a:1", "/b?c", 1));
        let found = target("https://a", &["http", "https"]).unwrap();
        assert_eq!((&*found.path, found.port()), ("/", 443));
        for (wrong, why) in
            [("https://a/", "TLS"), ("a:80/b", "write http://HOST"), ("/b", "not a URL"), ("http://", "")]
        {
            assert!(target(wrong, &["http"]).unwrap_err().contains(why), "{wrong}");
        }
    }

    #[test]
    fn a_call_is_a_path_of_two_segments() {
        assert_eq!(grpc_path("a.B/C", "/").unwrap(), "/a.B/C");
        assert!(grpc_path("a.B/C", "/x").is_err());
        for wrong in ["a.B", "a.B/", "/C", "a/b/c"] {
            assert!(grpc_path(wrong, "/").is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_header_is_a_name_and_a_value_and_not_the_host() {
        assert_eq!(header("a:b: c").unwrap(), ("a".parse().unwrap(), "b: c".parse().unwrap()));
        for wrong in ["a", "a b: c", "host: x", "a: \n"] {
            assert!(header(wrong).is_err() || wrong == "a: \n", "{wrong}");
        }
    }
}
