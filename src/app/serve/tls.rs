//! TLS: the certificate, and its renewal while the server runs.
//!
//! Certificates last for weeks and servers for months. The files are read again on SIGHUP and every
//! minute; new ones hold for connections that begin after that. Files that are no good (half written,
//! or a key that belongs to another certificate) change nothing: the server goes on with what it has.

use std::collections::hash_map::RandomState;
use std::hash::BuildHasher as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::{PoisonError, RwLock};
use std::time::Duration;

use hearth_base::Supervisor;
use hearth_settings::{SecretError, SecretFile};
use tokio::signal::unix::Signal;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject as _};
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, ServerConfig};

/// How often the files are looked at unasked.
const LOOK: Duration = Duration::from_secs(60);

/// What the server proves its name with.
#[derive(Debug)]
pub(crate) struct Certificate {
    chain: PathBuf,
    key: SecretFile,
    hasher: RandomState,
    current: RwLock<Current>,
}

#[derive(Debug)]
struct Current {
    /// Of the files that were read last, good or not.
    digest: u64,
    key: Arc<CertifiedKey>,
}

/// Why files are no certificate.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TlsError {
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: std::io::Error },
    #[error(transparent)]
    Secret(#[from] SecretError),
    #[error("{0} has no certificate in PEM")]
    NoCertificate(PathBuf),
    #[error("{path}: {source}")]
    Certificate { path: PathBuf, source: pem::Error },
    /// The text of the key is a secret, also a wrong one.
    #[error("the key file has no private key in PEM")]
    Key,
    #[error("the certificate cannot be used with the key: {0}")]
    Unusable(#[from] rustls::Error),
}

/// What came of reading the files again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reloaded {
    Same,
    New,
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// See [`TlsError`].
    pub(crate) fn load(certificate: PathBuf, key: SecretFile) -> Result<Arc<Self>, TlsError> {
        let hasher = RandomState::new();
        let text = read(&certificate, &key)?;
        let current = RwLock::new(Current { digest: text.digest(&hasher), key: text.parse(&certificate)? });
        Ok(Arc::new(Self { chain: certificate, key, hasher, current }))
    }

    /// For listeners. HTTP/2 and HTTP/1.1 are offered.
    ///
    /// # Errors
    /// If the library has no cipher in common with itself.
    pub(crate) fn acceptor(self: &Arc<Self>) -> Result<TlsAcceptor, TlsError> {
        let builder = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()?;
        let mut config = builder.with_no_client_auth().with_cert_resolver(self.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(TlsAcceptor::from(Arc::new(config)))
    }

    /// Reads the files again.
    fn reload(&self) -> Result<Reloaded, TlsError> {
        let text = read(&self.chain, &self.key)?;
        let digest = text.digest(&self.hasher);
        {
            let mut current = self.current.write().unwrap_or_else(PoisonError::into_inner);
            if current.digest == digest {
                return Ok(Reloaded::Same);
            }
            // Files that are no good are told once, not every minute.
            current.digest = digest;
        }
        let key = text.parse(&self.chain)?;
        self.current.write().unwrap_or_else(PoisonError::into_inner).key = key;
        Ok(Reloaded::New)
    }

    fn reload_and_tell(&self) {
        match self.reload() {
            Ok(Reloaded::Same) => {}
            Ok(Reloaded::New) => tracing::info!("the TLS certificate is renewed"),
            Err(error) => tracing::error!(%error, "the new TLS certificate is not usable, the old one stays"),
        }
    }
}

impl ResolvesServerCert for Certificate {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.current.read().unwrap_or_else(PoisonError::into_inner).key.clone())
    }
}

struct Text {
    certificate: Vec<u8>,
    key: hearth_base::Secret<String>,
}

fn read(certificate: &Path, key: &SecretFile) -> Result<Text, TlsError> {
    let read = std::fs::read(certificate);
    let read = read.map_err(|source| TlsError::Read { path: certificate.to_owned(), source })?;
    Ok(Text { certificate: read, key: key.load()? })
}

impl Text {
    fn digest(&self, hasher: &RandomState) -> u64 {
        hasher.hash_one((&self.certificate, self.key.expose()))
    }

    fn parse(&self, path: &Path) -> Result<Arc<CertifiedKey>, TlsError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(&self.certificate)
            .collect::<Result<_, _>>()
            .map_err(|source| TlsError::Certificate { path: path.to_owned(), source })?;
        if chain.is_empty() {
            return Err(TlsError::NoCertificate(path.to_owned()));
        }
        let key = PrivateKeyDer::from_pem_slice(self.key.expose().as_bytes()).map_err(|_| TlsError::Key)?;
        Ok(Arc::new(CertifiedKey::from_der(chain, key, &ring::default_provider())?))
    }
}

/// Reads the files again on `hangup` and from time to time. Without a certificate the signal, which
/// would end the process, means nothing.
pub(crate) fn keep_renewed(tasks: &Supervisor, certificate: Option<Arc<Certificate>>, mut hangup: Signal) {
    let stopping = tasks.stopping();
    tasks.spawn("certificate", async move {
        let mut tick = tokio::time::interval(LOOK);
        loop {
            tokio::select! {
                () = stopping.cancelled() => return,
                _ = hangup.recv() => tracing::info!("SIGHUP: looking for a new TLS certificate"),
                _ = tick.tick(), if certificate.is_some() => {}
            }
            if let Some(certificate) = certificate.clone()
                && let Err(error) = tokio::task::spawn_blocking(move || certificate.reload_and_tell()).await
            {
                tracing::error!(%error, "cannot look for a new TLS certificate");
            }
        }
    });
}

#[cfg(test)]
mod tests;
