//! Every link in a guide leads somewhere: to a file that is there, and to a heading in it.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

use regex::Regex;

const ROOT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../..");

#[test]
fn links_between_guides_lead_somewhere() {
    let mut guides = Vec::new();
    collect(Path::new(ROOT), &mut guides);
    assert!(guides.len() > 10, "the guides were not found: {guides:?}");

    let broken: Vec<String> = guides.iter().flat_map(|guide| broken(guide)).collect();

    assert!(broken.is_empty(), "links that lead nowhere:\n{}", broken.join("\n"));
}

/// All Markdown files below `directory`, but not those that builds leave there.
fn collect(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).expect("a directory of the checkout").flatten() {
        let path = entry.path();
        let name = entry.file_name();
        if path.is_dir() {
            if name != "target" && !name.to_string_lossy().starts_with('.') {
                collect(&path, found);
            }
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path);
        }
    }
}

/// The links of `guide` that lead nowhere. Those to other hosts are not followed.
fn broken(guide: &Path) -> Vec<String> {
    let link = Regex::new(r"\]\(([^)\s]+)\)").expect("a pattern");
    let text = fs::read_to_string(guide).expect("a guide");
    let links = link.captures_iter(&text).map(|found| found[1].to_owned());
    links
        .filter(|link| !link.contains("://") && !leads_somewhere(guide, link))
        .map(|link| format!("{}: {link}", guide.display()))
        .collect()
}

fn leads_somewhere(guide: &Path, link: &str) -> bool {
    let (path, heading) = link.split_once('#').map_or((link, None), |(path, heading)| (path, Some(heading)));
    let target = match path {
        "" => guide.to_owned(),
        path => guide.parent().expect("a file is in a directory").join(path),
    };
    match heading {
        None => target.exists(),
        Some(heading) => fs::read_to_string(target).is_ok_and(|text| anchors(&text).contains(heading)),
    }
}

/// The anchors of a guide's headings, as Markdown on code hosts makes them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings = text.lines().filter(|line| line.starts_with('#'));
    headings
        .map(|line| {
            let words = line.trim_start_matches('#').trim().to_lowercase();
            let kept = words.chars().filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'));
            kept.map(|c| if c == ' ' { '-' } else { c }).collect()
        })
        .collect()
}
