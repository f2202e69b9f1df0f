//! Which service, rule and backend a request is for: the rule is found, then the backend is drawn, then the time runs.

mod draw;
mod filter;
mod find;
mod timeout;
mod tunnel;

pub use draw::draw;
pub use filter::filter;
pub use find::find;
pub use timeout::timeout;
pub use tunnel::tunnel;
