//! What a gateway serves, and the certificates that it shows.

use std::{fmt, net::IpAddr};

use selvedge_model::{
    ServiceKey,
    gateway::{
        Carries, ClientValidation, GatewayPort, GatewayRole, HostPattern, Hostname, Listener, ListenerTls,
        PasswordHash, PrivateKey, ServerCertificate, Termination, UserList, VirtualHost,
    },
};

use super::{ConvertError, all, invalid, parse, port, required};
use crate::wire::{self, listener::Tls};

impl From<&GatewayRole> for wire::GatewayRole {
    fn from(role: &GatewayRole) -> Self {
        Self {
            name: role.name.to_string(),
            address: role.address.map(|address| address.to_string()),
            ports: role.ports.iter().map(|(called, listens)| ((*called).into(), (*listens).into())).collect(),
        }
    }
}

impl TryFrom<wire::GatewayRole> for GatewayRole {
    type Error = ConvertError;

    fn try_from(role: wire::GatewayRole) -> Result<Self, ConvertError> {
        let address = role.address.map(|text| parse::<IpAddr>("gateway's address", &text)).transpose()?;
        let ports = role.ports.into_iter();
        let ports = ports.map(|(called, listens)| {
            // 0: any that is free.
            let own = if listens == 0 { 0 } else { port("gateway's own port", listens)? };
            Ok((port("gateway's port", called)?, own))
        });
        let ports = ports.collect::<Result<_, ConvertError>>()?;
        Ok(Self { name: role.name.into(), address, ports })
    }
}

impl From<&GatewayPort> for wire::GatewayPort {
    fn from(served: &GatewayPort) -> Self {
        let carries = match served.carries {
            Carries::Http => wire::Carries::Http,
            Carries::Tls => wire::Carries::Tls,
            Carries::Tcp => wire::Carries::Tcp,
        };
        Self {
            port: served.port.into(),
            carries: carries.into(),
            listeners: served.listeners.iter().map(Into::into).collect(),
            to_backends: served.to_backends.as_ref().map(ToString::to_string),
        }
    }
}

impl TryFrom<wire::GatewayPort> for GatewayPort {
    type Error = ConvertError;

    fn try_from(served: wire::GatewayPort) -> Result<Self, ConvertError> {
        let carries = match wire::Carries::try_from(served.carries) {
            Ok(wire::Carries::Http) => Carries::Http,
            Ok(wire::Carries::Tls) => Carries::Tls,
            Ok(wire::Carries::Tcp) => Carries::Tcp,
            Ok(wire::Carries::Unspecified) | Err(_) => {
                let field = "what a gateway's port carries";
                return Err(ConvertError::Unknown { field, value: served.carries });
            }
        };
        let listeners: Vec<Listener> = all(served.listeners)?;
        if listeners.iter().any(|listener| listener.tls.is_some() != (carries == Carries::Tls)) {
            let text = format!("{carries:?}");
            return Err(invalid(
                "what a gateway's port carries",
                &text,
                &"its listeners say otherwise of TLS",
            ));
        }
        let to_backends = served.to_backends.map(|name| parse("certificate's name", &name)).transpose()?;
        Ok(Self::new(port("gateway's port", served.port)?, carries, listeners).showing(to_backends))
    }
}

impl From<&Listener> for wire::Listener {
    fn from(listener: &Listener) -> Self {
        Self {
            name: listener.name.to_string(),
            hostname: listener.hostname.to_string(),
            tls: listener.tls.as_ref().map(|tls| match tls {
                ListenerTls::Terminate(termination) => Tls::Terminate(termination.into()),
                ListenerTls::Passthrough => Tls::Passthrough(true),
            }),
            virtual_hosts: listener.virtual_hosts.iter().map(Into::into).collect(),
        }
    }
}

impl TryFrom<wire::Listener> for Listener {
    type Error = ConvertError;

    fn try_from(listener: wire::Listener) -> Result<Self, ConvertError> {
        let tls = match listener.tls {
            None => None,
            Some(Tls::Terminate(termination)) => Some(ListenerTls::Terminate(termination.try_into()?)),
            Some(Tls::Passthrough(true)) => Some(ListenerTls::Passthrough),
            Some(Tls::Passthrough(false)) => {
                return Err(invalid("listener's TLS", "passthrough: false", &"only true is known"));
            }
        };
        let hostname = hostname(&listener.hostname)?;
        Ok(Self::new(listener.name.into(), hostname, tls, all(listener.virtual_hosts)?))
    }
}

