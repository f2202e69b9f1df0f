//! How endpoints outside the mesh are asked whether they are well.

use std::time::Duration;

use selvedge_model::{HealthCheck, HealthQuestion};

use super::{ConvertError, milliseconds, required};
use crate::wire::{self, health_check::Question};

impl From<&HealthCheck> for wire::HealthCheck {
    fn from(check: &HealthCheck) -> Self {
        let question = match &check.question {
            HealthQuestion::Http { path, host, statuses } => {
                let range = |&(first, last): &(u16, u16)| wire::StatusRange {
                    first: first.into(),
                    last: last.into(),
                };
                let statuses = statuses.iter().map(range).collect();
                Question::Http(wire::HttpHealth { path: path.clone(), host: host.clone(), statuses })
            }
            HealthQuestion::Grpc { host, service } => {
                Question::Grpc(wire::GrpcHealth { host: host.clone(), service: service.clone() })
            }
            HealthQuestion::Tcp => Question::Tcp(wire::TcpHealth {}),
        };
        Self {
            question: Some(question),
            interval_ms: milliseconds(check.interval),
            timeout_ms: milliseconds(check.timeout),
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
            port: check.port.map(u32::from).unwrap_or_default(),
        }
    }
}

impl TryFrom<wire::HealthCheck> for HealthCheck {
    type Error = ConvertError;

    fn try_from(check: wire::HealthCheck) -> Result<Self, ConvertError> {
        let status = |value: u32| {
            let out_of_range =
                ConvertError::OutOfRange { field: "health check status", value: value.into(), largest: 999 };
            u16::try_from(value).ok().filter(|status| *status <= 999).ok_or(out_of_range)
        };
        let range = |range: wire::StatusRange| Ok((status(range.first)?, status(range.last)?));
        let question = match required("question of a health check", check.question)? {
            Question::Http(wire::HttpHealth { path, host, statuses }) => {
                let statuses = statuses.into_iter().map(range).collect::<Result<_, ConvertError>>()?;
                HealthQuestion::Http { path, host, statuses }
            }
            Question::Grpc(wire::GrpcHealth { host, service }) => HealthQuestion::Grpc { host, service },
            Question::Tcp(wire::TcpHealth {}) => HealthQuestion::Tcp,
        };
        let out_of_range = ConvertError::OutOfRange {
            field: "port of a health check",
            value: check.port.into(),
            largest: u16::MAX.into(),
        };
        let port = u16::try_from(check.port).map_err(|_| out_of_range)?;
        Ok(Self {
            question,
            port: (port != 0).then_some(port),
            interval: Duration::from_millis(check.interval_ms),
            timeout: Duration::from_millis(check.timeout_ms),
            unhealthy_threshold: check.unhealthy_threshold,
            healthy_threshold: check.healthy_threshold,
        })
    }
}
