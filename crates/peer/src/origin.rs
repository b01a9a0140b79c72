//! The server as a client sees it: its manifest, and the control channel that is opened again and again.

use crate::cache::{Cache, CacheError, KnownUrl};
use crate::config::{Config, ServerKeys};
use crate::error::{DownloadError, GetError};
use bytes::Bytes;
use hybrid_manifest::{ContentId, ManifestError, ServerKey, SignedManifest, Trust};
use hybrid_server_transport::client::{ClientConfig, ClientControl, ClientControlSender, FetchError, ServerClient};
use hybrid_session::Rejoin;
use hybrid_units::UnixTime;
use hybrid_wire::control::ServerMessage;
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc;
use tracing::{debug, info, warn};

/// A content's server and what it says the content is.
pub(crate) struct Origin {
    pub(crate) client: ServerClient,
    pub(crate) manifest: SignedManifest,
    /// It as it came.
    encoded: Bytes,
    /// Why the manifest comes from the cache, if it does.
    pub(crate) away: Option<FetchError>,
}

/// The civil time now.
pub(crate) fn unix_now() -> UnixTime {
    // A clock before 1970 is as wrong as one in 1970, and every manifest will say so.
    UnixTime::from_secs(SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

impl Origin {
    /// Fetches the manifest of `url`, or takes the one from before if the server is away. Keeps nothing yet.
    pub(crate) async fn open(url: &str, cache: &Cache, config: &Config) -> Result<Self, GetError> {
        let known = cache.known_url(url)?;
        match fetch(url, config).await {
            Ok((client, bytes)) => {
                let server = client.server().to_string();
                let manifest = decode(&bytes, &server, cache, config)?;
                manifest.manifest().check_time(unix_now())?;
                if let Some(known) = known {
                    let before = cache.manifest(known.content)?;
                    match before.and_then(|bytes| decode(&bytes, &server, cache, config).ok()) {
                        Some(before) => manifest.manifest().check_succeeds(before.manifest())?,
                        None => {
                            let trust = trust(&config.server_keys, cache.server_keys(&server)?);
                            check_succeeds_evicted(&manifest, &known, &trust)?;
                        }
                    }
                }
                Ok(Self { client, manifest, encoded: bytes, away: None })
            }
            Err(error) if error.is_retryable() => {
                let Some(KnownUrl { content, server, .. }) = known else { return Err(error.into()) };
                let Some(bytes) = cache.manifest(content)? else { return Err(error.into()) };
                let manifest = match decode(&bytes, &server, cache, config) {
                    Ok(manifest) => manifest,
                    // Told as it is, a damaged key would be a server that changed its key, and its pin be removed for it.
                    Err(reason @ (GetError::Manifest(_) | GetError::KeyChanged { .. })) => {
                        warn!(%reason, "the manifest in the cache cannot be used");
                        return Err(error.into());
                    }
                    Err(failed) => return Err(failed),
                };
                manifest.manifest().check_time(unix_now())?;
                let client = ServerClient::new(server.parse()?, &config.tls_trust, ClientConfig::default())?;
                info!(%error, "the server is away; its last manifest is used");
                Ok(Self { client, manifest, encoded: bytes.into(), away: Some(error) })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Keeps the manifest, and the server's keys if it was the one that told them. Room for them was made before.
    pub(crate) fn keep(&self, url: &str, cache: &Cache, config: &Config) -> Result<(), CacheError> {
        let (manifest, server) = (self.manifest.manifest(), self.client.server().to_string());
        if self.away.is_none() && config.server_keys == ServerKeys::FirstUse {
            cache.pin(&server, manifest.keys())?;
        }
        cache.remember(url, &server, manifest, &self.encoded)
    }
}

/// As [`hybrid_manifest::Manifest::check_succeeds`], where all that is left of the manifest before is its line in the URL's file.
fn check_succeeds_evicted(now: &SignedManifest, known: &KnownUrl, trust: &Trust) -> Result<(), ManifestError> {
    let now = now.manifest();
    let Some((epoch, signer)) = known.seen else { return Ok(()) };
    // A key that is no longer trusted says nothing about those that are.
    match trust {
        Trust::Keys(keys) if !keys.contains(&signer) => Ok(()),
        _ if now.epoch() < epoch => Err(ManifestError::Rollback { known: epoch, got: now.epoch() }),
        _ if now.epoch() == epoch && now.content() != known.content => Err(ManifestError::Conflict { epoch }),
        _ => Ok(()),
    }
}

/// Fetches a manifest and checks it; changes nothing in the cache.
pub(crate) async fn inspect(url: &str, cache: Option<&Cache>, config: &Config) -> Result<SignedManifest, GetError> {
    let (client, bytes) = fetch(url, config).await?;
    match cache {
        Some(cache) => decode(&bytes, &client.server().to_string(), cache, config),
        None => Ok(SignedManifest::decode(&bytes, &trust(&config.server_keys, Vec::new()))?),
    }
}

/// Asks for a manifest once more, which makes a server that has just started prepare the content, and fails only if another
/// content is there now, or none: everything else may pass.
pub(crate) async fn ask_again(url: &str, content: ContentId, config: &Config) -> Result<(), DownloadError> {
    let bytes = match fetch(url, config).await {
        Ok((_, bytes)) => bytes,
        Err(FetchError::Status { status: status @ (404 | 410), .. }) => return Err(DownloadError::NotFound { status }),
        Err(error) => {
            debug!(%error, "no manifest to compare with");
            return Ok(());
        }
    };
    // Only the id is compared and nothing kept, so any key will do; whoever starts again checks it.
    match SignedManifest::decode(&bytes, &Trust::FirstUse) {
        Ok(now) if now.manifest().content() != content => {
            Err(DownloadError::Changed { content: now.manifest().content() })
        }
        Ok(_) => Ok(()),
        Err(error) => {
            debug!(%error, "no manifest to compare with");
            Ok(())
        }
    }
}

async fn fetch(url: &str, config: &Config) -> Result<(ServerClient, Bytes), FetchError> {
    let (client, path) = ServerClient::discover(url, &config.tls_trust, ClientConfig::default()).await?;
    let bytes = client.manifest(&path).await?;
    Ok((client, bytes))
}

fn trust(keys: &ServerKeys, pinned: Vec<ServerKey>) -> Trust {
    match keys {
        ServerKeys::Only(keys) => Trust::Keys(keys.clone()),
        ServerKeys::FirstUse if pinned.is_empty() => Trust::FirstUse,
        ServerKeys::FirstUse => Trust::Keys(pinned),
    }
}

fn decode(bytes: &[u8], server: &str, cache: &Cache, config: &Config) -> Result<SignedManifest, GetError> {
    let pinned = cache.server_keys(server)?;
    let met_before = config.server_keys == ServerKeys::FirstUse && !pinned.is_empty();
    match SignedManifest::decode(bytes, &trust(&config.server_keys, pinned)) {
        Ok(manifest) => Ok(manifest),
        Err(ManifestError::UntrustedKey { key }) if met_before => {
            Err(GetError::KeyChanged { server: server.to_owned(), got: key, kept_in: cache.keys_path(server) })
        }
        Err(error) => Err(error.into()),
    }
}

/// What the control channel tells.
#[derive(Debug)]
pub(crate) enum ControlEvent {
    /// It is open; what is said goes here.
    Opened(ClientControlSender),
    /// The server said something.
    Message(ServerMessage),
    /// It is gone, or could not be opened; another try comes after the pause.
    Closed { reason: String, retry_in: Duration },
}

/// Opens the control channel, and opens it again whenever it is gone, until nobody listens any more.
///
/// When, [`Rejoin`] says.
pub(crate) async fn keep_control_open(client: ServerClient, mut rejoin: Rejoin, events: mpsc::Sender<ControlEvent>) {
    loop {
        let (reason, asked) = match client.control().await {
            Ok(control) => {
                let (reason, welcomed) = listen(control, &events).await;
                if welcomed {
                    rejoin.welcomed();
                }
                (reason, None)
            }
            Err(error) => (error.to_string(), error.retry_after()),
        };
        let retry_in = rejoin.pause().max(asked.unwrap_or_default());
        debug!(reason, ?retry_in, "no control channel");
        if events.send(ControlEvent::Closed { reason, retry_in }).await.is_err() {
            return;
        }
        tokio::select! {
            () = tokio::time::sleep(retry_in) => {}
            () = events.closed() => return,
        }
    }
}

/// Passes on what the server says until the channel ends; tells why it did, and whether the client was welcome: whoever is
/// refused comes back later and later.
async fn listen(mut control: ClientControl, events: &mpsc::Sender<ControlEvent>) -> (String, bool) {
    let nobody = || "nobody listens any more".to_owned();
    if events.send(ControlEvent::Opened(control.sender())).await.is_err() {
        return (nobody(), false);
    }
    let mut welcomed = false;
    loop {
        let message = tokio::select! {
            message = control.recv() => message,
            () = events.closed() => return (nobody(), welcomed),
        };
        match message {
            Some(Ok(message)) => {
                welcomed |= matches!(message, ServerMessage::Welcome(_));
                if events.send(ControlEvent::Message(message)).await.is_err() {
                    return (nobody(), welcomed);
                }
            }
            Some(Err(error)) => return (error.to_string(), welcomed),
            None => return ("the server closed the control channel".to_owned(), welcomed),
        }
    }
}
