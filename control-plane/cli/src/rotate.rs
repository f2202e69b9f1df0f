//! `selvedge certs rotate-root`: a new root takes over from the old one, and nothing is dropped meanwhile.
//!
//! How far it has come is kept where the CA is, and not here: in the data directory, or in the Secret. So this command, and
//! every control plane, can be ended at any time, and the command goes on where it was when it is called again.

mod place;
mod progress;

use std::{
    io::{self, Write},
    net::SocketAddr,
    path::PathBuf,
    time::{Duration, SystemTime},
};

use anyhow::bail;
use selvedge_certs::ca::rotation::{Rotation, Step};
use tokio::time::timeout;

use self::progress::{Progress, Wanted};
use crate::{
    cluster::{self, ClusterArgs},
    place::Place,
};

/// Replace the root certificate, step by step and without a pause
///
/// First the new root is trusted beside the old one. Then certificates are issued from the new root, and every sidecar gets
/// one. Then the old root is no longer trusted. Each step waits until every connected sidecar has acknowledged it. If the
/// command is interrupted, call it again, and it goes on where it was.
///
/// Sidecars that are not connected meanwhile must join again afterwards, with a join token that was made after step 2, or
/// in a cluster as a new pod.
#[derive(Debug, clap::Args)]
pub struct RotateArgs {
    /// The control plane's data directory
    #[arg(long, env = "SELVEDGE_DATA_DIR", value_name = "DIR", required_unless_present = "kubernetes")]
    data_dir: Option<PathBuf>,

    /// Use it if the control plane runs in a Kubernetes cluster: the CA is in a Secret there
    #[arg(long)]
    kubernetes: bool,

    #[command(flatten)]
    cluster: ClusterArgs,

    /// The control plane's admin port, as IP:PORT. Default: 127.0.0.1:9990; with --kubernetes, that of each replica,
    /// through the API server. Repeatable, for several replicas
    #[arg(long, value_name = "IP:PORT")]
    admin: Vec<SocketAddr>,

    /// Take back what was begun: certificates are issued from the old root again, and the new root is given up. Not
    /// possible in step 3
    #[arg(long)]
    abort: bool,

    /// Do not wait for sidecars that were connected when this command began, and are not any more
    #[arg(long)]
    ignore_missing: bool,

    /// Give up waiting after this time, with exit status 1; what was begun stays as it is
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    timeout: Option<Duration>,
}

/// Runs `selvedge certs rotate-root`.
///
/// # Errors
/// If the CA cannot be used, if it is too late to take a change of roots back, or if `--timeout` is over.
pub fn run(args: &RotateArgs) -> anyhow::Result<()> {
    let rotating = async {
        let place = Place::open(args).await?;
        let _alone = place.alone()?;
        let mut rotating = Rotating { progress: Progress::new(args), place };
        if args.abort { rotating.take_back().await } else { rotating.go_on().await }
    };
    cluster::runtime()?.block_on(async {
        match args.timeout {
            None => rotating.await,
            Some(limit) => timeout(limit, rotating).await.unwrap_or_else(|_| {
                bail!("not done within {limit:?}; what was begun stays as it is: call the command again to go on, or with --abort")
            }),
        }
    })
}

struct Rotating {
    place: Place,
    progress: Progress,
}

impl Rotating {
    async fn go_on(&mut self) -> anyhow::Result<()> {
        match self.place.state().await? {
            Some(Rotation { back: true, .. }) => {
                bail!("a change of roots is being taken back; finish that with --abort, and then begin again")
            }
            Some(_) => say("going on with the change of roots that was begun")?,
            None => self.place.begin(SystemTime::now()).await?,
        }
        let mut told = false;
        while let Some(roots) = self.place.state().await? {
            if !std::mem::replace(&mut told, true) {
                say(&format!("old root {}\nnew root {}", roots.old, roots.new))?;
            }
            match roots.step {
                Step::Trust => self.trust(roots).await?,
                Step::Issue => self.issue(roots).await?,
                Step::Drop => return self.drop_old(&roots).await,
            }
        }
        bail!("the change of roots was taken back meanwhile")
    }

    async fn trust(&mut self, roots: Rotation) -> anyhow::Result<()> {
        say("step 1 of 3: every sidecar trusts the new root beside the old one")?;
        self.progress.until(&self.place, &Wanted::trusting([&roots.old, &roots.new])).await?;
        self.place.set(&Rotation { step: Step::Issue, ..roots }).await
    }

    async fn issue(&mut self, roots: Rotation) -> anyhow::Result<()> {
        say("step 2 of 3: every sidecar gets a certificate from the new root")?;
        let wanted = Wanted::trusting([&roots.new, &roots.old]).with_certificates_from(&roots.new);
        self.progress.until(&self.place, &wanted).await?;
        self.warn_of_tokens(&roots).await?;
        self.place.set(&Rotation { step: Step::Drop, ..roots }).await
    }

    async fn drop_old(&mut self, roots: &Rotation) -> anyhow::Result<()> {
        say("step 3 of 3: nobody trusts the old root any more")?;
        self.progress.until(&self.place, &Wanted::trusting([&roots.new])).await?;
        self.place.finish().await?;
        say("done: the new root has taken over")
    }

    async fn take_back(&mut self) -> anyhow::Result<()> {
        let roots = match self.place.state().await? {
            None => bail!("there is nothing to take back: no change of roots is under way"),
            Some(Rotation { step: Step::Drop, .. }) => bail!(
                "it is too late to take this back: sidecars no longer trust the old root. Call the command without \
                 --abort to finish; after that you can replace the root again"
            ),
            Some(found) => Rotation { step: Step::Trust, back: true, ..found },
        };
        self.place.set(&roots).await?;
        say("taking back: every sidecar gets a certificate from the old root")?;
        let wanted = Wanted::trusting([&roots.old, &roots.new]).with_certificates_from(&roots.old);
        self.progress.until(&self.place, &wanted).await?;
        self.place.give_up().await?;
        self.progress.until(&self.place, &Wanted::trusting([&roots.old])).await?;
        say("done: the old root is in use as before, and the new one is gone")
    }

    async fn warn_of_tokens(&self, roots: &Rotation) -> anyhow::Result<()> {
        let all = self.place.records().all(SystemTime::now()).await?;
        let old: Vec<String> = all
            .into_iter()
            .filter(|record| record.root == roots.old && record.revoked.is_none())
            .map(|record| format!("  {} of {}", record.id, record.identity))
            .collect();
        if old.is_empty() {
            return Ok(());
        }
        let old = old.join("\n");
        say(&format!(
            "these join tokens name the old root, and are of no use from now on; create others:\n{old}"
        ))
    }
}

fn say(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{text}")?;
    Ok(out.flush()?)
}
