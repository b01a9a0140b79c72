//! The state folder: the server's keys, for its owner's eyes only.

use hybrid_manifest::{ServerKey, SigningKey, server_key};
use hybrid_server_transport::{TlsIdentity, TlsIdentityError};
use std::fmt;
use std::fs::{DirBuilder, File, OpenOptions};
use std::io::{self, Read as _, Write as _};
use std::net::IpAddr;
use std::path::{Path, PathBuf};

/// The folder in which a server keeps what makes it the same server after a restart.
#[derive(Clone, Debug)]
pub struct StateFolder {
    path: PathBuf,
}

/// Who the server is: the key that signs manifests and tickets, and a secret that binds tickets to networks.
#[derive(Clone)]
pub struct Identity {
    pub(crate) key: SigningKey,
    pub(crate) network_secret: [u8; 32],
}

/// Why the state cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StateError {
    /// A file or the folder cannot be read or written.
    #[error("{}: {source}", path.display())]
    Io {
        /// Which.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// Others may read a secret.
    #[error("{} is readable by others ({mode:04o})", path.display())]
    Readable {
        /// Which.
        path: PathBuf,
        /// Its permissions.
        mode: u32,
    },
    /// A secret has not the length that it must have.
    #[error("{} has {got} bytes instead of {expected}", path.display())]
    Length {
        /// Which.
        path: PathBuf,
        /// How long it must be.
        expected: usize,
        /// How long it is.
        got: usize,
    },
    /// The operating system gives no randomness.
    #[error("the operating system gives no randomness")]
    Random,
    /// The kept certificate cannot be used.
    #[error("{}: {source}", path.display())]
    Tls {
        /// Which.
        path: PathBuf,
        /// What is wrong with it.
        source: TlsIdentityError,
    },
}

impl StateFolder {
    /// Opens the folder, and makes it (for its owner only) where it is not there.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn open(path: &Path) -> Result<Self, StateError> {
        let mut builder = DirBuilder::new();
        builder.recursive(true);
        #[cfg(unix)]
        std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
        builder.create(path).map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        let path = path.canonicalize().map_err(|source| StateError::Io { path: path.to_owned(), source })?;
        Ok(Self { path })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The server's identity: kept, or new at the first start.
    ///
    /// # Errors
    /// When the files cannot be read or written, are not what they must be, or are open to others.
    pub fn identity(&self) -> Result<Identity, StateError> {
        let key = SigningKey::from_bytes(&self.secret("server.key")?);
        Ok(Identity { key, network_secret: self.secret("network.secret")? })
    }

    /// A self-signed certificate for these names and addresses: kept, or new when it was for others.
    ///
    /// # Errors
    /// When it cannot be read, written or made.
    pub fn self_signed(&self, names: &[String], addresses: &[IpAddr]) -> Result<TlsIdentity, StateError> {
        let path = self.path.join("tls-self-signed.pem");
        let tls = |source| StateError::Tls { path: path.clone(), source };
        // Text before the first section belongs to no section: it says for whom the certificate is.
        let addresses_text = addresses.iter().map(IpAddr::to_string);
        let header = format!("for {}\n", names.iter().cloned().chain(addresses_text).collect::<Vec<_>>().join(" "));
        match self.read(&path) {
            Ok(kept) if kept.starts_with(header.as_bytes()) => return TlsIdentity::from_pem(&kept, &kept).map_err(tls),
            Ok(_) => std::fs::remove_file(&path).map_err(|source| StateError::Io { path: path.clone(), source })?,
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let (identity, certificate, key) = TlsIdentity::self_signed(names, addresses).map_err(tls)?;
        self.write(&path, format!("{header}{certificate}{key}").as_bytes())?;
        Ok(identity)
    }

    /// 32 bytes that are kept, or drawn at the first start.
    fn secret(&self, name: &str) -> Result<[u8; 32], StateError> {
        let path = self.path.join(name);
        match self.read(&path) {
            Ok(bytes) => {
                let got = bytes.len();
                bytes.try_into().map_err(|_| StateError::Length { path, expected: 32, got })
            }
            Err(StateError::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                let mut secret = [0; 32];
                getrandom::fill(&mut secret).map_err(|_| StateError::Random)?;
                self.write(&path, &secret)?;
                Ok(secret)
            }
            Err(error) => Err(error),
        }
    }

    fn read(&self, path: &Path) -> Result<Vec<u8>, StateError> {
        let error = |source| StateError::Io { path: path.to_owned(), source };
        let file = File::open(path).map_err(error)?;
        check_private(path, &file)?;
        let mut bytes = Vec::new();
        // A certificate with its key has some kilobytes; a file that grew is not ours.
        file.take(64 << 10).read_to_end(&mut bytes).map_err(error)?;
        Ok(bytes)
    }

    /// Writes a file that is whole or not there, and never readable by others.
    fn write(&self, path: &Path, bytes: &[u8]) -> Result<(), StateError> {
        let error = |source| StateError::Io { path: path.to_owned(), source };
        let mut unique = [0; 8];
        getrandom::fill(&mut unique).map_err(|_| StateError::Random)?;
        let temporary = path.with_extension(format!("new-{:016x}", u64::from_le_bytes(unique)));
        let mut options = OpenOptions::new();
        options.write(true).create_new(true);
        #[cfg(unix)]
        std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
        let written = options.open(&temporary).and_then(|mut file| {
            file.write_all(bytes)?;
            file.sync_all()
        });
        // A link fails where the name is taken, a rename does not: of two servers that start at once, one key stays.
        let placed = written.and_then(|()| std::fs::hard_link(&temporary, path));
        drop(std::fs::remove_file(&temporary));
        placed.map_err(error)
    }
}

#[cfg(unix)]
fn check_private(path: &Path, file: &File) -> Result<(), StateError> {
    use std::os::unix::fs::PermissionsExt as _;
    let metadata = file.metadata().map_err(|source| StateError::Io { path: path.to_owned(), source })?;
    let mode = metadata.permissions().mode() & 0o7777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(StateError::Readable { path: path.to_owned(), mode }) }
}

