//! Whom `Ingress`es let in by name and password.

use selvedge_model::gateway::{UserListForm, UserListName};

use super::*;
use crate::compile::WantedObject;

/// A Secret whose `key` is this.
fn secret(key: &str, text: &str) -> String {
    format!("apiVersion: v1\nkind: Secret\nmetadata: {{name: users}}\nstringData:\n  {key}: '{text}'\n---\n")
}

const BASIC: &[(&str, &str)] = &[("auth-type", "basic"), ("auth-secret", "users"), ("auth-realm", "shop")];
const ANN: &str = "ann:{SHA}5en6G6MezRroT3XKqkdPOmY/BfQ=";

/// Whom the rule for `/` lets in.
fn asked(mesh: &Mesh) -> Option<String> {
    let (_, rule) = rule(mesh, "a.example.com", "/", &[])?;
    let basic = rule.filters.basic.as_ref()?;
    let list = &edge(mesh).user_lists[&basic.users];
    let users: Vec<&str> = list.reveal().map(|(name, _)| name).collect();
    Some(format!("{}: {}", basic.realm, users.join(", ")))
}

#[test]
fn the_users_of_the_secret_are_let_in_and_go_to_the_gateway_alone() {
    let (mesh, problems) = served(&(secret("auth", ANN) + &whole(BASIC)));
    assert_eq!(problems, []);
    assert_eq!(asked(&mesh).as_deref(), Some("shop: ann"));
    assert_eq!(sent_to(&mesh, "a.example.com", "/", &[]), "app1-service 1");
    let shown = format!("{mesh:?}")
        + &serde_json::to_string(&edge(&mesh).virtual_hosts.values().collect::<Vec<_>>()).unwrap();
    assert!(!shown.contains("5en6G6"), "a hash is shown");

    let map = [BASIC, &[("auth-secret-type", "auth-map")]].concat();
    let (mesh, problems) = served(&(secret("bob", "{PLAIN}x") + &whole(&map)));
    assert_eq!(problems, []);
    assert_eq!(asked(&mesh).as_deref(), Some("shop: bob"));

    let (mesh, _) = served(&(secret("auth", ANN) + &whole(&[])));
    assert_eq!(asked(&mesh), None);
    assert!(edge(&mesh).user_lists.is_empty(), "nobody names the Secret");
}

#[test]
fn a_secret_that_cannot_be_used_has_nobody_answered_and_both_documents_say_so() {
    for (documents, annotations, field, says) in [
        (String::new(), BASIC, None, "there is no Secret default/users"),
        (
            secret("other", "x"),
            BASIC,
            Some("stringData"),
            "no user of the Secret default/users can be let in",
        ),
        (
            secret("auth", "ann:secret"),
            BASIC,
            Some("stringData[auth]"),
            "no user of the Secret default/users",
        ),
        (
            secret("auth", ANN),
            &[("auth-type", "basic"), ("auth-secret", "other/users")],
            None,
            "is in the namespace other; name a Secret of default",
        ),
    ] {
        let (mesh, problems) = served(&(documents + &whole(annotations)));

        let answer = sent_to(&mesh, "a.example.com", "/", &[]);
        assert!(answer.contains(says), "{answer}");
        let told: Vec<_> =
            problems.iter().map(|problem| (problem.field.as_str(), &*problem.message)).collect();
        let at_ingress = "metadata.annotations[nginx.ingress.kubernetes.io/auth-secret]";
        assert!(told.iter().any(|(field, told)| *field == at_ingress && told.contains(says)), "{told:?}");
        let at_secret: Vec<_> = told.iter().map(|(field, _)| *field).filter(|at| *at != at_ingress).collect();
        assert_eq!(at_secret, field.into_iter().collect::<Vec<_>>(), "{told:?}");
        assert!(!format!("{told:?}").contains("ann:secret"), "{told:?}");
        assert!(edge(&mesh).user_lists.is_empty());
    }
}

#[test]
fn one_user_whose_hash_is_unknown_is_told_of_once_and_the_others_are_let_in() {
    let file = format!("{ANN}\n\n  eve:rqXexS6ZhobKA");
    let text = secret("auth", &file)
        + &whole(BASIC)
        + &ingress("more", BASIC, &host("b.example.com", &[path("Prefix", "/", "app1-service")]));
    let (mesh, problems) = served(&text);

    assert_eq!(asked(&mesh).as_deref(), Some("shop: ann"));
    assert_eq!(problems.len(), 1, "{problems:?}");
    assert!(problems[0].message.contains("line 2 has a hash of crypt"), "{problems:?}");
    assert!(problems[0].line.is_some());
}

