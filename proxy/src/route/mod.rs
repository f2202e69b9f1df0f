//! Which service, rule and backend a request is for: the rule is found, then the backend is drawn, then the time runs.

mod dialled;
mod draw;
mod find;
mod grpc_timeout;
mod lookup;
mod pass_through;
mod timeout;
mod tunnel;

pub use dialled::{dialled, named};
pub use draw::draw;
pub use find::find;
pub use lookup::destination;
pub use pass_through::{at_its_address, through};
pub use timeout::timeout;
pub use tunnel::tunnel;
