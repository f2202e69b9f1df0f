//! `selvedge diagnostics`: one archive for a bug report, of what the control plane knows, without secrets.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    fs::{self, OpenOptions},
    io::{self, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::LazyLock,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::Context as _;
use flate2::{Compression, write::GzEncoder};
use regex::Regex;
use rustix::fs::{CWD, RenameFlags};
use selvedge_certs::facts::Utc;
use selvedge_kubernetes::Client;
use selvedge_ops::{build, plain};
use tokio::{net::TcpStream, time::timeout};

use crate::{
    cluster,
    replicas::{self, ADMIN_PORT, PlaceArgs, TooLate},
};

/// What is asked of each replica, in which file it comes, and what that is.
const FILES: [(&str, &str, &str); 9] = [
    (
        "/status",
        "status.json",
        "whether the newest configuration has arrived, and how many problems there are",
    ),
    (
        "/config",
        "proxies.json",
        "the proxies that are connected: versions, what they hold, when certificates end",
    ),
    ("/problems", "problems.json", "what is wrong with documents, with their names, files and lines"),
    ("/documents", "documents.json", "how many documents there are of each kind"),
    ("/services", "services.json", "services, with their routes, shares and endpoints"),
    (
        "/traffic?since=3600",
        "traffic.json",
        "how many requests and connections there were in the last hour, between whom",
    ),
    ("/seen", "seen.json", "who has called whom in the last hour"),
    ("/metrics", "metrics.txt", "the control plane's metrics"),
    ("/log-level", "log-level.txt", "what the control plane logs"),
];
/// How long one answer may take.
const TIME: Duration = Duration::from_secs(30);

/// Write one archive for a bug report: what the control plane knows, without secrets
///
/// It has versions, status, problems, proxies, traffic, metrics, and how many documents there are of each kind. It has no
/// document, no Secret, key or token, no request, and no value of a header field. A file in it says what is in it. It does have
/// names of workloads and services, and addresses: look at it before you give it to others.
///
/// Exit status: 0; 1 if a part of it is missing; 2 if no control plane answers, or the archive cannot be written.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The archive; a file of this name that is there is not replaced
    #[arg(value_name = "FILE.tar.gz")]
    file: PathBuf,

    #[command(flatten)]
    place: PlaceArgs,
}

/// What is found out.
#[derive(Debug, Default)]
struct Found {
    /// What each file says, by its name.
    files: BTreeMap<String, String>,
    /// What could not be found out, and why.
    missing: Vec<String>,
}

