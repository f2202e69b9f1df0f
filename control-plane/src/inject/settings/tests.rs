use clap::Parser;

use super::*;

#[derive(Debug, Parser)]
struct Program {
    #[command(flatten)]
    args: InjectArgs,
}

fn parsed(arguments: &[&str]) -> Result<InjectionSettings, String> {
    let arguments = ["control-plane"].iter().chain(arguments);
    let program = Program::try_parse_from(arguments).map_err(|error| error.to_string())?;
    Ok(program.args.settings(Vec::new(), TrustDomain::default(), "selvedge"))
}

#[test]
fn amounts_compare_whatever_their_units() {
    let amount = |text: &str| text.parse::<Quantity>().unwrap_or_else(|error| panic!("{text}: {error}"));

    for (less, more) in [("100m", "0.5"), ("64Mi", "1Gi"), ("1M", "1Mi"), ("999", "1k"), ("1e2", "101")] {
        assert!(amount(less) < amount(more), "{less} {more}");
    }
    assert_eq!(amount("1500m"), amount("1.5"));
    assert_eq!(amount("1Ki"), amount("1024"));
    assert_eq!(amount("12E"), amount("12e18"));
    for wrong in ["", "m", "1x", "-1", "1 Gi", "1.2.3", "1K", "1e99", "."] {
        assert!(wrong.parse::<Quantity>().is_err(), "{wrong}");
    }
}

#[test]
fn any_setting_of_pods_has_a_default_for_all_of_them() {
    let settings = parsed(&["--inject-default=log-level=warn", "--native-sidecars=false"]).unwrap();

    assert_eq!(settings.defaults["log-level"], "warn");
    assert_eq!(settings.defaults["native-sidecar"], "disabled");
    assert_eq!(settings.defaults["proxy-cpu-request"], "10m");
}

#[test]
fn sidecars_are_native_where_the_cluster_knows_them() {
    let native = |arguments: &[&str], version: Option<&str>| {
        let program = Program::parse_from(["control-plane"].iter().chain(arguments));
        let version = version.and_then(Version::parse);
        program.args.settings_on(version, Vec::new(), TrustDomain::default(), "selvedge").are_native()
    };

    assert!(native(&[], None), "of which nothing is known");
    assert!(native(&[], Some("v1.29.0")) && native(&[], Some("v1.33.1+k3s1")));
    assert!(!native(&[], Some("v1.28.9")) && !native(&[], Some("v1.20.2")));
    assert!(native(&["--native-sidecars=true"], Some("v1.28.9")));
    assert!(!native(&["--native-sidecars=false"], Some("v1.33.1")));
    assert!(native(&["--inject-default=native-sidecar=enabled"], Some("v1.20.2")));
}

#[test]
fn a_default_that_cannot_be_meant_is_refused_where_it_is_typed() {
    for (argument, reason) in [
        ("--inject-default=log-level", "NAME=VALUE"),
        ("--inject-default=workers=0", "from 1 to 256"),
        ("--inject-default=worker=2", "config.selvedge.io/workers is one"),
        ("--inject-default=opaque-ports=25", "for one app"),
        ("--image-pull-policy=always", "possible values"),
    ] {
        let error = parsed(&[argument]).unwrap_err();
        assert!(error.contains(reason), "{argument}: {error}");
    }
}
