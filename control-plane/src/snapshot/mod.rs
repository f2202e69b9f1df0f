//! The mesh as it is now, what one workload may see of it, and what that changes for a proxy.

mod bell;
mod change;
mod deltas;
pub mod diff;
pub mod encoding;
pub mod held;
mod named;
pub mod store;
pub mod view;
pub mod watchers;

pub use encoding::Encoded;
pub(crate) use encoding::bundle_to_wire;
pub use store::{Membership, Snapshot, Store};
pub use watchers::{ALWAYS, Authorities, News, Standing, Watcher};