#[cfg(not(unix))]
fn check_private(_: &Path, _: &File) -> Result<(), StateError> {
    Ok(())
}

impl Identity {
    /// An identity that is nobody's: for tests, and for servers that need not be known again.
    ///
    /// # Errors
    /// When the operating system gives no randomness.
    pub fn ephemeral() -> Result<Self, StateError> {
        let mut bytes = [[0; 32]; 2];
        for bytes in &mut bytes {
            getrandom::fill(bytes).map_err(|_| StateError::Random)?;
        }
        let [key, network_secret] = bytes;
        Ok(Self { key: SigningKey::from_bytes(&key), network_secret })
    }

    /// The key, for who signs manifests without an [`crate::Origin`].
    pub fn signing_key(&self) -> &SigningKey {
        &self.key
    }

    /// The public key, which manifests name.
    pub fn server_key(&self) -> ServerKey {
        server_key(&self.key)
    }
}

impl fmt::Debug for Identity {
    /// Says nothing of the secrets.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.server_key())
    }
}

#[cfg(test)]
#[cfg(unix)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_same_server_after_a_restart() {
        let outer = tempfile::tempdir().unwrap();
        let path = outer.path().join("a/b");
        let first = StateFolder::open(&path).unwrap().identity().unwrap();
        let second = StateFolder::open(&path).unwrap().identity().unwrap();
        assert_eq!(first.server_key(), second.server_key());
        assert_eq!(first.network_secret, second.network_secret);
        let mode = |name: &str| std::fs::metadata(path.join(name)).unwrap().permissions().mode() & 0o777;
        assert_eq!((mode("."), mode("server.key"), mode("network.secret")), (0o700, 0o600, 0o600));
        assert_eq!(path.read_dir().unwrap().count(), 2, "nothing is left behind");
    }

    #[test]
    fn keys_that_are_not_private_or_not_keys_are_refused() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateFolder::open(outer.path()).unwrap();
        state.identity().unwrap();
        let key = state.path().join("server.key");
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o644)).unwrap();
        assert!(matches!(state.identity(), Err(StateError::Readable { mode: 0o644, .. })));
        std::fs::set_permissions(&key, PermissionsExt::from_mode(0o600)).unwrap();
        std::fs::write(&key, b"short").unwrap();
        assert!(matches!(state.identity(), Err(StateError::Length { expected: 32, got: 5, .. })));
    }

    #[test]
    fn a_certificate_is_kept_while_it_fits() {
        let outer = tempfile::tempdir().unwrap();
        let state = StateFolder::open(outer.path()).unwrap();
        let local = ["127.0.0.1".parse().unwrap()];
        let first = state.self_signed(&[], &local).unwrap().fingerprint();
        assert_eq!(state.self_signed(&[], &local).unwrap().fingerprint(), first);
        let other = state.self_signed(&["example.org".to_owned()], &local).unwrap().fingerprint();
        assert_ne!(other, first);
    }
}
