//! Whom `Ingress`es let in by name and password: the users of the Secrets that they name.

use std::{
    collections::{BTreeMap, BTreeSet, btree_map::Entry},
    sync::Arc,
};

use selvedge_model::{
    filter::BasicAuth,
    gateway::{UserList, UserListName},
};

use super::{
    super::{
        super::{Problems, certificates::Certificates},
        WantedObject,
    },
    Ingress,
};
use crate::{
    problem::{DocumentName, Severity},
    resources::{
        ingress::nginx::{AUTH_SECRET, AUTH_TYPE, Passwords, annotation},
        secret::{Unreadable, Users, users},
    },
};

/// The users that `Ingress`es let in.
pub(super) struct AllUsers<'a> {
    lists: BTreeMap<UserListName, Option<Arc<UserList>>>,
    /// Why nobody can be let in as these ask.
    unusable: BTreeMap<&'a DocumentName, String>,
}

impl<'a> AllUsers<'a> {
    /// Those of `ours`. What cannot be used is reported. Of a canary, its other `Ingress` says who may ask.
    pub(super) fn new(
        ours: &[&'a Ingress],
        certificates: &Certificates<'_>,
        problems: &mut Problems,
    ) -> Self {
        let mut all = Self { lists: BTreeMap::new(), unusable: BTreeMap::new() };
        for (ingress, passwords) in asking(ours) {
            if let Err(why) = all.add(ingress, passwords, certificates, problems) {
                let field = annotation(AUTH_SECRET);
                let told = format!("{why} (so all requests to this Ingress are answered 500)");
                problems.error(ingress, &field, told);
                all.unusable.insert(&ingress.name, format!("{field}: {why}"));
            }
        }
        all
    }

    fn add(
        &mut self,
        ingress: &Ingress,
        passwords: &Passwords,
        certificates: &Certificates<'_>,
        problems: &mut Problems,
    ) -> Result<(), String> {
        let own = &*ingress.name.namespace;
        let secret = &passwords.secret;
        if let Some(other) = passwords.namespace.as_deref().filter(|namespace| *namespace != own) {
            return Err(format!(
                "is in the namespace {other}; name a Secret of {own}, where this Ingress is"
            ));
        }
        let Some(document) = certificates.secret(own, secret) else {
            return Err(format!(
                "there is no Secret {own}/{secret}; add one with the users, or correct the name"
            ));
        };
        let name = UserListName::new(own, secret, passwords.form);
        let list = match self.lists.entry(name.clone()) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => {
                let read = users(&document.spec.rest, name, passwords.form);
                let (list, problems_of_it) = match read {
                    Ok(Users { list, left_out }) => (Some(Arc::new(list)), left_out),
                    Err(unreadable) => (None, unreadable),
                };
                for Unreadable { field, why } in problems_of_it {
                    problems.add(document.problem(Severity::Error, &field, why));
                }
                new.insert(list)
            }
        };
        match list {
            Some(_) => Ok(()),
            None => {
                Err(format!("no user of the Secret {own}/{secret} can be let in; look at what is said of it"))
            }
        }
    }

    /// Whom `ingress` lets in; `None`: it asks for no password.
    ///
    /// # Errors
    /// Why it can let in nobody.
    pub(super) fn of(&self, ingress: &Ingress) -> Result<Option<BasicAuth>, String> {
        let Some(Passwords { secret, form, realm, .. }) = &ingress.spec.nginx.passwords else {
            return Ok(None);
        };
        if let Some(why) = self.unusable.get(&ingress.name) {
            return Err(why.clone());
        }
        let users = UserListName::new(&ingress.name.namespace, secret, *form);
        Ok(Some(BasicAuth { realm: realm.clone(), users }))
    }

    /// All lists that can be used.
    pub(super) fn lists(&self) -> impl Iterator<Item = (UserListName, Arc<UserList>)> {
        self.lists.iter().filter_map(|(name, list)| Some((name.clone(), Arc::clone(list.as_ref()?))))
    }
}

/// Those of `ours` that ask for a password.
fn asking<'a>(ours: &[&'a Ingress]) -> impl Iterator<Item = (&'a Ingress, &'a Passwords)> {
    let own = ours.iter().filter(|ingress| ingress.spec.nginx.canary.is_none());
    own.filter_map(|ingress| Some((*ingress, ingress.spec.nginx.passwords.as_ref()?)))
}

/// Reports that `canary` says for nothing whom it lets in: `main`, whose requests it takes a part of, decides.
pub(super) fn report_canary(canary: &Ingress, main: &Ingress, problems: &mut Problems) {
    if canary.spec.nginx.passwords.is_none() {
        return;
    }
    let (field, name, location) = (annotation(AUTH_TYPE), &main.name, &main.location);
    if main.spec.nginx.passwords.is_some() {
        let message = format!("has no effect on a canary: {name} ({location}) says who may ask; remove it");
        return problems.warning(canary, &field, message);
    }
    let message = format!(
        "has no effect on a canary: {name} ({location}) says who may ask, and asks nobody for a password; write auth-type and \
         auth-secret there"
    );
    problems.error(canary, &field, message);
}

/// The Secrets that `ours` name.
pub(super) fn wanted(ours: &[&Ingress]) -> BTreeSet<WantedObject> {
    let permitted = asking(ours).filter(|(ingress, passwords)| {
        passwords.namespace.as_deref().is_none_or(|namespace| namespace == &*ingress.name.namespace)
    });
    let named = permitted.map(|(ingress, passwords)| {
        let (namespace, name) = (ingress.name.namespace.to_string(), passwords.secret.clone());
        WantedObject { kind: "Secret", namespace, name }
    });
    named.collect()
}
