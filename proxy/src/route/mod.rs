//! Which service, rule and backend a request is for.

mod choose;
mod dialled;
mod grpc_timeout;
mod pass_through;
mod timeout;
mod tunnel;

pub use choose::{choose, destination};
pub use dialled::{dialled, named};
pub use pass_through::{at_its_address, through};
pub use timeout::timeout;
