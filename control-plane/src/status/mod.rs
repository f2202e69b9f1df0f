//! What became of the configuration: problems in documents, and what each proxy holds.
//!
//! What the admin port says of it are public types, which the command line reads again.

mod answers;
mod certificates;
mod conditions;
mod features;
pub(crate) mod gateways;
mod levels;
mod listeners;
mod overview;
mod policies;
mod problems;
mod proxies;
mod seen;
mod services;
mod taps;
mod traffic;
mod written;

pub use self::{
    answers::{Arrival, Config, Counts, Summary},
    certificates::{Life, OwnCertificates, Purpose},
    conditions::{CONTROLLER, ObjectMetadata, ObjectStatus, statuses},
    levels::{LevelAnswer, Levels},
    overview::{COMMAND, Overview},
    problems::{Problems, Verdicts},
    proxies::{Live, Proof, Proxies, Proxy, RefusedTransaction, Registration},
    seen::{Seen, SeenCaller, SeenCallers, SeenRefusal, SeenTraffic},
    services::{
        AbsentShown, EndpointShown, OutShown, RouteShown, ServiceShown, ServicesShown, ShareShown, Starting,
    },
    taps::{TapAnswer, TapSeen, Taps},
    traffic::{
        EdgeTraffic, EndpointTraffic, HistoryKey, HistoryLine, HistoryPoint, HistorySeen, PieceOfTime,
        Traffic, TrafficSeen, WorkloadTraffic,
    },
};
pub(crate) use self::{
    conditions::{Verdict, by_document, is_of_kind, said, shortened},
    levels::{Level, LevelQuestion},
    taps::{Asked, TapQuestion},
    traffic::TrafficReport,
};
