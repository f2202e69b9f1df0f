//! What counts of a change and when, look by look.

use std::{fs::File, io::Write};

use super::*;

/// A directory that is looked at when a test says so, at times that it makes pass.
struct ByHand {
    root: TempDir,
    directory: Directory,
    follower: Follower,
}

impl ByHand {
    /// One with these files, after the first looks.
    fn of(files: &[(&str, String)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        for (name, text) in files {
            write(&root.path().join(name), text);
        }
        let options = Options { poll_interval: NEVER, ..Options::default() };
        let directory = Directory::new(root.path(), options);
        let follower = Follower::new(NEVER, Some(Notices::open().unwrap()));
        let mut by_hand = Self { root, directory, follower };
        assert!(by_hand.look().is_some());
        assert!(by_hand.look().is_none());
        by_hand
    }

    fn look(&mut self) -> Option<Arc<Loaded>> {
        self.follower.look(&mut self.directory)
    }

    /// Takes all that the kernel has told.
    async fn take(&mut self) -> Noticed {
        let noticed = next_notice(&mut self.follower.notices).await.unwrap();
        self.follower.take(Ok(noticed.clone()));
        noticed
    }

    /// What a change comes to that is there long enough, looked at again and again.
    async fn settled(&mut self) -> Option<Arc<Loaded>> {
        assert!(self.look().is_none(), "it does not count at once");
        for _ in 0..3 {
            tokio::time::advance(SETTLED).await;
            if let Some(loaded) = self.look() {
                return Some(loaded);
            }
        }
        None
    }
}

#[tokio::test(start_paused = true)]
async fn a_file_that_is_being_written_does_not_count_before_it_is_closed() {
    let mut by_hand = ByHand::of(&[("a.yaml", service("a", 1))]);
    let mut file = File::create(by_hand.root.path().join("a.yaml")).unwrap();
    file.write_all(service("half", 1).as_bytes()).unwrap();
    by_hand.take().await;
    assert!(by_hand.settled().await.is_none());

    file.write_all(service("whole", 1).as_bytes()).unwrap();
    drop(file);

    by_hand.take().await;
    let loaded = by_hand.settled().await.unwrap();
    assert_eq!(services(&loaded), [("half".to_owned(), 1), ("whole".to_owned(), 1)]);
}

#[tokio::test(start_paused = true)]
async fn a_policy_that_is_moved_and_changed_is_never_one_of_two() {
    let policy = |account: &str| {
        format!(
            "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {{name: web}}\n\
             spec: {{rules: [{{from: [{{source: {{principals: [{account}]}}}}]}}]}}\n"
        )
    };
    let mut by_hand = ByHand::of(&[("a.yaml", policy("td/ns/a/sa/x"))]);
    fs::remove_file(by_hand.root.path().join("a.yaml")).unwrap();
    write(&by_hand.root.path().join("b.yaml"), &policy("td/ns/a/sa/y"));
    by_hand.take().await;

    let loaded = by_hand.settled().await.unwrap();

    let policies = &loaded.resources.authorization_policies;
    assert_eq!(policies.len(), 1, "{policies:?}");
    assert_eq!(policies[0].location.path.as_deref(), Some(&*by_hand.root.path().join("b.yaml")));
    assert_eq!(loaded.problems, []);
    // It is no other when the old file counts as gone.
    tokio::time::advance(NEVER).await;
    let gone = by_hand.look().unwrap();
    assert_eq!((&gone.resources.authorization_policies, &gone.problems), (policies, &loaded.problems));
}

#[tokio::test(start_paused = true)]
async fn a_file_that_has_another_name_elsewhere_is_not_left_to_the_kernel() {
    let mut by_hand = ByHand::of(&[("a.yaml", service("a", 1))]);
    assert!(by_hand.follower.is_told_all);

    fs::hard_link(by_hand.root.path().join("a.yaml"), by_hand.root.path().join(".a")).unwrap();
    by_hand.take().await;
    by_hand.look();

    assert!(!by_hand.follower.is_told_all);
}

#[tokio::test(start_paused = true)]
async fn only_the_files_of_which_was_told_are_looked_at() {
    let mut by_hand = ByHand::of(&[("a.yaml", service("a", 1)), ("b.yaml", service("b", 1))]);
    let path = by_hand.root.path().join("a.yaml");
    fs::write(by_hand.root.path().join(".hidden.new"), service("a", 2)).unwrap();
    fs::rename(by_hand.root.path().join(".hidden.new"), &path).unwrap();
    let noticed = by_hand.take().await;
    assert_eq!((noticed.files, noticed.is_more), (BTreeSet::from([path.clone()]), false));
    assert_eq!(services(&by_hand.settled().await.unwrap()), [("a".to_owned(), 2), ("b".to_owned(), 1)]);

    fs::remove_file(&path).unwrap();
    assert_eq!(by_hand.take().await.files, BTreeSet::from([path]));
    assert!(by_hand.look().is_none());

    fs::create_dir(by_hand.root.path().join("below")).unwrap();
    assert!(by_hand.take().await.is_more);
    assert_eq!(by_hand.follower.files, None, "there may be files in it");
}

#[tokio::test]
async fn more_changes_than_the_kernel_keeps_are_found_by_reading_everything() {
    let mut by_hand = ByHand::of(&[("a.yaml", service("a", 1))]);
    let longest: usize =
        fs::read_to_string("/proc/sys/fs/inotify/max_queued_events").unwrap().trim().parse().unwrap();
    for number in 0..=longest {
        let name = if number % 2 == 0 { "x.yaml" } else { "y.yaml" };
        write(&by_hand.root.path().join(name), "# nothing\n");
    }

    let noticed = by_hand.take().await;

    assert!(noticed.is_lossy && noticed.is_more, "{noticed:?}");
    assert_eq!(by_hand.follower.next_whole(), None, "everything is due");
    assert!(by_hand.follower.told.is_some());
    by_hand.look();
    assert!(by_hand.follower.next_whole().is_some(), "everything was read");
}
