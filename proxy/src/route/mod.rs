//! Which service, rule and backend a request is for.

mod choose;
mod grpc_timeout;
mod pass_through;
mod timeout;

pub use choose::choose;
pub use timeout::timeout;
