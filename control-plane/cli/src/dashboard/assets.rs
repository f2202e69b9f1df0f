//! The files that pages need. Their names change with what is in them, so that browsers may keep them.

use std::{
    hash::{DefaultHasher, Hash as _, Hasher as _},
    sync::LazyLock,
};

/// One file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asset {
    /// What it is called without its version.
    name: &'static str,
    pub(super) media_type: &'static str,
    pub(super) content: &'static str,
}

const ALL: [Asset; 3] = [
    Asset { name: "style.css", media_type: "text/css; charset=utf-8", content: include_str!("style.css") },
    Asset { name: "live.js", media_type: "text/javascript; charset=utf-8", content: include_str!("live.js") },
    Asset { name: "icon.svg", media_type: "image/svg+xml", content: include_str!("icon.svg") },
];

/// Their names with their versions.
static NAMES: LazyLock<[String; ALL.len()]> = LazyLock::new(|| {
    ALL.map(|asset| {
        let mut hasher = DefaultHasher::new();
        asset.content.hash(&mut hasher);
        let (stem, kind) = asset.name.split_once('.').unwrap_or((asset.name, ""));
        format!("{stem}-{:016x}.{kind}", hasher.finish())
    })
});

/// Where the file `name` is.
///
/// # Panics
/// If there is no such file.
pub(super) fn url(name: &str) -> String {
    let place = ALL.iter().position(|asset| asset.name == name).expect("one of our own files");
    format!("/dashboard/assets/{}", NAMES[place])
}

/// The file that has this name, with its version.
pub(super) fn find(name: &str) -> Option<Asset> {
    NAMES.iter().position(|known| known == name).map(|place| ALL[place])
}
