//! `frontend`: asks `reviews` for every request, through its own sidecar's outbound listener.
//!
//! The sidecar is told the destination by the request's authority, as an app behind a forward proxy does.

use std::{convert::Infallible, net::SocketAddr};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, Serialize};

use super::{Common, reviews};
use crate::call;

/// The settings of one instance.
#[derive(Debug, Clone, clap::Args)]
pub struct Args {
    #[command(flatten)]
    common: Common,
    /// The own sidecar's outbound listener.
    #[arg(long)]
    outbound: SocketAddr,
    /// The authority that reviews are asked from.
    #[arg(long, default_value = "reviews:9080")]
    reviews: String,
}

/// What every answer says.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Page {
    /// The instance's name.
    pub pod: String,
    /// What `reviews` answered; none if it could not.
    pub reviews: Option<reviews::Answer>,
    /// Why there are no reviews.
    pub error: Option<String>,
}

/// Serves until it is killed.
///
/// # Errors
/// If its address cannot be listened on.
pub async fn run(args: Args) -> anyhow::Result<()> {
    let listener = super::listen(&args.common).await?;
    loop {
        let stream = super::accept(&listener).await;
        let args = args.clone();
        tokio::spawn(async move {
            let respond = service_fn(|request| respond(request, &args));
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), respond).await;
        });
    }
}

async fn respond(request: Request<Incoming>, args: &Args) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path_and_query().map_or("/", |path| path.as_str());
    let mut call = call::to(&args.reviews, path);
    // The one header that the lesson routes by; a real app would pass its trace headers as well.
    if let Some(user) = request.headers().get("end-user").and_then(|user| user.to_str().ok()) {
        call = call.header("end-user", user);
    }
    let pod = args.common.name.clone();
    let reviews = match call::send(args.outbound, call).await {
        Ok(answer) if answer.status.is_success() => answer.json().map_err(|error| error.to_string()),
        Ok(answer) => Err(answer.summary()),
        Err(error) => Err(error.to_string()),
    };
    let (status, page) = match reviews {
        Ok(reviews) => (StatusCode::OK, Page { pod, reviews: Some(reviews), error: None }),
        Err(error) => (StatusCode::BAD_GATEWAY, Page { pod, reviews: None, error: Some(error) }),
    };
    let text = serde_json::to_vec(&page).expect("text keys and values only");
    let mut response = Response::new(Full::new(Bytes::from(text)));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    Ok(response)
}
