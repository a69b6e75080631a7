//! A certificate authority of the tests, and certificates for loopback names.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, KeyUsagePurpose,
};
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;
use tokio_rustls::rustls::{ClientConfig, RootCertStore, ServerConfig};

/// Vouches for the servers of a test run; nobody else trusts it.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
}

/// Where a server finds its certificate, the certificate's key, and the authority to trust.
#[derive(Clone, Debug)]
pub struct Papers {
    /// The certificate, in PEM.
    pub certificate: PathBuf,
    /// Its private key, in PEM, readable by its owner only.
    pub key: PathBuf,
    /// The authority's certificate, in PEM.
    pub authority: PathBuf,
}

impl Authority {
    /// The authority of this test process.
    pub fn shared() -> &'static Self {
        static SHARED: LazyLock<Authority> = LazyLock::new(Authority::new);
        &SHARED
    }

    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().expect("a key can be made");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        params.distinguished_name.push(DnType::CommonName, "Authority of Hearth's tests");
        let certificate = params.self_signed(&key).expect("an authority vouches for itself");
        Self { issuer: Issuer::new(params, key), certificate }
    }

    /// A certificate for `host`, a name or an address without port, and its key.
    fn issue(&self, host: &str) -> (rcgen::Certificate, KeyPair) {
        let mut params = CertificateParams::new(vec![host.to_owned()]).expect("a host can be in a certificate");
        params.distinguished_name.push(DnType::CommonName, host);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        params.use_authority_key_identifier_extension = true;
        let key = KeyPair::generate().expect("a key can be made");
        let certificate = params.signed_by(&key, &self.issuer).expect("the authority can sign");
        (certificate, key)
    }

    /// Writes what the server `name` (with or without port) needs into `directory`.
    pub fn write_papers(&self, name: &str, directory: &Path) -> Papers {
        use std::os::unix::fs::PermissionsExt as _;
        let (certificate, key) = self.issue(host_of(name));
        let papers = Papers {
            certificate: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            authority: directory.join("authority.crt"),
        };
        let write = |path: &Path, text: &str| {
            fs::write(path, text).expect("papers can be written");
            fs::set_permissions(path, fs::Permissions::from_mode(0o600)).expect("our own file");
        };
        write(&papers.certificate, &certificate.pem());
        write(&papers.key, &key.serialize_pem());
        write(&papers.authority, &self.certificate.pem());
        papers
    }

    /// TLS for a server in this process that is called `name`.
    pub(crate) fn server(&self, name: &str) -> Arc<ServerConfig> {
        let (certificate, key) = self.issue(host_of(name));
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key just made");
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol")
            .with_no_client_auth()
            .with_single_cert(vec![certificate.der().clone()], key)
            .expect("the key belongs to the certificate");
        Arc::new(config)
    }

    /// TLS for a client in this process that trusts this authority alone.
    pub(crate) fn client(&self) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(self.certificate.der().clone()).expect("a certificate");
        let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("the provider knows the protocol")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Arc::new(config)
    }
}

/// `name` without its port.
pub(crate) fn host_of(name: &str) -> &str {
    name.rsplit_once(':').map_or(name, |(host, _)| host)
}
