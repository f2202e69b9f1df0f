//! What both daemons need: logging, admin server, drain, listeners, names, and how others wait for them.
//!
//! Nothing here knows what a proxy or a control plane does; each hands in its own routes, metrics and
//! conditions.

pub mod admin;
pub mod build;
pub mod drain;
pub mod exposition;
pub mod files;
pub mod guarded;
pub mod here;
pub mod http1;
pub mod http2;
pub mod lag;
pub mod listen;
pub mod logging;
pub mod memory;
pub mod metadata;
pub mod places;
pub mod plain;
pub mod process;
pub mod readiness;
pub mod resolver;
mod scrape;
pub mod seated;
pub mod shares;
pub mod sparing;
pub mod wait;
mod when_woken;

pub use admin::Admin;
pub use drain::{Drain, Reason};
pub use listen::announce;
pub use logging::{LogArgs, LogFormat, LogLevel};
pub use plain::{plain, plain_within};
pub use readiness::{Condition, Readiness, Remark};
pub use resolver::{ResolveError, Resolved, Resolver, ResolverArgs};
pub use when_woken::{WhenWoken, when_woken};
