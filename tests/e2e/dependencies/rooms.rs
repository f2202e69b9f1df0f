//! Which modules of a crate import which, read from its source.

use std::{
    collections::{BTreeMap, BTreeSet},
    fs,
    path::Path,
};

/// Modules of a crate, side by side, in an order: each imports only those before it, so that there is no circle.
pub(super) struct Rooms<'a> {
    /// The crate's `src`, from the root of the workspace.
    pub(super) source: &'a str,
    /// The module that holds them; empty = the crate itself.
    pub(super) inside: &'a [&'a str],
    /// All of them, the one that imports no other first. Modules for tests are not counted.
    pub(super) order: &'a [&'a str],
}

impl Rooms<'_> {
    /// Holds the source to the order. Returns how many imports from one room to another there are.
    pub(super) fn check(&self) -> usize {
        let source = workspace().join(self.source);
        let modules = modules(&source);
        let room = |path: &[String]| {
            let inside = path.len() > self.inside.len() && path.iter().zip(self.inside).all(|(a, b)| a == b);
            inside.then(|| path[self.inside.len()].clone())
        };
        let rooms: BTreeSet<String> = modules.keys().filter_map(|path| room(path)).collect();
        let listed: BTreeSet<String> = self.order.iter().map(ToString::to_string).collect();
        assert_eq!(rooms, listed, "the modules in {}: list each, in its place", self.source);
        assert_eq!(listed.len(), self.order.len(), "the modules in {}: list each once", self.source);

        let mut count = 0;
        let mut upward = Vec::new();
        let place = |room: &String| self.order.iter().position(|listed| listed == room);
        for (path, imported) in &modules {
            let Some(own) = room(path) else { continue };
            for target in
                imported.iter().filter_map(|path| room(path)).filter(|target| rooms.contains(target))
            {
                count += usize::from(target != own);
                if place(&target) > place(&own) {
                    upward.push(format!("{} imports {target}, which comes after {own}", path.join("::")));
                }
            }
        }
        assert!(upward.is_empty(), "in the order of {}: {upward:#?}", self.source);
        count
    }
}

pub(super) fn workspace() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../.."))
}

type ModulePath = Vec<String>;

/// Every module below `source` but those for tests, and the paths that it names.
fn modules(source: &Path) -> BTreeMap<ModulePath, BTreeSet<ModulePath>> {
    let mut texts = BTreeMap::new();
    read(source, &Vec::new(), &mut texts);
    let tests: Vec<ModulePath> = texts.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    texts.retain(|path, _| !tests.iter().any(|test| path.starts_with(test)));
    let paths = |(path, text): (ModulePath, String)| {
        let named = paths(&path, &tokens(before_tests(&text)));
        (path, named)
    };
    texts.into_iter().map(paths).collect()
}

fn read(directory: &Path, inside: &ModulePath, texts: &mut BTreeMap<ModulePath, String>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_stem().and_then(|name| name.to_str()).unwrap().to_owned();
        let below = || inside.iter().cloned().chain([name.clone()]).collect::<ModulePath>();
        if path.is_dir() {
            // `src/bin` and the like are not modules of the crate.
            if name != "bin" {
                read(&path, &below(), texts);
            }
        } else if path.extension().is_some_and(|extension| extension == "rs") && name != "main" {
            let own = if name == "mod" || name == "lib" { inside.clone() } else { below() };
            texts.insert(own, fs::read_to_string(&path).unwrap());
        }
    }
}

/// The files that `text`, the module `path`, has for tests alone.
fn test_modules(path: &ModulePath, text: &str) -> Vec<ModulePath> {
    let after = text.split("#[cfg(test)]").skip(1);
    let names = after.filter_map(|rest| {
        let (line, _) = rest.trim_start().split_once('\n').unwrap_or((rest.trim(), ""));
        let name = line.strip_suffix(';')?.rsplit_once("mod ")?.1;
        Some(path.iter().cloned().chain([name.to_owned()]).collect())
    });
    names.collect()
}