impl From<&Termination> for wire::Termination {
    fn from(termination: &Termination) -> Self {
        Self {
            certificates: termination.certificates.iter().map(ToString::to_string).collect(),
            clients: termination.clients.as_ref().map(|clients| wire::ClientValidation {
                roots: clients.roots.iter().cloned().map(Into::into).collect(),
                optional: clients.optional,
                subject_alt_names: clients.subject_alt_names.clone(),
            }),
            tls12: termination.tls12,
            http: termination.http,
        }
    }
}

impl TryFrom<wire::Termination> for Termination {
    type Error = ConvertError;

    fn try_from(termination: wire::Termination) -> Result<Self, ConvertError> {
        let names = termination.certificates.iter().map(|name| parse("certificate's name", name));
        Ok(Self {
            certificates: names.collect::<Result<_, _>>()?,
            clients: termination.clients.map(|clients| ClientValidation {
                roots: clients.roots.into_iter().map(Into::into).collect(),
                optional: clients.optional,
                subject_alt_names: clients.subject_alt_names,
            }),
            tls12: termination.tls12,
            http: termination.http,
        })
    }
}

impl From<&VirtualHost> for wire::VirtualHost {
    fn from(host: &VirtualHost) -> Self {
        Self { hostname: host.hostname.to_string(), service: Some((&host.service).into()) }
    }
}

impl TryFrom<wire::VirtualHost> for VirtualHost {
    type Error = ConvertError;

    fn try_from(host: wire::VirtualHost) -> Result<Self, ConvertError> {
        let service: ServiceKey = required("virtual host's rules", host.service)?.try_into()?;
        Ok(Self { hostname: hostname(&host.hostname)?, service })
    }
}

/// As it is displayed: `?.` stands for one label, and `~` before an expression.
fn hostname(text: &str) -> Result<Hostname, ConvertError> {
    if let Some(pattern) = text.strip_prefix('~') {
        let pattern = HostPattern::new(pattern).and_then(HostPattern::held);
        return pattern.map(Hostname::Like).map_err(|error| invalid("regular expression", text, &error));
    }
    match text.strip_prefix("?.") {
        Some(suffix) => {
            Hostname::of_ingress(&format!("*.{suffix}")).map_err(|error| invalid("host name", text, &error))
        }
        None => parse("host name", text),
    }
}

impl fmt::Debug for wire::ServerCertificate {
    /// Without the key.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ServerCertificate").field("name", &self.name).finish_non_exhaustive()
    }
}

impl From<&ServerCertificate> for wire::ServerCertificate {
    fn from(certificate: &ServerCertificate) -> Self {
        Self {
            name: certificate.name.to_string(),
            chain: certificate.chain.iter().cloned().map(Into::into).collect(),
            key: certificate.key.reveal().to_vec().into(),
        }
    }
}

impl TryFrom<wire::ServerCertificate> for ServerCertificate {
    type Error = ConvertError;

    fn try_from(certificate: wire::ServerCertificate) -> Result<Self, ConvertError> {
        Ok(Self {
            name: parse("certificate's name", &certificate.name)?,
            chain: certificate.chain.into_iter().map(Into::into).collect(),
            key: PrivateKey::new(certificate.key.into()),
        })
    }
}

impl fmt::Debug for wire::UserList {
    /// Without the users.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("UserList").field("name", &self.name).finish_non_exhaustive()
    }
}

impl fmt::Debug for wire::User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(..)")
    }
}

impl From<&UserList> for wire::UserList {
    fn from(list: &UserList) -> Self {
        let user = |(name, hash): (&str, &PasswordHash)| wire::User {
            name: name.to_owned(),
            hash: hash.reveal().to_owned(),
        };
        Self { name: list.name.to_string(), users: list.reveal().map(user).collect() }
    }
}

impl TryFrom<wire::UserList> for UserList {
    type Error = ConvertError;