#[test]
fn redirects_ask_for_no_password_and_canaries_ask_as_their_ingress_does() {
    for more in [("permanent-redirect", "/new"), ("force-ssl-redirect", "true")] {
        let (mesh, _) = served(&(secret("auth", ANN) + &whole(&[BASIC, &[more]].concat())));
        assert_eq!(asked(&mesh), None, "as in nginx: {more:?}");
    }
    let paths = [path("Prefix", "/", "app2-service")];
    let canary = ingress(
        "canary",
        &[("canary", "true"), ("canary-by-header", "x-new"), ("auth-type", "basic"), ("auth-secret", "gone")],
        &host("a.example.com", &paths),
    );
    for (main, severity, told) in [
        (BASIC, Severity::Warning, "says who may ask; remove it"),
        (&[][..], Severity::Error, "asks nobody for a password; write auth-type and auth-secret there"),
    ] {
        let (mesh, problems) = served(&(secret("auth", ANN) + &whole(main) + &canary));
        let [problem] = &problems[..] else { panic!("{problems:?}") };
        assert_eq!(problem.severity, severity, "{problem:?}");
        assert_eq!(problem.field, "metadata.annotations[nginx.ingress.kubernetes.io/auth-type]");
        assert!(problem.message.contains(told), "{problem:?}");
        let (_, rule) = rule(&mesh, "a.example.com", "/", &[("x-new", "always")]).unwrap();
        assert_eq!(rule.filters.basic.is_some(), !main.is_empty());
    }
}

#[test]
fn secrets_are_wanted_only_of_the_own_namespace() {
    let wanted = |annotations: &[(&str, &str)]| {
        let (all, _) = resources(&whole(annotations));
        wanted_objects(&all, "istio-system")
    };
    let users = WantedObject { kind: "Secret", namespace: "default".into(), name: "users".into() };
    assert!(wanted(BASIC).contains(&users));
    assert!(wanted(&[("auth-type", "basic"), ("auth-secret", "other/users")]).is_empty());
    let name = UserListName::new("default", "users", UserListForm::File);
    assert_eq!(name.secret(), "default/users");
}

#[test]
fn a_password_for_an_older_ingress_is_not_shown_to_another_namespaces_app_under_the_same_host() {
    let asking =
        |name: &str| ingress(name, BASIC, &host("a.example.com", &[path("Prefix", "/", "app1-service")]));
    let other = |namespace: &str| {
        ingress("i", &[], &host("a.example.com", &[path("Prefix", "/deeper", "app1-service")]))
            .replace("name: i,", &format!("name: i, namespace: {namespace},"))
    };
    let removed = |documents: String| {
        let (mesh, problems) = served(&(secret("auth", ANN) + &documents));
        let (_, rule) = rule(&mesh, "a.example.com", "/deeper", &[]).unwrap();
        let told: Vec<String> = problems
            .iter()
            .filter(|problem| problem.message.contains("passwords"))
            .map(|problem| format!("{}: {}", problem.document.as_ref().unwrap(), problem.message))
            .collect();
        (rule.filters.request_headers.remove.clone(), told)
    };

    let (names, told) = removed(asking("a") + &other("evil"));
    assert_eq!(names, ["authorization"]);
    assert!(told[0].starts_with("Ingress evil/i: Ingress default/a of another namespace asks"), "{told:?}");
    assert_eq!(told.len(), 1);

    // Who comes later takes nothing from who was there before.
    let (names, told) = removed(other("evil") + &asking("a"));
    assert!(names.is_empty());
    assert!(told[0].starts_with("Ingress default/a: browsers send the passwords"), "{told:?}");
    assert_eq!(removed(asking("a") + &other("default")), (Vec::new(), Vec::new()));
}

#[test]
fn a_host_below_an_older_wildcard_that_asks_for_passwords_is_told_and_keeps_what_clients_send() {
    let wide = ingress("wide", BASIC, &host("*.example.com", &[path("Prefix", "/", "app1-service")]));
    let below = |namespace: &str, at: &str| {
        ingress("i", &[], &host(at, &[path("Prefix", "/", "app1-service")]))
            .replace("name: i,", &format!("name: i, namespace: {namespace},"))
    };
    let told = |documents: String| {
        let (mesh, problems) = served(&(secret("auth", ANN) + &documents));
        let removed = rule(&mesh, "a.example.com", "/", &[])
            .is_some_and(|(_, rule)| !rule.filters.request_headers.remove.is_empty());
        let told = problems.into_iter().map(|problem| problem.message);
        (removed, told.filter(|message| message.contains("browsers")).collect::<Vec<_>>())
    };

    let (removed, words) = told(wide.clone() + &below("evil", "a.example.com"));
    assert!(!removed);
    assert_eq!(words.len(), 1, "{words:?}");
    assert!(words[0].starts_with("Ingress default/wide of another namespace is older and asks"), "{words:?}");
    for fine in [
        below("evil", "a.example.com") + &wide,
        wide.clone() + &below("default", "a.example.com"),
        wide.clone() + &below("evil", "a.b.example.com"),
        wide.clone() + &below("evil", "a.example.org"),
    ] {
        assert_eq!(told(fine.clone()), (false, Vec::new()), "{fine}");
    }
}
