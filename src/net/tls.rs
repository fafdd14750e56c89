//! TLS settings for both sides, on rustls with ring.

use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::sync::Arc;

use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use tokio_rustls::rustls::crypto::{CryptoProvider, ring, verify_tls12_signature, verify_tls13_signature};
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, Error as TlsError, RootCertStore, ServerConfig,
    SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector, TlsStream};

use crate::error::{Error, Result};
use crate::net::certificate;
use crate::net::stream::Stream;

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

/// PostgreSQL's name for its protocol in the handshake; a client that begins with TLS at once must give it.
const ALPN: &[u8] = b"postgresql";

/// A certificate chain and its key, both PEM files.
#[derive(Debug, Clone, Copy)]
pub struct IdentityFiles<'a> {
    /// The chain, its own certificate first.
    pub certificate: &'a Path,
    /// The private key.
    pub key: &'a Path,
}

/// What clients get to see, and what they must show.
#[derive(Debug)]
pub struct DoorFiles<'a> {
    /// The certificate for clients that ask for no name, or for one that is not in `hosts`.
    pub identity: IdentityFiles<'a>,
    /// Certificates by the name that a client asks for.
    pub hosts: Vec<(&'a str, IdentityFiles<'a>)>,
    /// Who may have issued clients' certificates (PEM); none are asked for without it.
    pub client_ca: Option<&'a Path>,
    /// Whether a client must show one.
    pub client_required: bool,
}

/// The side that clients see.
#[derive(Clone)]
pub struct Door {
    acceptor: TlsAcceptor,
    identities: Arc<Identities>,
}

impl std::fmt::Debug for Door {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Door(..)")
    }
}

/// Certificates by the name that a client asks for.
#[derive(Debug)]
struct Identities {
    default: Identity,
    hosts: HashMap<String, Identity>,
}

#[derive(Debug)]
struct Identity {
    key: Arc<CertifiedKey>,
    end_point: Option<Vec<u8>>,
}

impl Identities {
    fn chosen(&self, name: Option<&str>) -> &Identity {
        name.and_then(|name| self.hosts.get(&name.to_ascii_lowercase())).unwrap_or(&self.default)
    }
}

impl ResolvesServerCert for Identities {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.chosen(hello.server_name()).key.clone())
    }
}

impl Door {
    /// Reads the files.
    ///
    /// # Errors
    /// A file cannot be read or used; the error names it.
    pub fn open(files: &DoorFiles<'_>) -> Result<Self> {
        let hosts = files.hosts.iter().map(|(name, files)| Ok((name.to_ascii_lowercase(), identity(*files)?)));
        let identities = Identities { default: identity(files.identity)?, hosts: hosts.collect::<Result<_>>()? };
        let identities = Arc::new(identities);
        let failed = |error: TlsError| Error::config(format!("TLS cannot be set up: {error}")).at("tls");
        let builder =
            ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().map_err(failed)?;
        let builder = match files.client_ca {
            None => builder.with_no_client_auth(),
            Some(path) => {
                let authorities = Arc::new(roots(Some(path))?);
                let verifier = WebPkiClientVerifier::builder_with_provider(authorities, provider());
                let verifier = if files.client_required { verifier } else { verifier.allow_unauthenticated() };
                let verifier = verifier.build().map_err(|error| {
                    Error::config(format!("no usable certificate authority: {error}")).at(path.display().to_string())
                })?;
                builder.with_client_cert_verifier(verifier)
            }
        };
        let mut config = builder.with_cert_resolver(identities.clone());
        config.alpn_protocols = vec![ALPN.to_vec()];
        Ok(Self { acceptor: TlsAcceptor::from(Arc::new(config)), identities })
    }

    /// The handshake. A client that came `direct`ly, without SSLRequest, must have named the protocol.
    ///
    /// # Errors
    /// The client broke off, or shows no certificate that is accepted.
    pub async fn accept(&self, tcp: TcpStream, direct: bool) -> io::Result<Stream> {
        let tls = self.acceptor.accept(tcp).await?;
        if direct && tls.get_ref().1.alpn_protocol() != Some(ALPN) {
            let what = "TLS without SSLRequest and without the protocol's name (ALPN)";
            return Err(io::Error::new(io::ErrorKind::InvalidData, what));
        }
        Ok(Stream::Tls(Box::new(tls.into())))
    }

