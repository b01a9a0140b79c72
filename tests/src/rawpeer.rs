//! A peer that is free in all it says: QUIC and TLS as they should be, and above them whatever bytes a test wants.

use hybrid_peer_transport::Identity;
use hybrid_wire::PeerId;
use quinn::crypto::rustls::QuicClientConfig;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, aws_lc_rs, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, UnixTime};
use rustls::{DigitallySignedStruct, Error, SignatureScheme};
use std::net::SocketAddr;
use std::sync::Arc;

/// What a raw peer shows of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(clippy::exhaustive_enums, reason = "a test names what it needs")]
pub enum Shown {
    /// Its key, as a peer does.
    Key,
    /// A key of a kind that peers do not have.
    OtherKind,
    /// Nothing.
    Nothing,
}

/// A peer without a protocol.
#[derive(Debug)]
pub struct RawPeer {
    endpoint: quinn::Endpoint,
    key: KeyPair,
    peer: PeerId,
}

impl RawPeer {
    /// One with a new key, on a port of the system's choice.
    ///
    /// # Errors
    /// When the system gives no port or no randomness.
    pub fn new() -> anyhow::Result<Self> {
        let identity = Identity::generate()?;
        let der = PrivatePkcs8KeyDer::from(identity.to_pkcs8());
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&der, &PKCS_ED25519)?;
        let endpoint = quinn::Endpoint::client("127.0.0.1:0".parse()?)?;
        Ok(Self { endpoint, key, peer: identity.peer_id() })
    }

    /// Whose key it is.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    /// Connects, whoever answers.
    ///
    /// # Errors
    /// When the other side does not want to.
    pub async fn connect(&self, to: SocketAddr, alpn: &[u8], shown: Shown) -> anyhow::Result<quinn::Connection> {
        let provider = Arc::new(aws_lc_rs::default_provider());
        let config = rustls::ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(provider)));
        let other = KeyPair::generate()?;
        let key = if shown == Shown::OtherKind { &other } else { &self.key };
        let mut config = if shown == Shown::Nothing {
            config.with_no_client_auth()
        } else {
            let certificate = CertificateParams::default().self_signed(key)?.der().clone();
            let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.serialize_der()));
            config.with_client_auth_cert(vec![certificate], private)?
        };
        config.alpn_protocols = vec![alpn.to_vec()];
        let config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(config)?));
        Ok(self.endpoint.connect_with(config, to, "peer.invalid")?.await?)
    }
}

/// Takes whatever key is shown, if the other side has it.
#[derive(Debug)]
struct Anyone(Arc<CryptoProvider>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _certificate: &CertificateDer<'_>,
        _signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(rustls::PeerIncompatible::Tls12NotOffered.into())
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }
}