/// Writes the archive; the exit status says whether anything is missing in it.
///
/// # Errors
/// If what was done cannot be said.
pub fn run(args: &Args) -> anyhow::Result<ExitCode> {
    let written = cluster::runtime()?.block_on(crate::patience::patiently(find(args))).and_then(|found| {
        write(&args.file, &found).with_context(|| format!("cannot write {}", args.file.display()))?;
        Ok(found)
    });
    let found = match written {
        Ok(found) => found,
        Err(error) => {
            eprintln!("selvedge: {error:#}");
            return Ok(ExitCode::from(2));
        }
    };
    for missing in &found.missing {
        eprintln!("selvedge: missing: {}", plain(missing));
    }
    writeln!(
        io::stdout().lock(),
        "{}: {} files; it has names and addresses: look at it before you give it to others",
        args.file.display(),
        found.files.len()
    )?;
    Ok(if found.missing.is_empty() { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

async fn find(args: &Args) -> anyhow::Result<Found> {
    let mut found = Found::default();
    match args.place.admin {
        Some(admin) => {
            let unreachable = || format!("the control plane's admin port {admin}");
            drop(TcpStream::connect(admin).await.with_context(unreachable)?);
            for (path, file, _) in FILES {
                let answer = async { replicas::ask_text(TcpStream::connect(admin).await?, path).await };
                if !found.take(&format!("control-plane/{file}"), timeout(TIME, answer).await) {
                    break;
                }
            }
        }
        None => of_cluster(args, &mut found).await?,
    }
    // What somebody has answered is in a directory of his.
    if found.files.keys().all(|name| !name.contains('/')) {
        let why = found.missing.first().map_or("it was not asked", String::as_str);
        anyhow::bail!("no control plane answers: {why}");
    }
    found.files.insert("versions.txt".to_owned(), versions());
    let readme = found.readme();
    found.files.insert("README.txt".to_owned(), readme);
    Ok(found)
}

async fn of_cluster(args: &Args, found: &mut Found) -> anyhow::Result<()> {
    let client = args.place.connect().await?;
    let namespace = &args.place.cluster.namespace;
    let pods = cluster::control_plane_pods(&client, namespace).await?;
    if pods.is_empty() {
        return Err(replicas::none_runs(namespace));
    }
    for pod in &pods {
        for (path, file, _) in FILES {
            let answer = of_pod(&client, namespace, pod, path);
            if !found.take(&format!("{pod}/{file}"), timeout(TIME, answer).await) {
                break;
            }
        }
    }
    match client.server_version().await {
        Ok(version) => drop(found.files.insert("kubernetes.txt".to_owned(), format!("{version}\n"))),
        Err(error) => found.missing.push(format!("the cluster's version: {error}")),
    }
    Ok(())
}

async fn of_pod(client: &Client, namespace: &str, pod: &str, path: &str) -> anyhow::Result<String> {
    let connection = client.forward(namespace, pod, ADMIN_PORT).await?;
    replicas::ask_text(connection.stream, path).await
}

impl Found {
    /// Returns whether to ask the same replica for more: one that does not answer in time would not answer that either, and
    /// each question would take as long.
    fn take(
        &mut self,
        file: &str,
        answer: Result<anyhow::Result<String>, tokio::time::error::Elapsed>,
    ) -> bool {
        match answer {
            Ok(Ok(text)) => {
                self.files.insert(file.to_owned(), redacted(&text));
                return true;
            }
            Ok(Err(error)) if !error.is::<TooLate>() => {
                self.missing.push(format!("{file}: {error:#}"));
                return true;
            }
            Ok(Err(error)) => self.missing.push(format!("{file}, and what comes after it: {error:#}")),
            Err(_) => {
                self.missing.push(format!("{file}, and what comes after it: no answer within {TIME:?}"));
            }
        }
        false
    }

    /// What is in the archive.
    fn readme(&self) -> String {
        let mut text = format!(
            "What a control plane of Selvedge knew at {}, written by `selvedge diagnostics`.\n\n\
             Of each replica of the control plane there is a directory with these files:\n\n",
            Utc(SystemTime::now())
        );
        let mut line = |line: String| writeln!(text, "{line}").expect("writing to a String cannot fail");
        for (_, file, what) in FILES {
            line(format!("  {file:<16} {what}"));
        }
        line("\nversions.txt says what has written this archive, and on what.".to_owned());
        line("kubernetes.txt, of a cluster, says which version that is.".to_owned());
        line(
            "\nThere is no document, no Secret, no key, no token, no request, and no value of a header field in it. There are \
             names of namespaces, workloads, services and routes, SPIFFE IDs, addresses, serial numbers of certificates, and \
             names of files.\nWhat looks like a key or a token all the same is replaced by [redacted]."
                .to_owned(),
        );
        if !self.missing.is_empty() {
            line("\nMissing:".to_owned());
            for missing in &self.missing {
                line(format!("  {}", plain(missing)));
            }
        }
        text
    }
}

fn versions() -> String {
    let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let kernel = read("/proc/sys/kernel/osrelease");
    let system = read("/etc/os-release");
    let name = system.lines().find_map(|line| line.strip_prefix("PRETTY_NAME=")).unwrap_or("unknown");
    format!(
        "selvedge {}\nkernel {}\nsystem {}\narchitecture {}\n",
        build::VERSION,
        kernel.trim(),
        name.trim_matches('"'),
        std::env::consts::ARCH
    )
}

/// What no archive may have: keys and certificates in PEM, tokens, and what follows words that announce them.
static SECRETS: LazyLock<[Regex; 5]> = LazyLock::new(|| {
    [
        r"-----BEGIN [A-Z0-9 ]+-----[\s\S]*?(-----END [A-Z0-9 ]+-----|\z)",
        r"\beyJ[A-Za-z0-9_-]{8,}\.[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]*)?",
        r"(?i)\b(bearer|basic)\s+[A-Za-z0-9+/._~=-]{8,}",
        // Also as the last part of a longer word, such as `client_secret`, and as a name in JSON that is quoted in a text.
        r#"(?i)\b(?:[a-z0-9]+[_-])*(password|passwd|secret|token|api[_-]?key|authorization|cookie)(?:\\")?\s*[=:]\s*(?:\\"|')?[^\s"'\\,;]{3,}"#,
        // Who logs in, in a URL.
        r#"://[^\s/@"'\\]+:[^\s/@"'\\]*@"#,
    ]
    .map(|pattern| Regex::new(pattern).expect("a pattern of our own"))
});

fn redacted(text: &str) -> String {
    let mut text = text.to_owned();
    for pattern in SECRETS.iter() {
        text = pattern.replace_all(&text, "[redacted]").into_owned();
    }
    text
}

/// Nobody else may read it, and nothing is replaced by it. It has its name once it is whole.
fn write(path: &Path, found: &Found) -> io::Result<()> {
    if path.symlink_metadata().is_ok() {
        return Err(io::ErrorKind::AlreadyExists.into());
    }
    let mut partial = path.as_os_str().to_owned();
    partial.push(".partial");
    let partial = PathBuf::from(partial);
    let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&partial)?;
    let written = fill(file, found).and_then(|()| name(&partial, path));
    if written.is_err() {
        // That it cannot be removed either is less than why it was not written.
        let _ = fs::remove_file(&partial);
    }
    written
}

/// Gives what is at `partial` the name `path`, if nothing has it.
fn name(partial: &Path, path: &Path) -> io::Result<()> {
    let unknown = [rustix::io::Errno::INVAL, rustix::io::Errno::NOSYS];
    match rustix::fs::renameat_with(CWD, partial, CWD, path, RenameFlags::NOREPLACE) {
        // A file system that cannot do it in one step: whether it is there has been looked at.
        Err(error) if unknown.contains(&error) => fs::rename(partial, path),
        renamed => Ok(renamed?),
    }
}

fn fill(file: fs::File, found: &Found) -> io::Result<()> {
    let mut archive = tar::Builder::new(GzEncoder::new(file, Compression::default()));
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    for (name, text) in &found.files {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o600);
        header.set_mtime(now);
        archive.append_data(&mut header, Path::new("selvedge-diagnostics").join(name), text.as_bytes())?;
    }
    archive.into_inner()?.finish()?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_looks_like_a_secret_is_not_written() {
        for (text, expected) in [
            ("a -----BEGIN PRIVATE KEY-----\nMIGH\n-----END PRIVATE KEY----- b", "a [redacted] b"),
            ("cut off: -----BEGIN EC PRIVATE KEY-----\nMIGH", "cut off: [redacted]"),
            (r#"{"m":"eyJhbGciOiJFUzI1NiJ9.eyJzdWIiOiJ4In0.c2ln"}"#, r#"{"m":"[redacted]"}"#),
            ("says Bearer abcdefgh12345", "says [redacted]"),
            ("password=hunter2, then", "[redacted], then"),
            ("client_secret=hunter2 and X-Auth-Token: hunter2", "[redacted] and [redacted]"),
            (r#"{"m":"says {\"password\":\"hunter2\"}"}"#, r#"{"m":"says {\"[redacted]\"}"}"#),
            ("https://me:hunter2@keys.example/jwks is away", "https[redacted]keys.example/jwks is away"),
            (
                r#"{"token":"a","m":"http://10.0.0.1:80/x@y"}"#,
                r#"{"token":"a","m":"http://10.0.0.1:80/x@y"}"#,
            ),
            (r#"{"m":"password: \"hunter2\" is"}"#, r#"{"m":"[redacted]\" is"}"#),
            (r#"{"m":"has no token:"}]}"#, r#"{"m":"has no token:"}]}"#),
            ("spiffe://cluster.local/ns/shop/sa/reviews", "spiffe://cluster.local/ns/shop/sa/reviews"),
            ("the token of shop/reviews is used up", "the token of shop/reviews is used up"),
        ] {
            assert_eq!(redacted(text), expected);
        }
    }

    #[test]
    fn nothing_is_left_of_an_archive_that_cannot_be_written() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar.gz");
        let mut found = Found::default();
        // No archive can have a name that leads out of it.
        found.take("../status.json", Ok(Ok("{}".to_owned())));

        write(&path, &found).unwrap_err();

        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }

    #[test]
    fn an_archive_is_for_its_owner_alone_and_replaces_nothing() {
        use std::os::unix::fs::PermissionsExt as _;

        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.tar.gz");
        let mut found = Found::default();
        found.take("one/status.json", Ok(Ok("{}".to_owned())));
        found.take("one/seen.json", Ok(Err(anyhow::anyhow!("gone"))));
        write(&path, &found).unwrap();

        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(write(&path, &found).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1);
        assert!(found.readme().contains("one/seen.json: gone"));
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(fs::File::open(&path).unwrap()));
        let names: Vec<String> = archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        assert_eq!(names, ["selvedge-diagnostics/one/status.json"]);
    }
}