    fn try_from(list: wire::UserList) -> Result<Self, ConvertError> {
        // The text of a hash that cannot be read goes into no message.
        let user = |user: wire::User| {
            let hash: PasswordHash =
                user.hash.parse().map_err(|error| invalid("hash of a password", "(not shown)", &error))?;
            Ok((user.name.into_boxed_str(), hash))
        };
        let users = list.users.into_iter().map(user).collect::<Result<Vec<_>, ConvertError>>()?;
        Ok(Self::new(parse("name of users", &list.name)?, users))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use selvedge_model::gateway::{CertificateName, UserListForm, UserListName, virtual_host};

    use super::*;

    fn port_with(carries: Carries, tls: Option<ListenerTls>) -> GatewayPort {
        let hosts =
            ["*", "*.example.com", "shop.example.com", r"~^www\d\."].map(|text| hostname(text).unwrap());
        let hosts = hosts.into_iter().chain([Hostname::of_ingress("*.example.org").unwrap()]);
        let hosts = hosts
            .map(|hostname| VirtualHost { service: virtual_host(&hostname, "shop/edge/a", 443), hostname });
        let listener = Listener::new("Gateway shop/edge a".into(), Hostname::Any, tls, hosts.collect());
        GatewayPort::new(443, carries, vec![listener])
    }

    #[test]
    fn what_a_port_serves_arrives_as_it_was() {
        let termination = Termination {
            certificates: vec![CertificateName::new("shop", "tls")],
            clients: Some(ClientValidation {
                roots: vec![vec![1, 2]],
                optional: true,
                subject_alt_names: vec!["a.example.com".into()],
            }),
            tls12: true,
            http: true,
        };
        for port in [
            port_with(Carries::Http, None),
            port_with(Carries::Tcp, None),
            port_with(Carries::Tls, Some(ListenerTls::Passthrough)),
            port_with(Carries::Tls, Some(ListenerTls::Terminate(termination))),
            port_with(Carries::Http, None).showing(Some(CertificateName::new("shop", "client"))),
        ] {
            let arrived = GatewayPort::try_from(wire::GatewayPort::from(&port)).unwrap();

            assert_eq!(arrived, port);
            assert_eq!(arrived.listeners[0].virtual_host(Some("shop.example.com")), Some(2));
        }
    }

    #[test]
    fn a_port_that_contradicts_its_listeners_is_refused() {
        for port in [port_with(Carries::Tls, None), port_with(Carries::Http, Some(ListenerTls::Passthrough))]
        {
            assert!(GatewayPort::try_from(wire::GatewayPort::from(&port)).is_err());
        }
        let unknown = wire::GatewayPort { carries: 9, ..(&port_with(Carries::Http, None)).into() };
        assert!(GatewayPort::try_from(unknown).is_err());
    }

    #[test]
    fn a_role_and_a_certificate_arrive_as_they_were() {
        let role = GatewayRole {
            name: "shop/edge".into(),
            address: Some("127.0.0.1".parse().unwrap()),
            ports: BTreeMap::from([(80, 8080)]),
        };
        assert_eq!(GatewayRole::try_from(wire::GatewayRole::from(&role)), Ok(role));

        let certificate = ServerCertificate {
            name: CertificateName::new("shop", "tls"),
            chain: vec![vec![1], vec![2]],
            key: PrivateKey::new(vec![3]),
        };
        let sent = wire::ServerCertificate::from(&certificate);
        assert_eq!(format!("{sent:?}"), r#"ServerCertificate { name: "shop/tls", .. }"#);
        let arrived = ServerCertificate::try_from(sent);
        assert_eq!(arrived.unwrap(), certificate);
    }

    #[test]
    fn users_arrive_as_they_were_and_are_shown_on_no_way() {
        let name = UserListName::new("shop", "users", UserListForm::File);
        let list = UserList::new(name, [("ann".into(), "{PLAIN}secret".parse().unwrap())]);

        let sent = wire::UserList::from(&list);
        let shown = format!("{sent:?} {:?}", sent.users);
        assert_eq!(UserList::try_from(sent), Ok(list));
        assert_eq!(shown, r#"UserList { name: "shop/users/auth-file", .. } [User(..)]"#);

        let user = wire::User { name: "ann".into(), hash: "hidden".into() };
        let broken = wire::UserList { name: "shop/users/auth-file".into(), users: vec![user] };
        let refused = UserList::try_from(broken).unwrap_err().to_string();
        assert!(!refused.contains("hidden"), "{refused}");
    }
}
