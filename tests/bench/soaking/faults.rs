//! What goes wrong during a soak, one thing after another.

use std::fmt;
use std::time::Duration;

use anyhow::Context;
use selvedge_demo::cluster::Cluster;

use super::SERVERS;

/// From one change to the next.
const PACE: Duration = Duration::from_secs(4);

/// The faults and repairs, in turn; there is always a server that answers.
const COURSE: [Step; 8] = [
    Step::Kill(0),
    Step::Edit,
    Step::Start(0),
    Step::KillControlPlane,
    Step::Kill(1),
    Step::Start(1),
    Step::StartControlPlane,
    Step::Edit,
];

#[derive(Debug, Clone, Copy)]
enum Step {
    Kill(usize),
    Start(usize),
    KillControlPlane,
    StartControlPlane,
    Edit,
}

#[derive(Debug, Default)]
pub(super) struct Faults {
    done: u32,
    apps_killed: u32,
    control_planes_killed: u32,
    edits: u32,
}

impl Faults {
    /// Waits until the next is due, and does it. Nothing is lost when this is dropped while it waits.
    pub(super) async fn next(&mut self, cluster: &mut Cluster, elapsed: Duration) -> anyhow::Result<()> {
        tokio::time::sleep((PACE * (self.done + 1)).saturating_sub(elapsed)).await;
        let step = COURSE[self.done as usize % COURSE.len()];
        self.done += 1;
        self.take(step, cluster).await.with_context(|| format!("{step:?}"))
    }

    async fn take(&mut self, step: Step, cluster: &mut Cluster) -> anyhow::Result<()> {
        match step {
            Step::Kill(server) => {
                self.apps_killed += 1;
                cluster.kill_app(SERVERS[server]).await?;
            }
            Step::Start(server) => {
                cluster.start_app(SERVERS[server])?;
                cluster.app_listens(SERVERS[server]).await?;
            }
            Step::KillControlPlane => {
                self.control_planes_killed += 1;
                cluster.kill_control_plane().await?;
            }
            Step::StartControlPlane => cluster.start_control_plane().await?,
            Step::Edit => {
                self.edits += 1;
                write_route(cluster, self.edits)?;
            }
        }
        Ok(())
    }

    /// Puts everything back that is down, so that what is under way can end.
    pub(super) async fn repair(&mut self, cluster: &mut Cluster) -> anyhow::Result<()> {
        for (index, server) in SERVERS.into_iter().enumerate() {
            if cluster.workload(server).app_process().is_none() {
                self.take(Step::Start(index), cluster).await?;
            }
        }
        if cluster.control_plane_process().is_none() {
            self.take(Step::StartControlPlane, cluster).await?;
        }
        Ok(())
    }
}

/// A route with retries, whose timeout and number of rules differ with each edit.
pub(super) fn write_route(cluster: &Cluster, edit: u32) -> anyhow::Result<()> {
    let rules: String = (0..edit % 50)
        .map(|rule| {
            format!(
                "    - match: [{{uri: {{prefix: /edit-{edit}/{rule}}}}}]\n      \
                 route: [{{destination: {{host: reviews}}}}]\n"
            )
        })
        .collect();
    let timeout = 10 + edit % 5;
    let text = format!(
        "apiVersion: networking.istio.io/v1\nkind: VirtualService\nmetadata: {{name: reviews}}\nspec:\n  \
         hosts: [reviews]\n  http:\n{rules}    - route: [{{destination: {{host: reviews}}}}]\n      \
         timeout: {timeout}s\n      \
         retries: {{attempts: 3, retryOn: 'connect-failure,refused-stream,reset,5xx'}}\n---\n\
         apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {{name: reviews}}\nspec:\n  \
         host: reviews\n  trafficPolicy:\n    \
         outlierDetection: {{consecutive5xxErrors: 5, interval: 1s, baseEjectionTime: 1s, \
         maxEjectionPercent: 50}}\n"
    );
    Ok(cluster.write("route.yaml", &text)?)
}

impl fmt::Display for Faults {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { apps_killed, control_planes_killed, edits, .. } = self;
        write!(
            f,
            "faults: {apps_killed} apps killed, {control_planes_killed} control planes killed, \
             {edits} configurations edited"
        )
    }
}
