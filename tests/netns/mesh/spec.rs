//! What a workload is made of: its place, its redirection, its app and flags.

/// How a workload's connections come to its sidecar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// By rules.
    Redirected,
    /// Its app names the sidecar's outbound port, and peers the inbound port.
    Explicit,
    /// It has none.
    NoSidecar,
}

/// What a workload is to be.
#[derive(Debug, Clone)]
pub(crate) struct Spec {
    /// Its name.
    pub(crate) name: String,
    /// The mesh's namespace that it is in.
    pub(crate) namespace: &'static str,
    /// Its service account, and its label `app`.
    pub(crate) app: String,
    /// Its label `version`, and that of a `reviews` server that runs in it; without one there is none.
    pub(crate) version: Option<String>,
    /// How its connections come to its sidecar.
    pub(crate) mode: Mode,
    /// More flags of its sidecar's.
    pub(crate) flags: &'static [&'static str],
    /// What is added to all its ports, where several share an address.
    pub(crate) shift: u16,
    /// Whether the mesh's documents have its name, `NAME.test`, and not its address.
    pub(crate) by_name: bool,
}

/// The port of every app.
pub(crate) const APP_PORT: u16 = 9080;

/// Another port of every workload, of which the mesh knows nothing but that it is there.
pub(crate) const OTHER_PORT: u16 = 9090;

/// A redirected workload without an app: the test itself makes its connections.
pub(crate) fn client(name: &str) -> Spec {
    Spec {
        name: name.to_owned(),
        namespace: "default",
        app: name.to_owned(),
        version: None,
        mode: Mode::Redirected,
        flags: &[],
        shift: 0,
        by_name: false,
    }
}

/// A redirected workload behind the service `app`, which answers as this version.
pub(crate) fn server(name: &str, app: &str, version: &str) -> Spec {
    Spec { app: app.to_owned(), version: Some(version.to_owned()), ..client(name) }
}

impl Spec {
    /// With more flags for its sidecar.
    #[must_use]
    pub(crate) fn flags(self, flags: &'static [&'static str]) -> Self {
        Self { flags, ..self }
    }

    /// In another namespace of the mesh's.
    #[must_use]
    pub(crate) fn namespace(self, namespace: &'static str) -> Self {
        Self { namespace, ..self }
    }

    /// In another mode.
    #[must_use]
    pub(crate) fn mode(self, mode: Mode) -> Self {
        Self { mode, ..self }
    }

    /// Known by a name, which [`Mesh::hosts`] gives an address.
    #[must_use]
    pub(crate) fn by_name(self) -> Self {
        Self { by_name: true, ..self }
    }

    /// With all ports so much higher.
    #[must_use]
    pub(crate) fn shift(self, shift: u16) -> Self {
        Self { shift, ..self }
    }
}
