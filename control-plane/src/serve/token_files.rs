//! Join tokens as files: one for every workload that has a sidecar, kept fresh.
//!
//! For places where the control plane and its sidecars share no more than volumes, as in docker-compose. A sidecar needs
//! its own token and no other's: so each may have a volume of its own, mounted here in the place of its file.
//! Each token is valid for its one workload, and is written again at half of its life: a sidecar that starts
//! again days later still finds one that it can use.

use std::{
    collections::BTreeMap,
    fs::{self, DirBuilder},
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Arc,
    time::{Duration, SystemTime},
};

use selvedge_certs::{
    ca::Authority,
    files::{self, FileError},
};
use selvedge_model::{Mesh, SpiffeId, Workload, WorkloadName};

use super::attestation::{self, Grant, RecordFiles, TokenError, TokenKey};
use crate::snapshot::Store;

/// How long a token can be used.
const LIFE: Duration = Duration::from_secs(24 * 3600);
/// When it is replaced.
const RENEWED: Duration = Duration::from_secs(12 * 3600);
/// What the file is called where a workload has a directory of its own.
const IN_A_DIRECTORY: &str = "token";
/// How soon a token that somebody has revoked is replaced.
const LOOK: Duration = Duration::from_secs(10);
/// How soon a file that could not be written is tried again.
const RETRY: Duration = Duration::from_secs(5);

/// The directory that `--token-dir` names: `<namespace>/<workload>` below it is that workload's token; or the file
/// `token` in it, where that is a directory.
#[derive(Debug)]
pub struct TokenFiles {
    directory: PathBuf,
    key: TokenKey,
    authority: Arc<Authority>,
    records: RecordFiles,
    written: BTreeMap<WorkloadName, WrittenToken>,
}

#[derive(Debug)]
struct WrittenToken {
    id: String,
    identity: SpiffeId,
    /// By which its holder knows us.
    root_sha256: [u8; 32],
    renew_at: SystemTime,
}

impl TokenFiles {
    /// Opens the directory, or makes it, for this user only (0700); writes nothing yet. Tokens name the root of
    /// `authority`.
    ///
    /// # Errors
    /// If it cannot be made, or if others may write to it.
    pub fn open(
        directory: &Path,
        key: TokenKey,
        authority: Arc<Authority>,
        records: RecordFiles,
    ) -> Result<Self, FileError> {
        make(directory)?;
        let written = BTreeMap::new();
        Ok(Self { directory: directory.to_owned(), key, authority, records, written })
    }

    /// Keeps the files as the newest mesh wants them, until the store is gone.
    pub async fn follow(mut self, store: Arc<Store>) {
        let (mut snapshots, mut changes) = (store.subscribe(), self.authority.changes());
        loop {
            let newest = snapshots.borrow_and_update().clone();
            let mut pause = RENEWED;
            if let Some(snapshot) = newest {
                // Files are synced to disk, which takes its time.
                let refreshed = tokio::task::spawn_blocking(move || {
                    let pause = self.refresh(snapshot.mesh(), SystemTime::now());
                    (self, pause)
                });
                let Ok((this, until_next)) = refreshed.await else { return };
                (self, pause) = (this, until_next);
            }
            tokio::select! {
                changed = snapshots.changed() => if changed.is_err() { return },
                // Of the root, perhaps.
                Ok(()) = changes.changed() => {}
                () = tokio::time::sleep(pause) => {}
            }
        }
    }

    /// Writes what is missing or old, removes what it wrote for workloads that are gone, and says in how
    /// long to look again.
    fn refresh(&mut self, mesh: &Mesh, now: SystemTime) -> Duration {
        let wanted =
            |name: &WorkloadName| mesh.workloads.get(name).is_some_and(|workload| workload.has_proxy());
        let gone: Vec<_> = self.written.keys().filter(|name| !wanted(name)).cloned().collect();
        for name in gone {
            self.written.remove(&name);
            if let Err(error) = fs::remove_file(self.path(&name)) {
                tracing::warn!(workload = %name, %error, "the token file of a removed workload could not be deleted");
            }
        }
        if let Err(error) = self.records.forget_expired(now) {
            tracing::warn!(%error, "the records of expired join tokens stay");
        }
        let root_sha256 = self.authority.root_sha256();
        let mut failed = false;
        for workload in mesh.workloads.values().filter(|workload| workload.has_proxy()) {
            let fresh = |written: &WrittenToken| {
                written.identity == workload.identity
                    && written.root_sha256 == root_sha256
                    && now < written.renew_at
                    && !self.is_revoked(&written.id)
            };
            if self.written.get(&workload.name).is_some_and(fresh) {
                continue;
            }
            if let Err(error) = self.write(workload, root_sha256, now) {
                tracing::error!(workload = %workload.name, %error, "no join token was written; trying again");
                failed = true;
            }
        }
        if failed {
            return RETRY;
        }
        let next = self.written.values().map(|written| written.renew_at).min();
        next.and_then(|next| next.duration_since(now).ok()).map_or(RENEWED, |next| next.min(LOOK))
    }