    /// The hash of the certificate that this client saw, where SCRAM can be bound to it.
    pub fn end_point(&self, stream: &Stream) -> Option<&[u8]> {
        let Stream::Tls(tls) = stream else { return None };
        let TlsStream::Server(server) = &**tls else { return None };
        self.identities.chosen(server.get_ref().1.server_name()).end_point.as_deref()
    }
}

/// The certificate that the peer showed in the handshake, as it came (DER); it was checked as far as the settings ask.
pub fn peer_certificate(stream: &Stream) -> Option<&[u8]> {
    let Stream::Tls(tls) = stream else { return None };
    let (_, session) = tls.get_ref();
    session.peer_certificates().and_then(|chain| chain.first()).map(AsRef::as_ref)
}

fn identity(files: IdentityFiles<'_>) -> Result<Identity> {
    let (chain, key) = pair(files)?;
    let end_point = chain.first().and_then(|first| certificate::end_point(first));
    let key = CertifiedKey::from_der(chain, key, &provider()).map_err(|error| {
        Error::config(format!("the TLS key and certificate cannot be used: {error}"))
            .at(files.key.display().to_string())
            .hint("give the certificate and the key that belong together")
    })?;
    Ok(Identity { key: Arc::new(key), end_point })
}

fn pair(files: IdentityFiles<'_>) -> Result<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)> {
    let key = PrivateKeyDer::from_pem_file(files.key).map_err(|error| {
        Error::config(format!("the TLS key could not be read: {error}"))
            .at(files.key.display().to_string())
            .hint("give a PEM file")
    })?;
    Ok((certificates(files.certificate)?, key))
}

/// How a connection to a server is encrypted.
#[derive(Debug, Clone, Copy)]
pub struct ServerTls<'a> {
    /// How much of its certificate is checked.
    pub verify: Verify,
    /// Whom to trust (PEM); the system's own authorities without it.
    pub authorities: Option<&'a Path>,
    /// The certificate to show when the server asks for one.
    pub identity: Option<IdentityFiles<'a>>,
    /// Name the protocol in the handshake, as a server that is spoken to without SSLRequest demands.
    pub direct: bool,
}

/// The side that servers see.
///
/// # Errors
/// A file cannot be read or used; the error names it.
pub fn connector(how: &ServerTls<'_>) -> Result<TlsConnector> {
    let provider = provider();
    let verifier: Arc<dyn ServerCertVerifier> = match how.verify {
        Verify::Nobody => Arc::new(Lenient { chain: None, provider: provider.clone() }),
        Verify::Authority | Verify::Host => {
            let roots = Arc::new(roots(how.authorities)?);
            let chain = WebPkiServerVerifier::builder_with_provider(roots, provider.clone())
                .build()
                .map_err(|error| Error::config(format!("no usable certificate authority: {error}")))?;
            if how.verify == Verify::Host {
                chain
            } else {
                Arc::new(Lenient { chain: Some(chain), provider: provider.clone() })
            }
        }
    };
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::internal(format!("TLS cannot be set up: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(verifier);
    let mut config = match how.identity {
        None => builder.with_no_client_auth(),
        Some(files) => {
            let (chain, key) = pair(files)?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                Error::config(format!("the client certificate cannot be used: {error}"))
                    .at(files.certificate.display().to_string())
            })?
        }
    };
    if how.direct {
        config.alpn_protocols = vec![ALPN.to_vec()];
    }
    Ok(TlsConnector::from(Arc::new(config)))
}

/// Whether the handshake agreed on PostgreSQL's protocol.
pub fn names_protocol(stream: &Stream) -> bool {
    matches!(stream, Stream::Tls(tls) if tls.get_ref().1.alpn_protocol() == Some(ALPN))
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
