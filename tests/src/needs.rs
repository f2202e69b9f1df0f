//! What tests need of the machine and it may lack: programs, and a right.
//!
//! A test asks for it here. Where it is missing, the test ends at once and passes, and is recorded; the last test of a
//! run, `left-out`, names all that was left out and how to get it ([`left_out`]). In CI it fails instead.

pub mod left_out;

use std::{
    env, fs,
    path::{Path, PathBuf},
};

use clap::ValueEnum;

use crate::netns::rights;

/// Something that a test needs. All of them are in [`Need::value_variants`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, ValueEnum)]
#[expect(missing_docs, reason = "each is described by `about`")]
pub enum Need {
    Ip,
    Nft,
    Iptables,
    Setpriv,
    Namespaces,
    UserNamespaces,
    ApiServer,
    Promtool,
    Prometheus,
    Chromium,
    PythonClients,
    Python,
    Openssl,
    Curl,
    Nghttp,
    H2load,
    Slowhttptest,
    RedisServer,
    RedisCli,
    Initdb,
    Postgres,
    Psql,
    MariadbInstallDb,
    Mariadbd,
    Mariadb,
}

/// How somebody gets it.
#[derive(Debug, Clone, Copy)]
enum Remedy {
    /// By a package of Debian and Ubuntu.
    Package(&'static str),
    /// As this says.
    Other(&'static str),
}

/// Where it is looked for.
#[derive(Debug, Clone, Copy)]
enum SearchPath {
    /// On the PATH, where whoever runs it looks too.
    Path,
    /// Where Debian's packages put it, then on the PATH: what stands first on the PATH may be nobody else's to run.
    System,
    /// At this path below the repository's `target`, where `.ci/run tools` puts it, then on the PATH.
    Target(&'static str),
    /// Where this function says.
    Asked(fn() -> Option<PathBuf>),
}

impl Need {
    /// Its name in messages, which is that of the program if it is one; how to get it; where it is.
    const fn about(self) -> (&'static str, Remedy, SearchPath) {
        use Remedy::{Other, Package};
        match self {
            Self::Ip => ("ip", Package("iproute2"), SearchPath::Path),
            Self::Nft => ("nft", Package("nftables"), SearchPath::Path),
            Self::Iptables => ("iptables", Package("iptables"), SearchPath::Path),
            Self::Setpriv => ("setpriv", Package("util-linux"), SearchPath::Path),
            Self::Namespaces => (
                "the right to make network namespaces",
                Other(
                    "run the tests as root, or allow user namespaces and give yourself subordinate ids (package uidmap, /etc/subuid)",
                ),
                SearchPath::Asked(rights::found),
            ),
            Self::UserNamespaces => (
                "the right to make user namespaces",
                Other("in a container, run that with --privileged; on a host, see user_namespaces(7)"),
                SearchPath::Asked(rights::user_namespaces),
            ),
            Self::ApiServer => (
                "a Kubernetes API server",
                Other("export KUBEBUILDER_ASSETS=$(tests/kubernetes/assets)"),
                SearchPath::Asked(crate::kubernetes::assets_directory),
            ),
            Self::Promtool => {
                ("promtool", Other(".ci/run tools"), SearchPath::Target("promtool/usr/bin/promtool"))
            }
            Self::Prometheus => {
                ("prometheus", Other(".ci/run tools"), SearchPath::Target("promtool/usr/bin/prometheus"))
            }
            Self::Chromium => ("chromium", Package("chromium"), SearchPath::System),
            Self::PythonClients => (
                "Python's HTTP and gRPC clients",
                Other(".ci/run tools, or set SELVEDGE_TEST_PYTHON"),
                SearchPath::Asked(python_with_clients),
            ),
            Self::Python => ("python3", Package("python3"), SearchPath::System),
            Self::Openssl => ("openssl", Package("openssl"), SearchPath::System),
            Self::Curl => ("curl", Package("curl"), SearchPath::System),
            Self::Nghttp => ("nghttp", Package("nghttp2-client"), SearchPath::System),
            Self::H2load => ("h2load", Package("nghttp2-client"), SearchPath::System),
            Self::Slowhttptest => ("slowhttptest", Package("slowhttptest"), SearchPath::System),
            Self::RedisServer => ("redis-server", Package("redis-server"), SearchPath::System),
            Self::RedisCli => ("redis-cli", Package("redis-tools"), SearchPath::System),
            Self::Initdb => ("initdb", Package("postgresql"), SearchPath::System),
            Self::Postgres => ("postgres", Package("postgresql"), SearchPath::System),
            Self::Psql => ("psql", Package("postgresql"), SearchPath::System),
            Self::MariadbInstallDb => ("mariadb-install-db", Package("mariadb-server"), SearchPath::System),
            Self::Mariadbd => ("mariadbd", Package("mariadb-server"), SearchPath::System),
            Self::Mariadb => ("mariadb", Package("mariadb-client"), SearchPath::System),
        }
    }

    /// What it is called in messages.
    pub fn name(self) -> &'static str {
        self.about().0
    }

    /// What somebody does to have it.
    pub fn remedy(self) -> String {
        match self.about().1 {
            Remedy::Package(package) => format!("apt-get install {package}"),
            Remedy::Other(remedy) => remedy.to_owned(),
        }
    }

    /// Where it is; none if it is not on this machine. Nothing is recorded.
    pub fn find(self) -> Option<PathBuf> {
        let (name, _, place) = self.about();
        match place {
            SearchPath::Path => on_path(name),
            SearchPath::System => on_system(name).or_else(|| on_path(name)),
            SearchPath::Target(path) => {
                Some(target().join(path)).filter(|path| path.is_file()).or_else(|| on_path(name))
            }
            SearchPath::Asked(found) => found(),
        }
    }

    /// Where it is. If there is none, the test that asks is recorded as left out: it should end, and pass.
    ///
    /// # Panics
    /// In CI, if it is not on this machine.
    pub fn program(self) -> Option<PathBuf> {
        let found = self.find();
        if found.is_none() {
            self.leave_out();
        }
        found
    }

    /// Whether it is here; otherwise as [`Need::program`].
    ///
    /// # Panics
    /// In CI, if it is not on this machine.
    pub fn is_here(self) -> bool {
        self.program().is_some()
    }

    /// Records that the test that runs is left out for want of this.
    ///
    /// # Panics
    /// In CI: everything must run there.
    pub fn leave_out(self) {
        let says = format!("{} is missing: {}", self.name(), self.remedy());
        assert!(env::var_os("CI").is_none(), "all tests must run in CI; {says}");
        println!("not run: {says}");
        left_out::record(self);
    }
}

/// The repository's `target`, where `.ci/run tools` puts what belongs to nobody's system.
fn target() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target")
}

fn on_path(name: &str) -> Option<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    first(env::split_paths(&path), name)
}

