//! Mutual TLS 1.3 in which a key is all there is to know about a peer.
//!
//! Certificates are self-signed, so there is no authority to ask: the dialler knows by whose key it must be answered, the
//! answerer takes any key and tells whose it was.
//! That the other side holds the key is what the handshake's signature proves, which the crypto provider verifies.
//! The signature inside the certificate proves nothing more and is not looked at.

use crate::identity::{Identity, peer_id_of_key};
use hybrid_wire::{PEER_ALPN, PeerId};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{ResolvesClientCert, Resumption};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::server::{NoServerSessionStorage, ParsedCertificate};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::version::TLS13;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible, ServerConfig,
    SignatureScheme,
};
use std::sync::{Arc, OnceLock};

/// The DER of an Ed25519 SubjectPublicKeyInfo up to its 32 bytes of key (RFC 8410 section 4).
const ED25519_KEY_INFO: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

/// The one signature that peers make.
const SCHEMES: &[SignatureScheme] = &[SignatureScheme::ED25519];

/// What an endpoint shows of itself, for both directions.
#[derive(Debug)]
pub(crate) struct Credentials {
    provider: Arc<CryptoProvider>,
    shown: Arc<SingleCertAndKey>,
}

impl Credentials {
    pub(crate) fn new(identity: &Identity) -> Result<Self, Error> {
        let mut provider = aws_lc_rs::default_provider();
        // AES-128 first: the fastest on processors with AES instructions, and as strong as the Ed25519 keys.
        provider.cipher_suites = vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_CHACHA20_POLY1305_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ];
        let key = provider.key_provider.load_private_key(identity.private_key())?;
        let shown = SingleCertAndKey::from(CertifiedKey::new(vec![identity.certificate()], key));
        Ok(Self { provider: Arc::new(provider), shown: Arc::new(shown) })
    }

    /// For answering: takes any peer's key.
    pub(crate) fn server(&self) -> Result<ServerConfig, Error> {
        let mut config = ServerConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .with_client_cert_verifier(Arc::new(AnyPeer { provider: self.provider.clone() }))
            .with_cert_resolver(self.shown.clone());
        config.alpn_protocols = vec![PEER_ALPN.to_vec()];
        // Each connection proves its key anew: no resumption and, with it, no early data.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        config.send_tls13_tickets = 0;
        config.max_early_data_size = 0;
        Ok(config)
    }

    /// For one dial: takes this one key.
    pub(crate) fn client(&self, pin: Arc<Pinned>) -> Result<ClientConfig, Error> {
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&TLS13])?
            .dangerous() // The library's word for a verifier of one's own; `Pinned` accepts less than a public authority would.
            .with_custom_certificate_verifier(pin)
            .with_client_cert_resolver(self.shown.clone() as Arc<dyn ResolvesClientCert>);
        config.alpn_protocols = vec![PEER_ALPN.to_vec()];
        config.resumption = Resumption::disabled();
        config.enable_early_data = false;
        Ok(config)
    }

    pub(crate) fn pin(&self, expected: PeerId) -> Arc<Pinned> {
        Arc::new(Pinned { provider: self.provider.clone(), expected: Some(expected), shown: OnceLock::new() })
    }

    /// For a dial that only asks who is there.
    pub(crate) fn anyone(&self) -> Arc<Pinned> {
        Arc::new(Pinned { provider: self.provider.clone(), expected: None, shown: OnceLock::new() })
    }
}

/// Who shows this certificate.
///
/// # Errors
/// When it is no certificate or its key is not Ed25519.
pub(crate) fn peer_id_of(certificate: &CertificateDer<'_>) -> Result<PeerId, Error> {
    let parsed = ParsedCertificate::try_from(certificate)?;
    let key_info = parsed.subject_public_key_info();
    let is_ed25519 = key_info.len() == ED25519_KEY_INFO.len() + 32 && key_info.starts_with(&ED25519_KEY_INFO);
    if !is_ed25519 {
        return Err(CertificateError::BadEncoding.into());
    }
    Ok(peer_id_of_key(&key_info))
}

fn peer_id_alone(certificate: &CertificateDer<'_>, others: &[CertificateDer<'_>]) -> Result<PeerId, Error> {
    if others.is_empty() { peer_id_of(certificate) } else { Err(CertificateError::UnknownIssuer.into()) }
}

/// Takes the one peer that was dialled.
#[derive(Debug)]
pub(crate) struct Pinned {
    provider: Arc<CryptoProvider>,
    /// `None` takes anyone who proves to hold an Ed25519 key.
    expected: Option<PeerId>,
    shown: OnceLock<PeerId>,
}

impl Pinned {
    /// Who answered instead, if somebody else did.
    pub(crate) fn impostor(&self) -> Option<PeerId> {
        self.shown.get().copied().filter(|shown| self.expected.is_some_and(|expected| expected != *shown))
    }
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let peer = peer_id_alone(end_entity, intermediates)?;
        let _ = self.shown.set(peer);
        if self.expected.is_none_or(|expected| expected == peer) {
            Ok(ServerCertVerified::assertion())
        } else {
            Err(CertificateError::ApplicationVerificationFailure.into())
        }
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

/// Takes any peer that proves to hold an Ed25519 key.
#[derive(Debug)]
struct AnyPeer {
    provider: Arc<CryptoProvider>,
}

impl ClientCertVerifier for AnyPeer {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _now: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        peer_id_alone(end_entity, intermediates).map(|_| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.provider.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        SCHEMES.to_vec()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rcgen::{CertificateParams, KeyPair};

    #[test]
    fn certificates_name_their_peer() {
        let identity = Identity::generate().unwrap();
        assert_eq!(peer_id_of(&identity.certificate()).unwrap(), identity.peer_id());
        assert!(peer_id_alone(&identity.certificate(), &[identity.certificate()]).is_err());
    }

    #[test]
    fn other_keys_and_garbage_are_refused() {
        let p256 = KeyPair::generate().unwrap();
        let certificate = CertificateParams::default().self_signed(&p256).unwrap();
        assert!(peer_id_of(certificate.der()).is_err());
        let good = Identity::generate().unwrap().certificate();
        for end in 0..good.len() {
            assert!(peer_id_of(&CertificateDer::from(&good[..end])).is_err(), "cut at {end}");
        }
    }
}
