//! The certificates and keys of one API server: made for it, and gone with its directory.

use std::{
    fs,
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DistinguishedName, DnType, IsCa, KeyPair, SanType,
};

/// The names by which pods call it.
const NAMES: [&str; 4] =
    ["kubernetes", "kubernetes.default", "kubernetes.default.svc", "kubernetes.default.svc.cluster.local"];

/// An authority, and the files that it has filled.
pub(super) struct Certificates {
    directory: PathBuf,
    authority: CertifiedIssuer<'static, KeyPair>,
}

impl Certificates {
    /// A new authority in `directory`; its certificate is the file `ca.crt`.
    pub(super) fn new(directory: &Path) -> Self {
        fs::create_dir_all(directory).unwrap();
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("kubernetes", None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap();
        fs::write(directory.join("ca.crt"), authority.pem()).unwrap();
        Self { directory: directory.to_owned(), authority }
    }

    /// Where a file is.
    pub(super) fn file(&self, name: &str) -> String {
        self.directory.join(name).to_str().unwrap().to_owned()
    }

    /// `apiserver.crt` and `apiserver.key`: for these addresses, and for the names that pods use.
    pub(super) fn server(&self, addresses: &[IpAddr]) {
        let mut params = CertificateParams::new(NAMES.map(str::to_owned)).unwrap();
        params.distinguished_name = subject("kube-apiserver", None);
        params.subject_alt_names.extend(addresses.iter().copied().map(SanType::IpAddress));
        self.issue("apiserver", &params);
    }

    /// `kubelet.crt` and `kubelet.key`: for a node at this address.
    pub(super) fn node(&self, address: IpAddr) {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject("kubelet", None);
        params.subject_alt_names.push(SanType::IpAddress(address));
        self.issue("kubelet", &params);
    }

    /// `NAME.crt` and `NAME.key`: for a client, by what Kubernetes takes for a user and its group.
    pub(super) fn client(&self, user: &str, group: &str) {
        let mut params = CertificateParams::default();
        params.distinguished_name = subject(user, Some(group));
        self.issue(user, &params);
    }

    /// `NAME.key` and `NAME.pub`: a key alone, such as that of service accounts' tokens.
    pub(super) fn key(&self, name: &str) {
        let key = KeyPair::generate().unwrap();
        fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
        fs::write(self.directory.join(format!("{name}.pub")), key.public_key_pem()).unwrap();
    }

    fn issue(&self, name: &str, params: &CertificateParams) {
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.authority).unwrap();
        fs::write(self.directory.join(format!("{name}.crt")), certificate.pem()).unwrap();
        fs::write(self.directory.join(format!("{name}.key")), key.serialize_pem()).unwrap();
    }
}

fn subject(name: &str, group: Option<&str>) -> DistinguishedName {
    let mut subject = DistinguishedName::new();
    if let Some(group) = group {
        subject.push(DnType::OrganizationName, group);
    }
    subject.push(DnType::CommonName, name);
    subject
}
