//! The gRPC health check (`grpc.health.v1.Health/Check`), as the kubelet makes it: without TLS.

use std::net::SocketAddr;

use tonic::{client::Grpc, transport::Endpoint};

use super::{Failed, USER_AGENT};
use crate::checks::grpc::serving;

/// Whether the app says that `service` serves.
pub(super) async fn is_serving(at: SocketAddr, service: &str) -> Result<(), Failed> {
    let otherwise = |words: String| Failed::Otherwise(words);
    let endpoint = Endpoint::from_shared(format!("http://{at}"))
        .and_then(|endpoint| endpoint.user_agent(USER_AGENT))
        .map_err(|error| otherwise(error.to_string()))?;
    let channel = endpoint.connect().await.map_err(|error| {
        let cause = std::error::Error::source(&error).map(ToString::to_string);
        otherwise(format!("no connection: {}", cause.unwrap_or_else(|| error.to_string())))
    })?;
    serving(Grpc::new(channel), service).await.map_err(otherwise)
}
