//! The dashboard: pages that show the mesh to people, made on the server from the figures of the commands.
//!
//! The control plane's admin port has them ([`pages`]), of what that replica knows. In a cluster `selvedge dashboard` makes the
//! same pages of what all replicas know together. Pages only show: no request changes anything.

mod assets;
mod facts;
mod frame;
mod graph;
mod html;
mod open;
mod page;
mod plot;
mod reason;
mod serve;
#[cfg(test)]
mod tests;
mod told;

pub use self::{
    open::{Args, run},
    serve::pages,
};
