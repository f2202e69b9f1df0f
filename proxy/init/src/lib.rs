//! `selvedge-init`: redirects the connections of a network namespace to the sidecar in it.
//!
//! The one program of the mesh that needs the capability `NET_ADMIN`, and for a moment only; so it is small,
//! and imports nothing of ours. The rules are a pure function of the [`Options`] to text ([`rules`]), which
//! the system's own `nft` or `iptables-restore` puts into force as one transaction ([`tool`]). A real
//! connection then proves that they work ([`verify`]), and a process that holds the namespace for others can
//! give up all rights and wait ([`hold`]).

mod error;
pub mod hold;
mod options;
pub mod rules;
pub mod tool;
pub mod verify;

pub use error::Error;
pub use options::{Args, Options, PortRange};

use rules::Tool;

/// Does what the command line says. What was done is said in one line on standard output.
///
/// # Errors
/// If it cannot be done; nothing is half done, and the message says what to change.
pub fn run(args: &Args) -> Result<(), Error> {
    let Args { options, action, tool } = args;
    if action.print {
        print!("{}", rules::text(options, tool.unwrap_or_else(|| tool::installed().unwrap_or(Tool::Nft))));
        return Ok(());
    }
    if action.held {
        return hold::held();
    }
    tool::has_right()?;
    if action.cleanup {
        return tool::clean_up(*tool);
    }
    if action.verify {
        let proof = verify::verify(options)?;
        tool::refuse_outdated()?;
        println!("{proof}");
        return if proof.redirected.is_empty() { Err(Error::NoRoute) } else { Ok(()) };
    }
    let tool = tool::set(options, *tool)?;
    println!("connections are redirected by {tool} rules");
    println!("{}", verify::verify(options)?);
    if action.hold { hold::hold() } else { Ok(()) }
}
