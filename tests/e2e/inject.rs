//! `selvedge inject` and `uninject`, on manifests that people have; and that whatever injection sets is a
//! setting of the binary that gets it.

use std::{
    fs,
    io::Write,
    path::{Path, PathBuf},
    process::{Command, Output, Stdio},
};

use clap::Parser;
use selvedge_control_plane::inject::{
    SETTINGS, Setting,
    annotations::{Acts, OF_GATEWAYS, Values},
};

const SELVEDGE: &str = env!("CARGO_BIN_EXE_selvedge");
const ROOT: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

/// Manifests with pods of every kind; see SOURCES.md there.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/e2e/manifests");

fn manifests() -> Vec<PathBuf> {
    let entries = fs::read_dir(MANIFESTS).unwrap().map(|entry| entry.unwrap().path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|end| end == "yaml")).collect();
    files.sort();
    files
}

fn run(arguments: &[&str], input: &str) -> Output {
    let mut command = Command::new(SELVEDGE);
    command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Who refuses at once reads nothing.
    let _ = child.stdin.take().unwrap().write_all(input.as_bytes());
    child.wait_with_output().unwrap()
}

fn inject(input: &str, more: &[&str]) -> (String, String) {
    let arguments = [&["inject", "-f", "-", "--trust-roots", ROOT], more].concat();
    let output = run(&arguments, input);
    let [stdout, stderr] = [output.stdout, output.stderr].map(|text| String::from_utf8(text).unwrap());
    assert!(output.status.success(), "{stderr}");
    (stdout, stderr)
}

fn documents(yaml: &str) -> Vec<serde_json::Value> {
    let options = serde_saphyr::options! { legacy_octal_numbers: true };
    serde_saphyr::from_multiple_with_options(yaml, options).unwrap()
}

#[test]
fn every_manifest_is_injected_as_its_snapshot_says() {
    for path in manifests() {
        let name = path.file_stem().unwrap().to_str().unwrap().to_owned();
        let (output, told) = inject(&fs::read_to_string(&path).unwrap(), &[]);
        let version = format!("selvedge.io/injected: \"{}\"", env!("CARGO_PKG_VERSION"));
        assert!(output.contains(&version), "{name}");
        let output = output.replace(&version, "selvedge.io/injected: VERSION");
        // The images' tag is the version too, as `install` has it.
        let tag = |image: &str| format!("{image}:{}", env!("CARGO_PKG_VERSION"));
        assert!(
            output.contains(&tag("selvedge-proxy")) || !output.contains("name: selvedge-proxy"),
            "{name}"
        );
        let output = ["selvedge-proxy", "selvedge-init"]
            .iter()
            .fold(output, |output, image| output.replace(&tag(image), &format!("{image}:VERSION")));

        insta::with_settings!({ snapshot_path => "manifests/snapshots", prepend_module_to_snapshot => false }, {
            insta::assert_snapshot!(name.clone(), output);
            insta::assert_snapshot!(format!("{name}-told"), told);
        });
    }
}

#[test]
fn what_was_injected_is_taken_out_again_and_everything_else_is_as_it_was() {
    for path in manifests() {
        let original = fs::read_to_string(&path).unwrap();
        for more in [&[] as &[&str], &["--native-sidecars=false"]] {
            let (injected, _) = inject(&original, more);
            let output = run(&["uninject", "-f", "-"], &injected);

            let reverted = String::from_utf8(output.stdout).unwrap();
            assert_eq!(documents(&reverted), documents(&original), "{}", path.display());
        }
    }
}

#[test]
fn what_was_injected_is_injected_no_second_time() {
    for path in manifests() {
        let (once, _) = inject(&fs::read_to_string(&path).unwrap(), &[]);

        assert_eq!(inject(&once, &[]).0, once, "{}", path.display());
    }
}

#[test]
fn a_setting_that_cannot_be_meant_prints_nothing_and_fails() {
    let pod = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    config.selvedge.io/workers: none\n\
               spec:\n  containers: []\n";

    let output = run(&["inject", "-f", "-", "--trust-roots", ROOT], pod);

    let stderr = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), output.stdout.len()), (Some(1), 0), "{stderr}");
    assert!(stderr.contains("Pod a: refused") && stderr.contains("config.selvedge.io/workers"), "{stderr}");
}

