//! The gRPC health protocol (`grpc.health.v1.Health/Check`), over whatever connection there is.

use http::uri::PathAndQuery;
use tonic::{
    Code, Request,
    body::Body,
    client::{Grpc, GrpcService},
    codegen::{Body as HttpBody, Bytes, StdError},
};
use tonic_prost::ProstCodec;

const CHECK: &str = "/grpc.health.v1.Health/Check";
/// `HealthCheckResponse.ServingStatus.SERVING`.
const SERVING: i32 = 1;

/// `grpc.health.v1.HealthCheckRequest`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckRequest {
    /// Empty: the server as a whole.
    #[prost(string, tag = "1")]
    pub service: String,
}

/// `grpc.health.v1.HealthCheckResponse`.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HealthCheckResponse {
    /// A `ServingStatus`.
    #[prost(int32, tag = "1")]
    pub status: i32,
}

/// Whether the server behind `client` says that `service` serves; an error says what it says instead.
///
/// # Errors
/// If it says anything else, or nothing.
pub async fn serving<S>(mut client: Grpc<S>, service: &str) -> Result<(), String>
where
    S: GrpcService<Body>,
    S::ResponseBody: HttpBody<Data = Bytes> + Send + 'static,
    <S::ResponseBody as HttpBody>::Error: Into<StdError>,
{
    client.ready().await.map_err(|error| format!("no connection: {}", error.into()))?;
    let request = Request::new(HealthCheckRequest { service: service.to_owned() });
    let codec = ProstCodec::<HealthCheckRequest, HealthCheckResponse>::default();
    let answer = client.unary(request, PathAndQuery::from_static(CHECK), codec).await;
    match answer.map(|answer| answer.into_inner().status) {
        Ok(SERVING) => Ok(()),
        Ok(status) => Err(format!("says {}, and not SERVING", name(status))),
        Err(status) => Err(match status.code() {
            Code::Unimplemented => "has no service grpc.health.v1.Health".to_owned(),
            Code::NotFound => format!("knows no service {service:?}"),
            code => format!("{code:?}: {}", status.message()),
        }),
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
