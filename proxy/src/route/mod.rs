//! Which service, rule and backend a request is for: the rule is found, its filters act, a backend is drawn, and then
//! the time limit runs.

mod draw;
mod filter;
mod find;
mod timeout;

pub use crate::limit::limit;
pub use draw::draw;
pub use filter::filter;
pub use find::find;
pub use timeout::timeout;