/// Istio's samples, in the directory beside the checkout where the acceptance documents are; a plain clone has none.
#[test]
fn every_sample_that_is_there_survives_being_injected_and_back() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/acceptance-yaml/istio");
    let mut directories = vec![shared.join("samples"), shared.join("inject")];
    let mut files = 0;
    while let Some(directory) = directories.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                directories.push(path);
            } else if path.extension().is_some_and(|end| end == "yaml") {
                files += 1;
                let original = fs::read_to_string(&path).unwrap();
                let (injected, _) = inject(&original, &[]);
                let reverted = String::from_utf8(run(&["uninject", "-f", "-"], &injected).stdout).unwrap();
                assert_eq!(documents(&reverted), documents(&original), "{}", path.display());
            }
        }
    }
    println!("{files} files below {}", shared.display());
}

/// All templates of pods in `document`, and pods.
fn templates(document: &serde_json::Value) -> Vec<serde_json::Value> {
    if let Some(items) = document["items"].as_array() {
        return items.iter().flat_map(templates).collect();
    }
    let places = ["/spec/template", "/spec/jobTemplate/spec/template"];
    let template = places.iter().find_map(|place| document.pointer(place));
    let pod = || serde_json::json!({ "metadata": document["metadata"], "spec": document["spec"] });
    match template {
        Some(template) => vec![template.clone()],
        None if document["kind"] == "Pod" => vec![pod()],
        None => Vec::new(),
    }
}

/// What Kubernetes' types do not have they lose on the way through.
#[test]
fn what_was_injected_has_only_fields_that_kubernetes_has() {
    let mut seen = 0;
    for path in manifests() {
        let original = fs::read_to_string(&path).unwrap();
        for more in [&[] as &[&str], &["--native-sidecars=false"]] {
            for template in documents(&inject(&original, more).0).iter().flat_map(templates) {
                let typed: k8s_openapi::api::core::v1::PodTemplateSpec =
                    serde_json::from_value(template.clone()).unwrap();

                assert_eq!(serde_json::to_value(typed).unwrap(), template, "{}", path.display());
                seen += 1;
            }
        }
    }
    assert!(seen >= 20, "{seen}");
}

#[derive(Debug, Parser)]
struct Proxy {
    #[command(flatten)]
    args: selvedge_proxy::cli::Args,
}

#[derive(Debug, Parser)]
struct Init {
    #[command(flatten)]
    args: selvedge_init::Args,
}

/// The flag of the program `P` that is set by the variable `env`.
fn flag<P: Parser>(env: &str) -> String {
    let command = P::command();
    let mut arguments = command.get_arguments();
    let argument = arguments.find(|argument| argument.get_env().is_some_and(|found| found == env));
    let argument = argument.unwrap_or_else(|| panic!("{env} is no variable of {}", command.get_name()));
    format!("--{}", argument.get_long().unwrap())
}

