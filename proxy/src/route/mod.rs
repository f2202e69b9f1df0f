//! Which service, rule and backend a request is for. A CONNECT is answered here; for every other request the rule is found, its
//! filters act, a backend is drawn, and then the time limit runs.

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