    fn is_revoked(&self, id: &str) -> bool {
        self.records.read(id).is_ok_and(|record| record.is_some_and(|record| record.revoked.is_some()))
    }

    fn write(
        &mut self,
        workload: &Workload,
        root_sha256: [u8; 32],
        now: SystemTime,
    ) -> Result<(), TokenError> {
        let grant = Grant {
            identity: workload.identity.clone(),
            workload: Some(workload.name.clone()),
            ttl: LIFE,
            once: false,
        };
        let (token, record) = attestation::create(&self.key, &grant, root_sha256, now)?;
        self.records.write(&record)?;
        let path = self.path(&workload.name);
        make(&self.directory.join(workload.name.namespace()))?;
        path.parent().map_or(Ok(()), files::check_directory)?;
        files::write_secret(&path, token.as_bytes())?;
        tracing::info!(workload = %workload.name, path = %path.display(), "join token written");
        let identity = workload.identity.clone();
        let written = WrittenToken { id: record.id, identity, root_sha256, renew_at: now + RENEWED };
        self.written.insert(workload.name.clone(), written);
        Ok(())
    }

    fn path(&self, name: &WorkloadName) -> PathBuf {
        let path = self.directory.join(name.namespace()).join(name.name());
        if path.is_dir() { path.join(IN_A_DIRECTORY) } else { path }
    }
}

