//! What a run of the tests left out: recorded by the tests that lacked something, told once by the last test.

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs::{self, File},
    io::{self, Write as _},
    path::{Path, PathBuf},
    time::Duration,
};

use clap::ValueEnum as _;

use super::{Need, target};

/// Which run a process belongs to, where its parent is not the runner: see [`run`].
pub const RUN: &str = "SELVEDGE_TESTS_RUN";

/// How long the record of a run is kept that nothing told of, because a filter left the last test out.
const KEPT: Duration = Duration::from_secs(24 * 60 * 60);

/// The name of the run of which this process is a part: nextest's own, or else that of the process that started us,
/// `cargo test`, and when that began.
pub fn run() -> String {
    let named = env::var("NEXTEST_RUN_ID").or_else(|_| env::var(RUN));
    named.unwrap_or_else(|_| {
        let parent = std::os::unix::process::parent_id();
        let stat = fs::read_to_string(format!("/proc/{parent}/stat")).unwrap_or_default();
        // The name of the program is in parentheses and may hold anything; the 20th field after it is the start.
        let started = stat.rsplit_once(')').and_then(|(_, rest)| rest.split_ascii_whitespace().nth(19));
        format!("cargo-{parent}-{}", started.unwrap_or("0"))
    })
}

/// Records that the test that runs is left out for want of `need`. Told on standard error if that cannot be written.
pub(super) fn record(need: Need) {
    let value = need.to_possible_value().expect("none is hidden");
    let line = format!("{}\t{}\n", value.get_name(), test());
    let directory = directory();
    let written = fs::create_dir_all(&directory)
        .and_then(|()| File::options().create(true).append(true).open(directory.join(run())))
        // One write, so that lines of tests that run at once do not mix.
        .and_then(|mut file| file.write_all(line.as_bytes()));
    if let Err(error) = written {
        eprintln!("cannot record that it was left out: {}: {error}", directory.display());
    }
}

/// The test that runs, as its runner calls it.
fn test() -> String {
    let named = |variable| env::var(variable).ok();
    match (named("NEXTEST_BINARY_ID"), named("NEXTEST_TEST_NAME")) {
        (Some(binary), Some(test)) => format!("{binary} {test}"),
        _ => std::thread::current().name().unwrap_or("a test").to_owned(),
    }
}

fn directory() -> PathBuf {
    target().join("left-out")
}

/// What this run left out, for people to read; none if that is nothing.
///
/// # Errors
/// If the record is there and cannot be read.
pub fn summary() -> io::Result<Option<String>> {
    let directory = directory();
    forget_old(&directory);
    let file = directory.join(run());
    match fs::read_to_string(&file) {
        Ok(records) => Ok(Some(said(&records, &file))),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// Removes records that are too old to be of a run that goes on. What cannot be removed does no harm.
fn forget_old(directory: &Path) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let age = entry.metadata().and_then(|metadata| metadata.modified()).map(|time| time.elapsed());
        if matches!(age, Ok(Ok(age)) if age > KEPT) {
            let _ = fs::remove_file(entry.path());
        }
    }
}

/// The summary of these records, which are in `file`.
fn said(records: &str, file: &Path) -> String {
    let records = records.lines().filter_map(|line| line.split_once('\t'));
    let mut tests = BTreeSet::new();
    let mut wanted = BTreeMap::<Need, BTreeSet<&str>>::new();
    for (need, test) in records {
        tests.insert(test);
        if let Ok(need) = Need::from_str(need, false) {
            wanted.entry(need).or_default().insert(test);
        }
    }
    let number = |tests: usize| if tests == 1 { "1 test".to_owned() } else { format!("{tests} tests") };
    let mut text = format!(
        "NOT EVERYTHING WAS TESTED. This machine lacks what {} needed; they were left out, whole or in part, and count \
         as passed.\n",
        number(tests.len())
    );
    for (need, tests) in wanted {
        let _ = writeln!(text, "  {:>9}: {} ({})", number(tests.len()), need.name(), need.remedy());
    }
    let _ = writeln!(
        text,
        "On Debian and Ubuntu `.ci/run tools` gets all of it. Which tests: {}",
        file.display()
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_want_is_told_once_with_the_number_of_tests_and_its_remedy() {
        let records = "nft\tnetns routes::a\nnft\tnetns routes::b\nnft\tnetns routes::b\n\
                       promtool\te2e metrics::c\nh2load\te2e foreign::d\nh2load\tnetns routes::a\n";

        let said = said(records, Path::new("/t/left-out/run"));

        assert!(
            said.starts_with("NOT EVERYTHING WAS TESTED. This machine lacks what 4 tests needed;"),
            "{said}"
        );
        for line in [
            "    2 tests: nft (apt-get install nftables)\n",
            "     1 test: promtool (.ci/run tools)\n",
            "    2 tests: h2load (apt-get install nghttp2-client)\n",
        ] {
            assert!(said.contains(line), "{said}");
        }
        assert_eq!(said.lines().count(), 5, "{said}");
        assert!(said.ends_with("/t/left-out/run\n"), "{said}");
    }

    #[test]
    fn a_run_has_one_name_and_it_can_be_that_of_a_file() {
        let name = run();

        assert_eq!(name, run());
        assert!(!name.is_empty() && !name.contains('/'), "{name}");
    }
}
