//! Putting the rules into force, by the system's own tools.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::fs::PermissionsExt as _,
    process::{Command, Stdio},
};

use rustix::thread::{CapabilitySet, capabilities};

use crate::{
    Error, Options,
    rules::{Tool, foreign, iptables, iptables::Family, nft},
};

/// Whether we may change the network namespace. Asked first, since the tools' own words help nobody.
///
/// # Errors
/// If we may not.
pub fn has_right() -> Result<(), Error> {
    let effective = capabilities(None).map(|sets| sets.effective).unwrap_or(CapabilitySet::empty());
    if effective.contains(CapabilitySet::NET_ADMIN) { Ok(()) } else { Err(Error::NoCapability) }
}

/// The tool that is there; nft if both are.
///
/// # Errors
/// If neither is.
pub fn installed() -> Result<Tool, Error> {
    if is_installed("nft") {
        Ok(Tool::Nft)
    } else if is_installed("iptables-restore") {
        Ok(Tool::Iptables)
    } else {
        Err(Error::NoTool)
    }
}

/// Sets the rules; whatever of ours was there is replaced. Says by which tool.
///
/// # Errors
/// If they cannot be set. Then nothing has changed, save that with iptables IPv4's may be set already.
pub fn set(options: &Options, tool: Option<Tool>) -> Result<Tool, Error> {
    let tool = tool.map_or_else(installed, Ok)?;
    match tool {
        Tool::Nft => set_by_nft(options)?,
        Tool::Iptables => set_by_iptables(options)?,
    }
    Ok(tool)
}

/// Refuses rules of ours that an older selvedge-init has set, as far as the tools that are here show them.
///
/// # Errors
/// [`Error::Outdated`]
pub fn refuse_outdated() -> Result<(), Error> {
    if is_installed("nft")
        && let Ok(listing) = run("nft", &["list", "ruleset"], "")
        && foreign::has_our_table(&listing)
        && !listing.contains(nft::FOR_OTHERS)
    {
        return Err(Error::Outdated(Tool::Nft));
    }
    for family in families().filter(|family| is_installed(family.save())) {
        let saved = save(family).unwrap_or_default();
        if iptables::is_set(&saved) && !saved.contains(iptables::FOR_OTHERS) {
            return Err(Error::Outdated(Tool::Iptables));
        }
    }
    Ok(())
}

/// Removes our rules: those of `tool`, or of every tool that is there.
///
/// # Errors
/// If they cannot be removed.
pub fn clean_up(tool: Option<Tool>) -> Result<(), Error> {
    let by = |which: Tool, program| tool.map_or_else(|| is_installed(program), |tool| tool == which);
    if tool.is_none() {
        installed()?;
    }
    if by(Tool::Nft, "nft") {
        run("nft", &["-f", "-"], &nft::remove())?;
    }
    if by(Tool::Iptables, "iptables-restore") {
        for family in families() {
            let saved = save(family)?;
            if iptables::is_set(&saved) {
                restore(family, &iptables::remove(&saved))?;
            }
        }
    }
    Ok(())
}

fn set_by_nft(options: &Options) -> Result<(), Error> {
    // Here the rules of iptables are seen as well, unless a kernel of old has them apart.
    let listing = run("nft", &["list", "ruleset"], "")?;
    if foreign::has_our_chains(&listing) {
        return Err(Error::OtherTool(Tool::Iptables));
    }
    refuse(options, foreign::in_nft(&listing))?;
    run("nft", &["-f", "-"], &nft::set(options)).map(drop)
}

fn set_by_iptables(options: &Options) -> Result<(), Error> {
    // What nft has set is not among the rules that iptables lists. Where nft does not work, it has set nothing.
    if is_installed("nft")
        && let Ok(listing) = run("nft", &["list", "ruleset"], "")
    {
        if foreign::has_our_table(&listing) {
            return Err(Error::OtherTool(Tool::Nft));
        }
        refuse(options, foreign::in_nft(&listing))?;
    }
    for family in families() {
        let saved = save(family)?;
        refuse(options, foreign::in_iptables(&saved))?;
        restore(family, &iptables::set(options, family, &saved))?;
    }
    Ok(())
}

fn refuse(options: &Options, foreign: Option<String>) -> Result<(), Error> {
    match foreign {
        Some(rule) if !options.force => Err(Error::Foreign { rule }),
        _ => Ok(()),
    }
}

fn save(family: Family) -> Result<String, Error> {
    let tables = iptables::TABLE_NAMES.map(|table| run(family.save(), &["-t", table], ""));
    tables.into_iter().collect()
}

/// Waits for others who change rules at the same moment: some seconds, as `-w` counts them.
fn restore(family: Family, text: &str) -> Result<(), Error> {
    run(family.restore(), &["--noflush", "-w", "5"], text).map(drop)
}

/// The families that exist here. A kernel without IPv6 has none of its connections to redirect.
fn families() -> impl Iterator<Item = Family> {
    let no_ipv6 = fs::metadata("/proc/net/if_inet6").is_err();
    Family::ALL.into_iter().filter(move |family| !(no_ipv6 && *family == Family::V6))
}

fn is_installed(program: &str) -> bool {
    let path = env::var_os("PATH").unwrap_or_default();
    env::split_paths(&path).any(|directory| {
        fs::metadata(directory.join(program))
            .is_ok_and(|file| file.is_file() && file.permissions().mode() & 0o111 != 0)
    })
}

/// Runs `program` with `input` as its standard input, and returns what it prints.
fn run(program: &'static str, arguments: &[&str], input: &str) -> Result<String, Error> {
    let failed = |source: io::Error| match source.kind() {
        io::ErrorKind::NotFound => Error::NoProgram { program },
        _ => Error::Run { program, source },
    };
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(failed)?;
    // Shorter than what a pipe holds, so that nobody waits for the other. If the program has gone without
    // reading it, its exit status says more than the broken pipe.
    let _ = child.stdin.take().expect("piped above").write_all(input.as_bytes());
    let output = child.wait_with_output().map_err(failed)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    Err(refusal(program, &String::from_utf8_lossy(&output.stderr)))
}

/// What a tool's complaint means.
fn refusal(tool: &'static str, stderr: &str) -> Error {
    let said = stderr.split_whitespace().collect::<Vec<_>>().join(" ");
    let says = |words: &[&str]| words.iter().any(|word| said.contains(word));
    if says(&["Operation not permitted", "Permission denied"]) {
        Error::NotPermitted { tool, said }
    } else if says(&[
        "No such file or directory",
        "not supported",
        "can't initialize",
        "cannot initialize",
        "Table does not exist",
        "No chain/target/match by that name",
        "Couldn't load",
    ]) {
        Error::NoNat { tool, said }
    } else {
        Error::Refused { tool, said }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_tools_complain_of_is_told_with_its_remedy() {
        let error = |stderr| refusal("nft", stderr).to_string();

        assert!(error("Operation not permitted (you must be root)\n").contains("another user namespace"));
        let kernel = "/dev/stdin:4:3-60: Error: Could not process rule: No such file or directory\n";
        assert!(error(kernel).contains("modprobe"));
        assert!(error("iptables-restore: line 4 failed").contains("refused: iptables-restore: line 4"));
    }

    #[test]
    fn a_program_that_is_not_there_is_named() {
        let error = run("selvedge-no-such-program", &[], "").unwrap_err();

        assert!(error.to_string().starts_with("selvedge-no-such-program is not in PATH"), "{error}");
    }
}