fn make(directory: &Path) -> Result<(), FileError> {
    let made = DirBuilder::new().recursive(true).mode(0o700).create(directory);
    made.map_err(|source| FileError::Write { path: directory.to_owned(), source })?;
    files::check_directory(directory)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use selvedge_model::{InboundPolicy, TrustDomain};

    use super::*;
    use crate::serve::attestation::Attestor;

    fn workload(name: &str, account: &str, meshed: bool) -> Arc<Workload> {
        Arc::new(Workload {
            name: name.parse().unwrap(),
            identity: SpiffeId::new(&TrustDomain::default(), "shop", account).unwrap(),
            meshed,
            inbound: None,
            ports: vec![9080],
            policy: InboundPolicy::default(),
            protocols: Default::default(),
            app_connections: Default::default(),
            egress: None,
            gateway: None,
            telemetry: None,
            place: None,
            services: Default::default(),
            labels: Default::default(),
        })
    }

    fn mesh(workloads: &[Arc<Workload>]) -> Mesh {
        let workloads = workloads.iter().map(|workload| (workload.name.clone(), Arc::clone(workload)));
        Mesh { workloads: workloads.collect(), ..Mesh::default() }
    }

    struct Fixture {
        parent: tempfile::TempDir,
        files: TokenFiles,
    }

    fn fixture() -> Fixture {
        let parent = tempfile::tempdir().unwrap();
        let data = parent.path().join("data");
        fs::create_dir(&data).unwrap();
        let key = TokenKey::load_or_create(&data).unwrap();
        let authority = Arc::new(crate::testing::authority(&data));
        let records = RecordFiles::of(&data);
        let files = TokenFiles::open(&parent.path().join("tokens"), key, authority, records).unwrap();
        Fixture { parent, files }
    }

    impl Fixture {
        fn token(&self, name: &str) -> Option<String> {
            fs::read_to_string(self.parent.path().join("tokens").join(name)).ok()
        }
    }

    #[test]
    fn every_workload_with_a_sidecar_gets_a_token_of_its_own_that_nobody_else_can_read() {
        let mut f = fixture();
        let now = SystemTime::now();

        f.files.refresh(&mesh(&[workload("shop/a", "a", true), workload("shop/plain", "b", false)]), now);

        let attestor = Attestor::open(&f.parent.path().join("data"), &TrustDomain::default()).unwrap();
        let proof = attestor.verify(&f.token("shop/a").unwrap(), now).unwrap();
        assert_eq!(proof.identity.as_str(), "spiffe://cluster.local/ns/shop/sa/a");
        assert_eq!(proof.workload, Some("shop/a".parse().unwrap()));
        assert_eq!(f.token("shop/plain"), None);
        for (path, mode) in [("tokens", 0o700), ("tokens/shop", 0o700), ("tokens/shop/a", 0o600)] {
            let permissions = fs::metadata(f.parent.path().join(path)).unwrap().permissions();
            assert_eq!(permissions.mode() & 0o777, mode, "{path}");
        }
    }

    #[test]
    fn a_gateway_gets_a_token_although_it_has_no_sidecar() {
        let mut f = fixture();
        let mut edge = Arc::unwrap_or_clone(workload("shop/edge", "edge", false));
        edge.gateway = Some(Arc::default());

        f.files.refresh(&mesh(&[Arc::new(edge)]), SystemTime::now());

        assert!(f.token("shop/edge").is_some());
    }

    #[test]
    fn a_token_stays_until_half_of_its_life_or_another_identity() {
        let mut f = fixture();
        let now = SystemTime::now();
        let before = mesh(&[workload("shop/a", "a", true)]);
        let pause = f.files.refresh(&before, now);
        let first = f.token("shop/a").unwrap();

        f.files.refresh(&before, now + RENEWED / 2);
        assert_eq!(f.token("shop/a").unwrap(), first);
        assert_eq!(pause, LOOK);

        f.files.refresh(&before, now + RENEWED);
        let second = f.token("shop/a").unwrap();
        assert_ne!(second, first);

        f.files.refresh(&mesh(&[workload("shop/a", "other", true)]), now + RENEWED);
        assert_ne!(f.token("shop/a").unwrap(), second);
    }

    #[test]
    fn a_revoked_token_is_replaced() {
        let mut f = fixture();
        let (now, mesh) = (SystemTime::now(), mesh(&[workload("shop/a", "a", true)]));
        f.files.refresh(&mesh, now);
        let first = f.token("shop/a").unwrap();
        let record = attestation::record_of(&f.files.key, &first).unwrap();

        f.files.records.write(&attestation::TokenRecord { revoked: Some(1), ..record }).unwrap();
        f.files.refresh(&mesh, now);

        assert_ne!(f.token("shop/a").unwrap(), first);
    }

    #[test]
    fn the_token_of_a_workload_that_is_gone_is_removed_and_no_other_file() {
        let mut f = fixture();
        let now = SystemTime::now();
        f.files.refresh(&mesh(&[workload("shop/a", "a", true), workload("shop/b", "b", true)]), now);
        let strange = f.parent.path().join("tokens/shop/mine");
        fs::write(&strange, "").unwrap();

        f.files.refresh(&mesh(&[workload("shop/b", "b", true)]), now);

        assert_eq!(f.token("shop/a"), None);
        assert!(f.token("shop/b").is_some() && strange.exists());
    }

    #[test]
    fn a_workload_that_has_a_directory_of_its_own_finds_its_token_there() {
        let mut f = fixture();
        let own = f.parent.path().join("tokens/shop/a");
        fs::create_dir_all(&own).unwrap();
        let now = SystemTime::now();

        f.files.refresh(&mesh(&[workload("shop/a", "a", true), workload("shop/b", "b", true)]), now);
        assert!(f.token("shop/a/token").is_some() && f.token("shop/b").is_some());
        f.files.refresh(&mesh(&[]), now);
        assert!(f.token("shop/a/token").is_none() && own.is_dir());
    }

    #[test]
    fn what_cannot_be_written_is_tried_again_soon() {
        let mut f = fixture();
        let in_the_way = f.parent.path().join("tokens/shop");
        fs::write(&in_the_way, "").unwrap();
        let mesh = mesh(&[workload("shop/a", "a", true)]);

        assert_eq!(f.files.refresh(&mesh, SystemTime::now()), RETRY);

        fs::remove_file(&in_the_way).unwrap();
        assert_eq!(f.files.refresh(&mesh, SystemTime::now()), LOOK);
        assert!(f.token("shop/a").is_some());
    }
}
