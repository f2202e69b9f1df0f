//! The gRPC health check (`grpc.health.v1.Health/Check`), as the kubelet makes it: without TLS.

use std::net::SocketAddr;

use hyper::http::uri::PathAndQuery;
use tonic::{Code, Request, client::Grpc, transport::Endpoint};
use tonic_prost::ProstCodec;

use super::{Failed, USER_AGENT};

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckRequest {
    /// Empty: the server as a whole.
    #[prost(string, tag = "1")]
    pub(super) service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub(super) struct HealthCheckResponse {
    /// A `ServingStatus`.
    #[prost(int32, tag = "1")]
    pub(super) status: i32,
}

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
    let mut client = Grpc::new(channel);
    client.ready().await.map_err(|error| otherwise(format!("no connection: {error}")))?;
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(CHECK), codec).await;
    match answer.map(|answer| answer.into_inner().status) {
        Ok(SERVING) => Ok(()),
        Ok(status) => Err(otherwise(format!("says {}, and not SERVING", name(status)))),
        Err(status) => Err(otherwise(match status.code() {
            Code::Unimplemented => "has no service grpc.health.v1.Health".to_owned(),
            Code::NotFound => format!("knows no service {service:?}"),
            code => format!("{code:?}: {}", status.message()),
        })),
    }
}

fn name(status: i32) -> String {
    match status {
        0 => "UNKNOWN".to_owned(),
        2 => "NOT_SERVING".to_owned(),
        3 => "SERVICE_UNKNOWN".to_owned(),
        other => format!("status {other}"),
    }
}
