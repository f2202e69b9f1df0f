//! `frontend`: asks `reviews` for every request; a browser gets a page, everybody else JSON.
//!
//! It is told where its sidecar's outbound listener is, and names the destination by the request's
//! authority, as an app behind a forward proxy does. Or it is not told, and calls `reviews` by its name as
//! any app does: where traffic is redirected, it knows nothing of the mesh.

use std::{convert::Infallible, io, net::SocketAddr, sync::Arc};

use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http::{HeaderMap, Request, Response, StatusCode, Uri, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use super::{
    Common,
    page::{self, Asked},
    reviews,
};
use crate::call::{self, CallError};

/// Requests for one page: enough to see a split of 90 to 10.
const ASKED_FOR_A_PAGE: usize = 100;

/// How many of them are in progress at once.
const AT_ONCE: usize = 8;

/// The header that the canary routes by; a real app would pass its trace headers as well.
const END_USER: &str = "end-user";

/// The settings of one instance.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// The own sidecar's outbound listener; otherwise reviews are asked by their name in DNS.
    #[arg(long)]
    outbound: Option<SocketAddr>,
    /// The authority that reviews are asked from.
    #[arg(long, default_value = "reviews:9080")]
    reviews: String,
}

/// What every answer says that is not a page.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    /// The instance's name.
    pub pod: String,
    /// What `reviews` answered; none if it could not.
    pub reviews: Option<reviews::Answer>,
    /// Why there are no reviews.
    pub error: Option<String>,
}

/// Serves until it is told to end.
///
/// # Errors
/// If its address cannot be listened on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = super::listen(&args.common).await?;
    let args = Arc::new(args);
    super::serve(listener, |stream| {
        let args = Arc::clone(&args);
        let respond = service_fn(move |request| respond(request, Arc::clone(&args)));
        http1::Builder::new().serve_connection(TokioIo::new(stream), respond)
    })
    .await;
    Ok(())
}

async fn respond(request: Request<Incoming>, args: Arc<Args>) -> Result<Response<Full<Bytes>>, Infallible> {
    let user = request.headers().get(END_USER).and_then(|user| user.to_str().ok());
    if wants_a_page(request.headers()) {
        let user = user.or_else(|| user_of(request.uri()));
        return Ok(page(&args, user).await);
    }
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let pod = args.common.name.clone();
    let (status, page) = match ask(&args, path, user).await {
        Ok(reviews) => (StatusCode::OK, Page { pod, reviews: Some(reviews), error: None }),
        Err(error) => (StatusCode::BAD_GATEWAY, Page { pod, reviews: None, error: Some(error) }),
    };
    let text = serde_json::to_vec(&page).expect("text keys and values only");
    Ok(typed(status, "application/json", text))
}

/// Browsers ask for HTML by name; programs take anything.
fn wants_a_page(headers: &HeaderMap) -> bool {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    accept.is_some_and(|accept| accept.contains("text/html"))
}

/// `?user=jason`, since a link cannot set a header.
fn user_of(uri: &Uri) -> Option<&str> {
    let user = uri.query()?.split('&').find_map(|pair| pair.strip_prefix("user="))?;
    (!user.is_empty() && user.bytes().all(|byte| byte.is_ascii_graphic())).then_some(user)
}

async fn page(args: &Args, user: Option<&str>) -> Response<Full<Bytes>> {
    let asked = stream::iter(0..ASKED_FOR_A_PAGE).map(|_| ask(args, "/", user)).buffered(AT_ONCE);
    let asked: Vec<Asked> = asked.collect().await;
    let text = page::render(&args.common.name, user, &asked);
    typed(StatusCode::OK, "text/html; charset=utf-8", text)
}

fn typed(status: StatusCode, kind: &'static str, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}

async fn ask(args: &Args, path: &str, user: Option<&str>) -> Asked {
    let mut call = call::to(&args.reviews, path);
    if let Some(user) = user {
        call = call.header(END_USER, user);
    }
    let address = match args.outbound {
        Some(outbound) => outbound,
        None => resolved(&args.reviews).await.map_err(|error| error.to_string())?,
    };
    match call::send(address, call).await {
        Ok(answer) if answer.status.is_success() => {
            answer.json().map_err(|error: CallError| error.to_string())
        }
        Ok(answer) => Err(answer.summary()),
        Err(error) => Err(error.to_string()),
    }
}

async fn resolved(authority: &str) -> io::Result<SocketAddr> {
    let found = tokio::net::lookup_host(authority).await.map(|mut addresses| addresses.next());
    let nothing = |why: &str| io::Error::other(format!("DNS has no address for {authority}: {why}"));
    match found {
        Ok(Some(address)) => Ok(address),
        Ok(None) => Err(nothing("an empty answer")),
        Err(error) => Err(nothing(&error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn browsers_get_a_page_and_programs_do_not() {
        let accepts = |value: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(header::ACCEPT, header::HeaderValue::from_static(value));
            wants_a_page(&headers)
        };

        assert!(accepts("text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"));
        assert!(!accepts("*/*") && !wants_a_page(&HeaderMap::new()));
    }

    #[test]
    fn a_link_names_its_user() {
        assert_eq!(user_of(&Uri::from_static("/?a=b&user=jason")), Some("jason"));
        assert_eq!(user_of(&Uri::from_static("/?user=")), None);
        assert_eq!(user_of(&Uri::from_static("/")), None);
    }
}