fn on_system(name: &str) -> Option<PathBuf> {
    // Debian keeps PostgreSQL's server out of the PATH.
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let versions = versions.map(|version| version.path().join("bin"));
    first(["/usr/bin", "/usr/sbin"].map(PathBuf::from).into_iter().chain(versions), name)
}

fn first(mut directories: impl Iterator<Item = PathBuf>, name: &str) -> Option<PathBuf> {
    directories.find_map(|directory| Some(directory.join(name)).filter(|file| file.is_file()))
}

/// The Python that has what `tests/e2e/clients/requirements.txt` names.
fn python_with_clients() -> Option<PathBuf> {
    let set = env::var_os("SELVEDGE_TEST_PYTHON").map(PathBuf::from);
    let python = set.unwrap_or_else(|| target().join("foreign-clients/bin/python"));
    python.is_file().then_some(python)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ci_installs_every_package_that_a_test_needs() {
        let script = include_str!("../../.ci/run");
        for need in Need::value_variants() {
            // Part of every Debian.
            if matches!(need, Need::Setpriv) {
                continue;
            }
            if let Remedy::Package(package) = need.about().1 {
                let installed = [format!(":{package}\n"), format!(":{package} ")];
                assert!(
                    installed.iter().any(|entry| script.contains(entry)),
                    ".ci/run tools does not install {package}, which has {}",
                    need.name()
                );
            }
        }
    }

    #[test]
    fn what_is_on_the_path_is_found_and_what_is_nowhere_is_not() {
        assert!(on_path("sh").is_some_and(|path| path.is_absolute()));
        assert_eq!(on_path("no-program-has-this-name"), None);
        assert_eq!(on_system("no-program-has-this-name"), None);
    }
}
