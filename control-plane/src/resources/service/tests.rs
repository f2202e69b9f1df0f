use super::*;

#[test]
fn a_services_addresses_are_each_there_once() {
    let read = |single, list: &[&str]| {
        read_addresses(single, &list.iter().map(ToString::to_string).collect::<Vec<_>>())
    };
    let addresses = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect::<Vec<IpAddr>>();

    assert_eq!(
        read(Some("10.96.0.1"), &["10.96.0.1", "fd00::1"]).unwrap(),
        addresses(&["10.96.0.1", "fd00::1"])
    );
    assert_eq!(read(None, &["10.96.0.1"]).unwrap(), addresses(&["10.96.0.1"]));
    assert_eq!(read(Some("None"), &["None"]).unwrap(), addresses(&[]));
    assert_eq!(read(Some(""), &[]).unwrap(), addresses(&[]));
    assert!(read(Some("10.96.0"), &[]).is_err());
}

#[test]
fn a_ports_protocol_is_its_app_protocol_or_its_name() {
    assert_eq!(protocol_of(None, "http-admin", 80), Protocol::Http);
    assert_eq!(protocol_of(None, "grpc", 80), Protocol::Http2);
    assert_eq!(protocol_of(Some("kubernetes.io/h2c"), "http", 80), Protocol::Http2);
    assert_eq!(protocol_of(Some("example.com/own"), "tcp-x", 80), Protocol::Tcp);
    assert_eq!(protocol_of(None, "", 80), Protocol::Unspecified);
    assert_eq!(protocol_of(None, "", 3306), Protocol::Tcp, "a server that speaks first");
}
