//! What shells complete of the command line, and its manual pages.

use std::{
    collections::BTreeSet,
    fs,
    io::Write,
    process::{Command, Stdio},
};

use crate::SELVEDGE;

#[test]
fn shells_complete_every_command() {
    for (shell, command) in [("bash", "stat"), ("zsh", "endpoints"), ("fish", "edges")] {
        let output = Command::new(SELVEDGE).args(["completions", shell]).output().expect("it runs");
        assert!(output.status.success(), "{output:?}");
        let text = String::from_utf8(output.stdout).expect("text");
        assert!(text.contains("selvedge") && text.contains(command), "{shell}: {text}");
        if shell == "bash" {
            let mut bash = Command::new("bash").arg("-n").stdin(Stdio::piped()).spawn().expect("bash");
            bash.stdin.take().expect("a pipe").write_all(text.as_bytes()).expect("it is read");
            assert!(bash.wait().expect("it ends").success());
        }
    }
}

#[test]
fn each_command_that_help_lists_has_a_manual_page() {
    let directory = tempfile::tempdir().expect("a directory");
    let pages = directory.path().join("man1");
    let status = Command::new(SELVEDGE).arg("man").arg(&pages).status().expect("it runs");
    assert!(status.success());

    let help = Command::new(SELVEDGE).arg("--help").output().expect("it runs");
    let help = String::from_utf8(help.stdout).expect("text");
    let (_, commands) = help.split_once("Commands:\n").expect("the list of commands");
    let lines = commands.lines().take_while(|line| !line.is_empty());
    let names =
        lines.filter_map(|line| line.strip_prefix("  ")?.split(' ').next().filter(|name| !name.is_empty()));
    let names: BTreeSet<&str> = names.filter(|name| *name != "help").collect();
    assert!(names.contains("stat") && names.len() > 15, "{names:?}");
    for name in names {
        let page = fs::read_to_string(pages.join(format!("selvedge-{name}.1"))).expect("its page");
        assert!(page.contains(".TH") && page.contains(".SH SYNOPSIS"), "{name}: {page}");
    }
    assert!(pages.join("selvedge.1").exists() && pages.join("selvedge-token-create.1").exists());
}
