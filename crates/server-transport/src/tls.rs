//! Certificates and keys, and the one crypto provider.
//!
//! The provider is always passed: what a process has installed as its default is not ours to rely on.

use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{CipherSuite, ServerConfig, SupportedCipherSuite};
use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

/// The SHA-256 of a certificate, as `openssl x509 -noout -fingerprint -sha256` prints it.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint([u8; 32]);

/// A text that is no fingerprint.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a certificate's fingerprint is its SHA-256: 64 hexadecimal digits, colons between the bytes allowed")]
pub struct ParseFingerprintError;

impl Fingerprint {
    /// The fingerprint with these bytes.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    pub(crate) fn of(certificate: &CertificateDer<'_>) -> Option<Self> {
        let sha256 = provider().cipher_suites.iter().find_map(|suite| match suite {
            SupportedCipherSuite::Tls13(suite) => {
                (suite.common.suite == CipherSuite::TLS13_AES_128_GCM_SHA256).then_some(suite.common.hash_provider)
            }
            _ => None,
        })?;
        sha256.hash(certificate).as_ref().try_into().ok().map(Self)
    }
}

impl fmt::Display for Fingerprint {
    /// 64 lower-case hexadecimal digits.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Fingerprint({self})")
    }
}

impl FromStr for Fingerprint {
    type Err = ParseFingerprintError;

    fn from_str(text: &str) -> Result<Self, ParseFingerprintError> {
        let mut digits = text.chars().filter(|c| *c != ':');
        let mut bytes = [0; 32];
        for byte in &mut bytes {
            let mut digit = || digits.next().and_then(|c| c.to_digit(16)).and_then(|digit| u8::try_from(digit).ok());
            let (Some(high), Some(low)) = (digit(), digit()) else { return Err(ParseFingerprintError) };
            *byte = high * 16 + low;
        }
        digits.next().map_or(Ok(Self(bytes)), |_| Err(ParseFingerprintError))
    }
}

/// A server's certificate with its key.
pub struct TlsIdentity {
    chain: Vec<CertificateDer<'static>>,
    key: PrivateKeyDer<'static>,
}

/// Why there is no identity.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsIdentityError {
    /// No certificate in the file.
    #[error("the certificate file holds no certificate in PEM form")]
    NoCertificate,
    /// No key in the file.
    #[error("the key file holds no private key in PEM form (PKCS #8, PKCS #1 or SEC1)")]
    NoKey,
    /// They do not belong together, or are of a kind that we do not speak.
    #[error("the certificate and the key cannot be used: {0}")]
    Unusable(String),
    /// A certificate could not be made.
    #[error("a self-signed certificate cannot be made: {0}")]
    SelfSigned(String),
}

impl TlsIdentity {
    /// A certificate chain, the server's own first, and its key, both in PEM form.
    ///
    /// # Errors
    /// When one of them is missing, or they do not belong together.
    pub fn from_pem(certificates: &[u8], key: &[u8]) -> Result<Self, TlsIdentityError> {
        let chain: Vec<_> = CertificateDer::pem_slice_iter(certificates)
            .collect::<Result<_, _>>()
            .map_err(|_| TlsIdentityError::NoCertificate)?;
        if chain.is_empty() {
            return Err(TlsIdentityError::NoCertificate);
        }
        let key = PrivateKeyDer::from_pem_slice(key).map_err(|_| TlsIdentityError::NoKey)?;
        let identity = Self { chain, key };
        identity.server_config()?;
        Ok(identity)
    }

    /// A new key, and a certificate for these host names and addresses that only itself vouches for.
    ///
    /// Returns the identity with its certificate and key in PEM form, to be kept.
    ///
    /// # Errors
    /// When a name is no DNS name.
    pub fn self_signed(names: &[String], addresses: &[IpAddr]) -> Result<(Self, String, String), TlsIdentityError> {
        let error = |error: rcgen::Error| TlsIdentityError::SelfSigned(error.to_string());
        let names: Vec<_> = names.iter().cloned().chain(addresses.iter().map(IpAddr::to_string)).collect();
        let made = rcgen::generate_simple_self_signed(names).map_err(error)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        let identity = Self::from_pem(certificate.as_bytes(), key.as_bytes())?;
        Ok((identity, certificate, key))
    }

    /// The fingerprint of the server's own certificate: what a client is told to trust a self-signed one.
    pub fn fingerprint(&self) -> Fingerprint {
        let found = self.chain.first().and_then(Fingerprint::of);
        found.expect("an identity holds a certificate, and the provider has SHA-256")
    }

    pub(crate) fn server_config(&self) -> Result<ServerConfig, TlsIdentityError> {
        let unusable = |error: rustls::Error| TlsIdentityError::Unusable(error.to_string());
        let mut config = ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()
            .map_err(unusable)?
            .with_no_client_auth()
            .with_single_cert(self.chain.clone(), self.key.clone_key())
            .map_err(unusable)?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Clients with OpenSSL ask for AES-256 first, which costs a third more here and brings nothing that they need.
        config.ignore_client_order = true;
        Ok(config)
    }
}

impl fmt::Debug for TlsIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsIdentity").finish_non_exhaustive()
    }
}

/// aws-lc-rs with AES-128 first, which costs less processor time for each part than AES-256; TLS 1.3 before TLS 1.2.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    let mut provider = aws_lc_rs::default_provider();
    let is_aes_128 = |suite: CipherSuite| {
        use CipherSuite as Suite;
        matches!(
            suite,
            Suite::TLS13_AES_128_GCM_SHA256
                | Suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256
                | Suite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256
        )
    };
    provider.cipher_suites.sort_by_key(|suite| (suite.tls13().is_none(), !is_aes_128(suite.suite())));
    Arc::new(provider)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fingerprints_both_ways() {
        let (identity, _, _) = TlsIdentity::self_signed(&["localhost".to_owned()], &[]).unwrap();
        let fingerprint = identity.fingerprint();
        let text = fingerprint.to_string();
        assert_eq!(text.parse(), Ok(fingerprint));
        let pairs: Vec<_> = (0..32).map(|index| text[2 * index..2 * index + 2].to_uppercase()).collect();
        assert_eq!(pairs.join(":").parse(), Ok(fingerprint));
        assert_eq!(text[..62].parse::<Fingerprint>(), Err(ParseFingerprintError));
        assert_eq!(format!("{text}0").parse::<Fingerprint>(), Err(ParseFingerprintError));
    }

    #[test]
    fn a_key_of_another_certificate_is_refused() {
        let (_, certificate, key) = TlsIdentity::self_signed(&[], &["127.0.0.1".parse().unwrap()]).unwrap();
        let (_, _, other_key) = TlsIdentity::self_signed(&["localhost".to_owned()], &[]).unwrap();
        assert!(TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes()).is_ok());
        let pem = |certificate: &str, key: &str| TlsIdentity::from_pem(certificate.as_bytes(), key.as_bytes());
        assert!(matches!(pem(&certificate, &other_key), Err(TlsIdentityError::Unusable(_))));
        assert!(matches!(pem("", &key), Err(TlsIdentityError::NoCertificate)));
        assert!(matches!(pem(&certificate, "garbage"), Err(TlsIdentityError::NoKey)));
    }
}
