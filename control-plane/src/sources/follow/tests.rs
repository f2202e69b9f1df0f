//! When changes arrive, with and without the kernel's help.

mod by_hand;
mod links;

use std::{fs, path::Path};

use tempfile::TempDir;
use tokio::{task::JoinHandle, time::timeout};

use super::*;
use crate::sources::directory::Options;

/// How long a test waits for what must come.
const LIMIT: Duration = Duration::from_secs(20);
/// An interval that no test lives to see the end of: what arrives was told by the kernel.
const NEVER: Duration = Duration::from_secs(600);

struct Followed {
    root: TempDir,
    loaded: watch::Receiver<Arc<Loaded>>,
    watching: JoinHandle<()>,
}

impl Followed {
    /// A directory with one file, after the first look.
    async fn of(interval: Duration, notices: Option<Notices>) -> Self {
        let root = tempfile::tempdir().unwrap();
        write(&root.path().join("a.yaml"), &service("a", 1));
        let options = Options { poll_interval: interval, ..Options::default() };
        let directory = Directory::new(root.path(), options);
        let mut followed = Self::watching(root, directory, notices);
        followed.comes_to(&[("a", 1)]).await;
        followed
    }

    /// `directory`, which is, or is reached, below `root`.
    fn watching(root: TempDir, directory: Directory, notices: Option<Notices>) -> Self {
        let (sender, loaded) = watch::channel(Arc::default());
        let follower = Follower::new(directory.options().poll_interval, notices);
        let watching = tokio::spawn(watch(directory, follower, sender));
        Self { root, loaded, watching }
    }

    async fn told(interval: Duration) -> Self {
        Self::of(interval, Some(Notices::open().unwrap())).await
    }

    fn write(&self, name: &str, text: &str) {
        write(&self.root.path().join(name), text);
    }

    fn rename(&self, from: &str, to: &str) {
        fs::rename(self.root.path().join(from), self.root.path().join(to)).unwrap();
    }

    /// Waits until these are the services.
    async fn comes_to(&mut self, wanted: &[(&str, u16)]) {
        let arrival = async {
            loop {
                let services = services(&self.loaded.borrow_and_update());
                if services.iter().map(|(name, port)| (name.as_str(), *port)).eq(wanted.iter().copied()) {
                    return;
                }
                self.loaded.changed().await.expect("it is still followed");
            }
        };
        timeout(LIMIT, arrival).await.unwrap_or_else(|_| panic!("{wanted:?} does not come"));
    }
}

fn write(path: &Path, text: &str) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

fn service(name: &str, port: u16) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: {port}}}]}}\n"
    )
}

fn services(loaded: &Loaded) -> Vec<(String, u16)> {
    let services = loaded.resources.services.iter();
    services.map(|document| (document.name.name.to_string(), document.spec.ports[0].port)).collect()
}

#[tokio::test]
async fn what_changes_arrives_without_waiting_for_the_next_look() {
    let mut followed = Followed::told(NEVER).await;

    followed.write("a.yaml", &service("a", 2));
    followed.comes_to(&[("a", 2)]).await;

    followed.write(".new", &service("a", 3));
    followed.rename(".new", "a.yaml");
    followed.comes_to(&[("a", 3)]).await;

    followed.write("below/deeper/b.yaml", &service("b", 1));
    followed.comes_to(&[("a", 3), ("b", 1)]).await;
    followed.write("below/deeper/b.yaml", &service("b", 2));
    followed.comes_to(&[("a", 3), ("b", 2)]).await;

    followed.rename("below", "moved");
    followed.write("moved/deeper/b.yaml", &service("b", 3));
    followed.write("c.yaml", &service("c", 1));
    // That files have gone counts later; of two documents of one name the first counts until then.
    timeout(LIMIT, followed.loaded.wait_for(|loaded| services(loaded).iter().any(|(name, _)| name == "c")))
        .await
        .unwrap()
        .unwrap();
}

#[tokio::test]
async fn what_goes_counts_when_it_has_stayed_away() {
    let mut followed = Followed::told(Duration::from_millis(50)).await;
    followed.write("b.yaml", &service("b", 1));
    followed.comes_to(&[("a", 1), ("b", 1)]).await;

    fs::remove_file(followed.root.path().join("b.yaml")).unwrap();

    followed.comes_to(&[("a", 1)]).await;
}

#[tokio::test]
async fn a_directory_that_vanishes_and_comes_back_is_followed_again() {
    let mut followed = Followed::told(Duration::from_millis(50)).await;
    let root = followed.root.path().to_owned();

    fs::remove_dir_all(&root).unwrap();
    timeout(LIMIT, followed.loaded.wait_for(|loaded| !loaded.problems.is_empty())).await.unwrap().unwrap();
    assert_eq!(services(&followed.loaded.borrow()), [("a".to_owned(), 1)], "nothing is changed meanwhile");

    write(&root.join("a.yaml"), &service("a", 2));
    followed.comes_to(&[("a", 2)]).await;
    write(&root.join("a.yaml"), &service("a", 3));
    followed.comes_to(&[("a", 3)]).await;
}

#[tokio::test]
async fn without_the_kernels_help_changes_arrive_all_the_same() {
    let mut followed = Followed::of(Duration::from_millis(20), None).await;

    followed.write("a.yaml", &service("a", 2));
    followed.comes_to(&[("a", 2)]).await;
    followed.write("below/b.yaml", &service("b", 1));
    followed.comes_to(&[("a", 2), ("b", 1)]).await;
    fs::remove_file(followed.root.path().join("a.yaml")).unwrap();
    followed.comes_to(&[("b", 1)]).await;
}

#[tokio::test]
async fn nobody_listens_and_nothing_is_followed() {
    let Followed { loaded, watching, .. } = Followed::told(NEVER).await;

    drop(loaded);

    timeout(LIMIT, watching).await.unwrap().unwrap();
}
