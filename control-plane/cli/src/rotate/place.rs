//! What a change of roots asks of the place where the CA is.

use std::{
    fs::{File, TryLockError},
    time::SystemTime,
};

use anyhow::{Context, bail};
use selvedge_certs::ca::rotation::{self, Rotation};
use selvedge_control_plane::{cluster::Cluster, data_dir::DataDir};

use super::RotateArgs;
use crate::place::Place;

/// Held while the command runs, so that it runs once.
const LOCK: &str = "root-rotation.lock";

impl Place {
    pub(super) async fn open(args: &RotateArgs) -> anyhow::Result<Self> {
        match &args.data_dir {
            Some(directory) if !args.kubernetes => {
                if !directory.join("ca.pem").exists() {
                    bail!("{} has no CA: it is not a control plane's data directory", directory.display());
                }
                Ok(Self::Directory(DataDir::open(directory)?))
            }
            _ => {
                let client = args.cluster.connect().await?;
                Ok(Self::Cluster(Cluster::of(client, &args.cluster.namespace)))
            }
        }
    }

    /// What keeps a second command out, in a directory. In a cluster, changes of one version of the Secret exclude each
    /// other.
    pub(super) fn alone(&self) -> anyhow::Result<Option<File>> {
        let Self::Directory(data) = self else { return Ok(None) };
        let path = data.path().join(LOCK);
        let opened = File::options().create(true).truncate(false).write(true).open(&path);
        let file = opened.with_context(|| path.display().to_string())?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(TryLockError::WouldBlock) => {
                bail!("another `selvedge certs rotate-root` is running for {}", data.path().display())
            }
            Err(TryLockError::Error(error)) => Err(error).with_context(|| path.display().to_string()),
        }
    }

    pub(super) async fn state(&self) -> anyhow::Result<Option<Rotation>> {
        match self {
            Self::Directory(data) => Ok(rotation::state(data.path())?),
            Self::Cluster(cluster) => Ok(cluster.rotation().await?),
        }
    }

    pub(super) async fn begin(&self, now: SystemTime) -> anyhow::Result<()> {
        match self {
            Self::Directory(data) => Ok(rotation::begin(data.path(), now)?),
            Self::Cluster(cluster) => Ok(cluster.begin_rotation(now).await?),
        }
    }

    pub(super) async fn set(&self, rotation: &Rotation) -> anyhow::Result<()> {
        match self {
            Self::Directory(data) => Ok(rotation::set(data.path(), rotation)?),
            Self::Cluster(cluster) => Ok(cluster.set_rotation(rotation).await?),
        }
    }

    pub(super) async fn finish(&self) -> anyhow::Result<()> {
        match self {
            Self::Directory(data) => Ok(rotation::finish(data.path())?),
            Self::Cluster(cluster) => Ok(cluster.end_rotation().await?),
        }
    }

    pub(super) async fn give_up(&self) -> anyhow::Result<()> {
        match self {
            Self::Directory(data) => Ok(rotation::give_up(data.path())?),
            Self::Cluster(cluster) => Ok(cluster.end_rotation().await?),
        }
    }
}
