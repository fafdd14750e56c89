//! TLS settings for both sides, on rustls with ring.

use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::error::{Error, Result};

/// How much of a server's certificate is checked (libpq's sslmode).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verify {
    /// `require`: encrypted, whoever it is.
    Nobody,
    /// `verify-ca`: signed by a trusted authority.
    Authority,
    /// `verify-full`: and issued to that host name.
    Host,
}

/// The side that clients see: a certificate chain and its key, both PEM files.
pub fn acceptor(certificate: &Path, key: &Path) -> Result<TlsAcceptor> {
    let chain = certificates(certificate)?;
    let key_at = key.display().to_string();
    let key = PrivateKeyDer::from_pem_file(key).map_err(|error| {
        Error::config(format!("the TLS key could not be read: {error}")).at(key_at.clone()).hint("give a PEM file")
    })?;
    let config = ServerConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| builder.with_no_client_auth().with_single_cert(chain, key))
        .map_err(|error| Error::config(format!("TLS cannot be set up: {error}")).at(key_at))?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// The side that servers see; `authorities` is a PEM file, the system's own are used without it.
pub fn connector(verify: Verify, authorities: Option<&Path>) -> Result<TlsConnector> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match verify {
        Verify::Nobody => Arc::new(Lenient { chain: None, provider: provider.clone() }),
        Verify::Authority | Verify::Host => {
            let roots = Arc::new(roots(authorities)?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| Error::config(format!("no usable certificate authority: {error}")))?;
            if verify == Verify::Host {
                chain
            } else {
                Arc::new(Lenient { chain: Some(chain), provider: provider.clone() })
            }
        }
    };
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(ring::default_provider())
}

fn certificates(path: &Path) -> Result<Vec<CertificateDer<'static>>> {
    CertificateDer::pem_file_iter(path).and_then(Iterator::collect).map_err(|error| {
        Error::config(format!("certificates could not be read: {error}"))
            .at(path.display().to_string())
            .hint("give a PEM file")
    })
}

fn roots(authorities: Option<&Path>) -> Result<RootCertStore> {
    let mut store = RootCertStore::empty();
    let found = match authorities {
        Some(path) => certificates(path)?,
        None => rustls_native_certs::load_native_certs().certs,
    };
    // One unusable certificate among the system's does not make the others unusable.
    store.add_parsable_certificates(found);
    Ok(store)
}

/// Checks less than a browser would, as sslmode asks for: no name, perhaps no authority either.
#[derive(Debug)]
struct Lenient {
    chain: Option<Arc<WebPkiServerVerifier>>,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Lenient {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, TlsError> {
        let Some(chain) = &self.chain else { return Ok(ServerCertVerified::assertion()) };
        match chain.verify_server_cert(end_entity, intermediates, server_name, ocsp_response, now) {
            // The chain is checked before the name, so this error means that only the name differs.
            Err(TlsError::InvalidCertificate(
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. },
            )) => Ok(ServerCertVerified::assertion()),
            other => other,
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls12_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        dss: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, TlsError> {
        verify_tls13_signature(message, cert, dss, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