/// What is written for a setting that is right, and what is wrong with one that is not.
fn examples(setting: &Setting) -> (&'static str, &'static [&'static str]) {
    match setting.values {
        Values::Image => ("registry.example/a:1", &[""]),
        Values::Name => ("collector-ca", &["A", "a,b", ""]),
        Values::Names => ("registry,mirror", &["A", "a,,b", "-a"]),
        Values::OneOf(words) => (words[0], &["maybe"]),
        Values::PortNumbers => ("25,3306", &["no", "25-30"]),
        Values::Ports => ("25,8000-8010", &["0", "70000", "9-8", "x"]),
        Values::Networks => ("10.0.0.0/8,fd00::1", &["10.0.0.0/33", "x"]),
        Values::Time => ("1m 30s", &["5", "x", "-1s"]),
        Values::Number(..) => ("7", &["x", "-1", "1.5"]),
        Values::Amount => ("64Mi", &["64 Mi"]),
        Values::LogFilter => ("info,selvedge_proxy=debug", &["x=loud"]),
        Values::AccessLog => ("json,otlp", &["file", ""]),
        Values::Expression => ("response.code >= 500", &["code"]),
        Values::Share => ("1.5", &["101", "all"]),
        Values::Collector => (
            "http://collector.observability:4317",
            &["grpc://collector:4317", "collector:4317", "http://a@b", "http://c?d"],
        ),
    }
}

#[test]
fn every_setting_is_checked_as_the_binary_that_gets_it_checks() {
    let init = ["init".to_owned()];
    for setting in &SETTINGS {
        let kind = if OF_GATEWAYS.contains(&setting.name) { "--gateway" } else { "--redirected" };
        let proxy = ["proxy", "--workload=a/b", "--token-file=t", kind].map(str::to_owned);
        let parse = |value: &str| -> Option<Result<(), String>> {
            let value = match value {
                "enabled" => return None,
                value => value,
            };
            match setting.acts {
                Acts::Proxy(env) => {
                    let argument = format!("{}={value}", flag::<Proxy>(env));
                    let parsed = Proxy::try_parse_from(proxy.iter().chain([&argument]));
                    Some(parsed.map(drop).map_err(|error| error.to_string()))
                }
                Acts::Init(env) => {
                    let argument = format!("{}={value}", flag::<Init>(env));
                    let parsed = Init::try_parse_from(init.iter().chain([&argument]));
                    Some(parsed.map(drop).map_err(|error| error.to_string()))
                }
                Acts::Patch | Acts::ControlPlane | Acts::Live => None,
            }
        };
        let (right, wrong) = examples(setting);

        assert_eq!(setting.check(right), Ok(()), "{}", setting.name);
        assert!(parse(right).is_none_or(|parsed| parsed.is_ok()), "{}: {:?}", setting.name, parse(right));
        for value in wrong {
            assert!(setting.check(value).is_err(), "{}={value}", setting.name);
            // A filter of logs is looked at when logging begins.
            let late = setting.values == Values::LogFilter;
            assert!(late || parse(value).is_none_or(|parsed| parsed.is_err()), "{}={value}", setting.name);
        }
    }
}

#[test]
fn a_sidecar_starts_with_the_environment_that_it_is_injected_with() {
    let probe = "apiVersion: v1\nkind: Pod\nmetadata:\n  name: a\n  annotations:\n    prometheus.io/scrape: \"true\"\n    \
                 prometheus.io/port: \"9102\"\n    config.selvedge.io/ingress: enabled\nspec:\n  containers:\n  - name: app\n    \
                 livenessProbe: { httpGet: { port: 80 } }\n";
    let (injected, _) = inject(probe, &[]);
    let pod = documents(&injected).remove(0);
    let containers = pod["spec"]["initContainers"].as_array().unwrap();
    let env = containers[1]["env"].as_array().unwrap();
    let mut known: Vec<(String, String)> =
        vec![("$(POD_NAME)".into(), "a".into()), ("$(POD_NAMESPACE)".into(), "shop".into())];
    known.push(("$$".into(), "$".into()));

    // As the kubelet would start it, but for a control plane that is not there, and free ports.
    let mut command = Command::new(env!("CARGO_BIN_EXE_selvedge-proxy"));
    command.env_clear().args(["--outbound=127.0.0.1:0", "--inbound=127.0.0.1:0", "--admin=127.0.0.1:0"]);
    command.arg("--exit-on-stdin-close").stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    for variable in env {
        let name = variable["name"].as_str().unwrap();
        let value = match variable["value"].as_str() {
            Some(value) => known.iter().fold(value.to_owned(), |text, (from, to)| text.replace(from, to)),
            None if name == "SELVEDGE_APP_ADDRESS" => "127.0.0.1".to_owned(),
            None => continue,
        };
        assert!(name.starts_with("SELVEDGE_"), "{name}");
        flag::<Proxy>(name);
        command.env(name, value);
    }
    let mut child = command.spawn().unwrap();
    let mut lines = std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
    let admin = lines.by_ref().map_while(Result::ok).find(|line| line.contains("admin"));
    drop(child.stdin.take());
    let output = child.wait_with_output().unwrap();
    assert!(admin.is_some(), "{}", String::from_utf8_lossy(&output.stderr));
}

#[test]
fn a_directory_of_manifests_names_where_they_come_from() {
    let sources = fs::read_to_string(Path::new(MANIFESTS).join("SOURCES.md")).unwrap();

    for path in manifests() {
        let name = path.file_name().unwrap().to_str().unwrap().to_owned();
        assert!(sources.contains(&format!("`{name}`")), "{name} is not in SOURCES.md");
    }
}
