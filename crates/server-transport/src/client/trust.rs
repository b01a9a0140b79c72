//! Which server certificates a client believes.

use crate::tls::{Fingerprint, provider};
use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme};
use std::sync::Arc;

/// Which server certificates are believed.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub enum TlsTrust {
    /// Those that the operating system believes.
    #[default]
    Platform,
    /// Those of these authorities, or these certificates themselves: text in PEM form.
    Pem(Vec<u8>),
    /// The one certificate with this fingerprint, whatever name and dates it carries: for a self-signed one.
    Fingerprint(Fingerprint),
}

/// Why certificates cannot be trusted.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsTrustError {
    /// The system's certificates cannot be read.
    #[error("the system's certificates cannot be used: {0}")]
    Platform(String),
    /// The given certificates cannot be read.
    #[error("the file of trusted certificates holds none in PEM form that can be used")]
    Pem,
}

impl TlsTrust {
    pub(super) fn client_config(&self) -> Result<ClientConfig, TlsTrustError> {
        let provider = provider();
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| TlsTrustError::Platform(error.to_string()))?;
        let verifier: Arc<dyn ServerCertVerifier> = match self {
            Self::Platform => {
                let verifier = rustls_platform_verifier::Verifier::new(provider);
                Arc::new(verifier.map_err(|error| TlsTrustError::Platform(error.to_string()))?)
            }
            Self::Pem(pem) => {
                let mut roots = RootCertStore::empty();
                for certificate in CertificateDer::pem_slice_iter(pem) {
                    roots.add(certificate.map_err(|_| TlsTrustError::Pem)?).map_err(|_| TlsTrustError::Pem)?;
                }
                let verifier = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider).build();
                verifier.map_err(|_| TlsTrustError::Pem)?
            }
            Self::Fingerprint(fingerprint) => Arc::new(Pinned { fingerprint: *fingerprint, provider }),
        };
        let mut config = builder.dangerous().with_custom_certificate_verifier(verifier).with_no_client_auth();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }
}

/// Believes one certificate. The handshake's signature is checked as always, so the server must have its key.
#[derive(Debug)]
struct Pinned {
    fingerprint: Fingerprint,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        if Fingerprint::of(end_entity) == Some(self.fingerprint) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}
