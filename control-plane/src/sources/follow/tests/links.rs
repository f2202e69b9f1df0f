//! Changes of what is reached over links.

use std::os::unix::fs::symlink;

use super::*;

#[tokio::test]
async fn a_mounted_config_map_arrives_when_its_link_is_changed() {
    let mut followed = Followed::told(NEVER).await;
    let swap = |target: &str| {
        symlink(target, followed.root.path().join("..data_tmp")).unwrap();
        followed.rename("..data_tmp", "..data");
    };
    followed.write("..v1/b.yaml", &service("b", 1));
    followed.write("..v2/b.yaml", &service("b", 2));
    swap("..v1");
    symlink("..data/b.yaml", followed.root.path().join("b.yaml")).unwrap();
    followed.comes_to(&[("a", 1), ("b", 1)]).await;

    let swap = |target: &str| {
        symlink(target, followed.root.path().join("..data_tmp")).unwrap();
        followed.rename("..data_tmp", "..data");
    };
    swap("..v2");

    followed.comes_to(&[("a", 1), ("b", 2)]).await;
}

#[tokio::test]
async fn a_file_elsewhere_that_a_link_leads_to_is_followed() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut followed = Followed::told(NEVER).await;
    write(&elsewhere.path().join("text"), &service("b", 1));
    symlink(elsewhere.path().join("text"), followed.root.path().join("b.yaml")).unwrap();
    followed.comes_to(&[("a", 1), ("b", 1)]).await;

    write(&elsewhere.path().join("text"), &service("b", 2));

    followed.comes_to(&[("a", 1), ("b", 2)]).await;
}

#[tokio::test]
async fn links_on_the_way_are_followed_wherever_they_are() {
    let elsewhere = tempfile::tempdir().unwrap();
    let at = |name: &str| elsewhere.path().join(name);
    let mut followed = Followed::told(NEVER).await;
    for (version, port) in [("v1", 1), ("v2", 2)] {
        write(&at(version).join("below/b.yaml"), &service("b", port));
        write(&at(version).join("c/c.yaml"), &service("c", port));
    }
    let swap = |target: &str| {
        symlink(target, at("new")).unwrap();
        fs::rename(at("new"), at("now")).unwrap();
    };
    swap("v1");
    symlink(at("now/below/../below/b.yaml"), followed.root.path().join("b.yaml")).unwrap();
    symlink(at("now/c"), followed.root.path().join("c")).unwrap();
    followed.comes_to(&[("a", 1), ("b", 1), ("c", 1)]).await;

    swap("v2");

    followed.comes_to(&[("a", 1), ("b", 2), ("c", 2)]).await;
}

#[tokio::test]
async fn a_directory_that_is_a_link_itself_is_followed_to_another() {
    let root = tempfile::tempdir().unwrap();
    let path = root.path().to_owned();
    let at = |name: &str| path.join(name);
    let swap = |target: &str| {
        symlink(target, at("new")).unwrap();
        fs::rename(at("new"), at("now")).unwrap();
    };
    write(&at("v1/a.yaml"), &service("a", 1));
    write(&at("v2/a.yaml"), &service("a", 2));
    swap("v1");
    let directory = Directory::new(&at("now"), Options { poll_interval: NEVER, ..Options::default() });
    let mut followed = Followed::watching(root, directory, Some(Notices::open().unwrap()));
    followed.comes_to(&[("a", 1)]).await;

    swap("v2");

    followed.comes_to(&[("a", 2)]).await;
}

#[tokio::test]
async fn what_a_link_leads_to_may_come_later() {
    let elsewhere = tempfile::tempdir().unwrap();
    let mut followed = Followed::told(NEVER).await;
    symlink(elsewhere.path().join("text"), followed.root.path().join("b.yaml")).unwrap();
    followed.write("c.yaml", &service("c", 1));
    followed.comes_to(&[("a", 1), ("c", 1)]).await;

    write(&elsewhere.path().join("text"), &service("b", 1));

    followed.comes_to(&[("a", 1), ("b", 1), ("c", 1)]).await;
}
