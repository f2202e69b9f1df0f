//! `whitelist-source-range` (also called `allowlist-source-range`) and `denylist-source-range`.

use selvedge_model::{
    filter::Sources,
    policy::{AddressSet, address::block},
};

use super::Annotations;

/// Who may ask, by address. As in nginx, who is denied is so although allowed, too.
pub(super) fn read(annotations: &mut Annotations<'_>) -> Option<Sources> {
    let named = ["allowlist-source-range", "whitelist-source-range"];
    let [allow, white] = named.map(|name| addresses(annotations, name));
    let denied = addresses(annotations, "denylist-source-range");
    if allow.is_some() && white.is_some() {
        annotations.wrong(named[1], format!("says the same as {}; keep one of them", named[0]));
    }
    let allowed = allow.or(white);
    (allowed.is_some() || denied.is_some()).then(|| Sources { allowed, denied: denied.unwrap_or_default() })
}

pub(super) fn addresses(annotations: &mut Annotations<'_>, name: &str) -> Option<AddressSet> {
    let text = annotations.text(name)?;
    let mut blocks = Vec::new();
    for word in text.split(',').map(str::trim).filter(|word| !word.is_empty()) {
        match block(word) {
            Some(block) => blocks.push(block),
            None => {
                let message = format!(
                    "{word:?} is neither an address nor a block; write for example 10.0.0.0/8,192.0.2.1"
                );
                annotations.wrong(name, message);
            }
        }
    }
    Some(AddressSet::new(blocks))
}
