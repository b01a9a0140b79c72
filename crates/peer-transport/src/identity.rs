//! Who this peer is: an Ed25519 key and the self-signed certificate that carries it.

use hybrid_wire::PeerId;
use rcgen::{CertificateParams, DistinguishedName, KeyPair, PKCS_ED25519, PublicKeyData};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use std::fmt;

/// A peer's key.
///
/// Whoever holds it can use the peer's tickets; keep [`Identity::to_pkcs8`] in a file that only its owner can read.
pub struct Identity {
    key: KeyPair,
    certificate: CertificateDer<'static>,
    peer: PeerId,
}

/// Why bytes are no identity, or none could be made.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum IdentityError {
    /// Not an Ed25519 key in PKCS #8.
    #[error("the peer key is not an Ed25519 key in PKCS #8 form; remove its file to get a new one")]
    Key(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The key could not sign its certificate.
    #[error("no certificate could be made for the peer key")]
    Certificate(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl Identity {
    /// A new one, from the system's randomness.
    ///
    /// # Errors
    /// When the system has no randomness to give.
    pub fn generate() -> Result<Self, IdentityError> {
        let key = KeyPair::generate_for(&PKCS_ED25519).map_err(|error| IdentityError::Key(error.into()))?;
        Self::new(key)
    }

    /// The one that [`Self::to_pkcs8`] wrote.
    ///
    /// # Errors
    /// When the bytes are something else.
    pub fn from_pkcs8(bytes: &[u8]) -> Result<Self, IdentityError> {
        let key = KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(bytes), &PKCS_ED25519)
            .map_err(|error| IdentityError::Key(error.into()))?;
        Self::new(key)
    }

    /// The private key as PKCS #8 (RFC 5958), to keep for the next start.
    pub fn to_pkcs8(&self) -> Vec<u8> {
        self.key.serialize_der()
    }

    /// Who others see.
    pub fn peer_id(&self) -> PeerId {
        self.peer
    }

    fn new(key: KeyPair) -> Result<Self, IdentityError> {
        let mut params = CertificateParams::default();
        // Nothing in the certificate but the key means anything, so it says nothing else.
        params.distinguished_name = DistinguishedName::new();
        let certificate = params.self_signed(&key).map_err(|error| IdentityError::Certificate(error.into()))?;
        let peer = peer_id_of_key(&key.subject_public_key_info());
        Ok(Self { certificate: certificate.into(), key, peer })
    }

    pub(crate) fn certificate(&self) -> CertificateDer<'static> {
        self.certificate.clone()
    }

    pub(crate) fn private_key(&self) -> PrivateKeyDer<'static> {
        PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(self.key.serialize_der()))
    }
}

/// Who shows this key, given as the DER of its SubjectPublicKeyInfo.
pub(crate) fn peer_id_of_key(public_key_info: &[u8]) -> PeerId {
    PeerId::from_bytes(blake3::hash(public_key_info).into())
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Identity").field("peer", &self.peer).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_and_read_back() {
        let first = Identity::generate().unwrap();
        let again = Identity::from_pkcs8(&first.to_pkcs8()).unwrap();
        assert_eq!(first.peer_id(), again.peer_id());
        assert_ne!(first.peer_id(), Identity::generate().unwrap().peer_id());
    }

    #[test]
    fn what_is_no_key() {
        let key = Identity::generate().unwrap().to_pkcs8();
        let p256 = KeyPair::generate().unwrap().serialize_der();
        for bytes in [&[][..], b"0", &key[..key.len() - 1], &p256] {
            assert!(Identity::from_pkcs8(bytes).is_err());
        }
    }

    #[test]
    fn the_key_stays_out_of_logs() {
        let identity = Identity::generate().unwrap();
        assert_eq!(format!("{identity:?}"), format!("Identity {{ peer: {:?}, .. }}", identity.peer_id()));
    }
}
