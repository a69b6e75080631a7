//! A certificate from the suite's authority, for the port where servers reach each other.

use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rcgen::{CertificateParams, ExtendedKeyUsagePurpose, Issuer, KeyPair};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer};

/// Where the certificate is, and its key.
#[derive(Debug)]
pub(super) struct Issued {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

/// Makes a key for the server `name` and a certificate that the authority in the directory
/// `authority` signs; both are written to `directory`. `None`: there is no authority.
pub(super) fn issue(authority: &Path, name: &str, directory: &Path) -> Result<Option<Issued>, String> {
    let Some(certificate) = read(&authority.join("ca.crt"))? else { return Ok(None) };
    let Some(key) = read(&authority.join("ca.key"))? else { return Ok(None) };
    let failed = |error: rcgen::Error| format!("the authority in {}: {error}", authority.display());
    let issuer = Issuer::from_ca_cert_pem(&certificate, signer(&key)?).map_err(failed)?;
    let (host, _) = name.rsplit_once(':').unwrap_or((name, ""));
    let mut params = CertificateParams::new(vec![host.to_owned()]).map_err(failed)?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    let own = KeyPair::generate().map_err(failed)?;
    let signed = params.signed_by(&own, &issuer).map_err(failed)?;
    let made = Issued { certificate: directory.join("tls.crt"), key: directory.join("tls.key") };
    write(&made.certificate, &signed.pem())?;
    write(&made.key, &own.serialize_pem())?;
    Ok(Some(made))
}

fn read(path: &Path) -> Result<Option<String>, String> {
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(format!("cannot read {}: {error}", path.display())),
    }
}

fn write(path: &Path, text: &str) -> Result<(), String> {
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create(true).truncate(true).mode(0o600).open(path);
    file.and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|error| format!("cannot write {}: {error}", path.display()))
}

/// The authority's key, which may be an RSA key in the older form.
fn signer(pem: &str) -> Result<KeyPair, String> {
    let wrong = |error: &dyn std::fmt::Display| format!("the authority's key: {error}");
    let key = match PrivateKeyDer::from_pem_slice(pem.as_bytes()).map_err(|error| wrong(&error))? {
        PrivateKeyDer::Pkcs1(key) => PrivatePkcs8KeyDer::from(pkcs8(key.secret_pkcs1_der())),
        PrivateKeyDer::Pkcs8(key) => key,
        _ => return Err(wrong(&"neither PKCS #8 nor PKCS #1")),
    };
    KeyPair::try_from(&key).map_err(|error| wrong(&error))
}

/// An RSA key in PKCS #1 as PKCS #8, which says besides that it is one.
fn pkcs8(rsa: &[u8]) -> Vec<u8> {
    /// Version 0; algorithm `rsaEncryption` with no parameters.
    const BEFORE: [u8; 18] =
        [0x02, 1, 0, 0x30, 13, 0x06, 9, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x01, 0x01, 0x05, 0];
    der(0x30, &[&BEFORE[..], &der(0x04, rsa)].concat())
}

fn der(tag: u8, content: &[u8]) -> Vec<u8> {
    let length = content.len().to_be_bytes();
    let length = &length[length.iter().take_while(|byte| **byte == 0).count()..];
    let mut out = vec![tag];
    match (length, u8::try_from(length.len())) {
        ([], _) => out.push(0),
        ([short @ ..0x80], _) => out.push(*short),
        (_, Ok(bytes)) => {
            out.push(0x80 | bytes);
            out.extend(length);
        }
        (_, Err(_)) => unreachable!("a length has at most eight bytes"),
    }
    out.extend(content);
    out
}

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, DnType, IsCa};
    use tokio_rustls::rustls::RootCertStore;
    use tokio_rustls::rustls::client::WebPkiServerVerifier;
    use tokio_rustls::rustls::client::danger::ServerCertVerifier as _;
    use tokio_rustls::rustls::crypto::ring;
    use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName, UnixTime};

    use super::*;

    /// The verdict of somebody who trusts the authority and expects `name`.
    fn verify(authority: &CertificateDer<'static>, path: &Path, name: &'static str) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(authority.clone()).expect("a certificate");
        let provider = std::sync::Arc::new(ring::default_provider());
        let verifier = WebPkiServerVerifier::builder_with_provider(roots.into(), provider).build().expect("a verifier");
        let shown = CertificateDer::from_pem_file(path).expect("a certificate");
        let name = ServerName::try_from(name).expect("a name");
        let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(1_800_000_000));
        verifier.verify_server_cert(&shown, &[], &name, &[], now).is_ok()
    }

    #[test]
    fn the_authority_vouches_for_the_server() {
        let directory = tempfile::tempdir().expect("a directory");
        assert!(issue(directory.path(), "hs1", directory.path()).expect("no failure").is_none(), "no authority");
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "Test CA");
        let authority = params.self_signed(&key).expect("signed");
        std::fs::write(directory.path().join("ca.crt"), authority.pem()).expect("written");
        std::fs::write(directory.path().join("ca.key"), key.serialize_pem()).expect("written");
        let issued = issue(directory.path(), "hs1:8448", directory.path()).expect("issued").expect("an authority");
        assert!(verify(authority.der(), &issued.certificate, "hs1"));
        assert!(!verify(authority.der(), &issued.certificate, "hs2"));
        std::fs::write(directory.path().join("ca.key"), "no key").expect("written");
        issue(directory.path(), "hs1", directory.path()).expect_err("not a key");
    }

    #[test]
    fn an_older_key_is_wrapped_with_lengths_of_any_size() {
        assert_eq!(der(4, &[7; 5]), [&[4, 5][..], &[7; 5]].concat());
        assert_eq!(der(4, &[]), [4, 0]);
        assert_eq!(der(4, &[7; 0x80])[..3], [4, 0x81, 0x80]);
        assert_eq!(der(4, &[7; 0x1234])[..4], [4, 0x82, 0x12, 0x34]);
        let wrapped = pkcs8(&[7; 300]);
        assert_eq!(wrapped[..4], [0x30, 0x82, 1, 66]);
        assert_eq!(wrapped.len(), 4 + 18 + 4 + 300);
    }
}