/// Tests inside a file stand at its end.
fn before_tests(text: &str) -> &str {
    text.split("#[cfg(test)]\nmod tests {").next().unwrap_or(text)
}

/// The names and signs of `text`, without comments and texts.
fn tokens(text: &str) -> Vec<String> {
    let mut tokens: Vec<String> = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let length = match first {
            '/' if rest.starts_with("//") => rest.find('\n').unwrap_or(rest.len()),
            '"' => text_length(rest),
            'r' if rest.starts_with("r\"") => rest[2..].find('"').map_or(rest.len(), |end| end + 3),
            'r' if rest.starts_with("r#\"") => rest[3..].find("\"#").map_or(rest.len(), |end| end + 5),
            '\'' if rest.starts_with("'\"'") => 3,
            '\'' if rest.starts_with("'\\\"'") => 4,
            _ if first.is_alphanumeric() || first == '_' => {
                let end = rest.find(|c: char| !c.is_alphanumeric() && c != '_').unwrap_or(rest.len());
                tokens.push(rest[..end].to_owned());
                end
            }
            _ if first.is_whitespace() => first.len_utf8(),
            ':' if rest.starts_with("::") => {
                tokens.push("::".to_owned());
                2
            }
            _ => {
                tokens.push(first.to_string());
                first.len_utf8()
            }
        };
        rest = &rest[length..];
    }
    tokens
}

/// The length of the text in quotes that `rest` begins with.
fn text_length(rest: &str) -> usize {
    let mut escaped = false;
    for (at, c) in rest.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    rest.len()
}

/// Every path in `tokens` that begins with `crate`, `self` or `super`, from the crate's root on; `own` is the module
/// that they stand in.
fn paths(own: &ModulePath, tokens: &[String]) -> BTreeSet<ModulePath> {
    let mut found = BTreeSet::new();
    let mut at = 0;
    while at + 1 < tokens.len() {
        let goes_on = at > 0 && tokens[at - 1] == "::";
        let begins = matches!(tokens[at].as_str(), "crate" | "self" | "super");
        at = match begins && !goes_on && tokens[at + 1] == "::" {
            true => follow(own.clone(), tokens, at, &mut found),
            false => at + 1,
        };
    }
    found
}

/// Notes the path, or the paths in braces, that begin at `at`, after `before`. Returns where they end.
fn follow(before: ModulePath, tokens: &[String], mut at: usize, found: &mut BTreeSet<ModulePath>) -> usize {
    let mut path = before;
    while let Some(token) = tokens.get(at) {
        match token.as_str() {
            "crate" => path.clear(),
            "self" => {}
            "super" => drop(path.pop()),
            "{" => {
                at += 1;
                while tokens.get(at).is_some_and(|token| token != "}") {
                    at = follow(path.clone(), tokens, at, found);
                    at += usize::from(tokens.get(at).is_some_and(|token| token == ","));
                }
                return at + 1;
            }
            "*" => {}
            name => path.push(name.to_owned()),
        }
        at += 1;
        match tokens.get(at).map(String::as_str) {
            Some("::") => at += 1,
            Some("as") => {
                at += 2;
                break;
            }
            _ => break,
        }
    }
    found.insert(path);
    at
}

#[test]
fn paths_are_found_in_groups_of_groups_and_in_code_and_not_in_comments_and_texts() {
    let text = "use super::{\n    super::{Problems, services::KnownHost},\n    Port,\n};\n\
                // crate::comment::A\nuse crate::{a::b as c, d};\n\
                fn f() { let x = \"crate::text::A\"; crate::e::g(x) }\n";
    let own: ModulePath = ["compile", "routes", "backends"].map(str::to_owned).to_vec();

    let found: Vec<String> = paths(&own, &tokens(text)).iter().map(|path| path.join("::")).collect();

    assert_eq!(
        found,
        ["a::b", "compile::Problems", "compile::routes::Port", "compile::services::KnownHost", "d", "e::g"]
    );
}
