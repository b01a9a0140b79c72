//! `hybrid-peer get`: one content, from its server and from peers, to a file.

use crate::args::{self, Stay, Tls};
use crate::failure::{Failure, INTERRUPTED};
use crate::report::Report;
use hybrid_manifest::Manifest;
use hybrid_peer::{Config, DhtConfig, Download, Overwrite, Peer, TlsTrust, check_output};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use tokio::signal::unix::{Signal, SignalKind, signal};

/// A file of certificates is some hundred kilobytes at most.
const CA_BYTES_MAX: u64 = 4 << 20;

pub(crate) async fn run(args: args::Get) -> Result<ExitCode, Failure> {
    let mut interrupts = Interrupts::new()?;
    let (peer, run) = tokio::select! {
        begun = begin(args) => begun?,
        // Before there is anything to save.
        () = interrupts.next() => return Ok(ExitCode::from(INTERRUPTED)),
    };
    let code = run.finish(interrupts).await;
    peer.close().await;
    code
}

async fn begin(args: args::Get) -> Result<(Peer, Run), Failure> {
    let overwrite = if args.force { Overwrite::Replace } else { Overwrite::Refuse };
    if let Some(output) = &args.output {
        check_output(output, overwrite)?;
    }
    let cache = cache_folder(args.cache.clone())?;
    let peer = Peer::open(&cache, config(&args)?).await?;
    let download = peer.get(&args.url).await?;
    let output = match args.output {
        Some(output) => output,
        None => {
            let output = output_of(download.manifest());
            check_output(&output, overwrite)?;
            output
        }
    };
    let report = Report::new(args.json, download.manifest());
    let port = peer.local_addr().ok().map(|address| address.port());
    report.started(download.manifest(), peer.peer_id(), download.recovery().recovered, port)?;
    if let Some(why) = download.manifest_from_cache() {
        report.without_server(why)?;
    }
    Ok((peer, Run { download, report, output, overwrite, stay: args.stay }))
}

/// A download with what is to become of it.
struct Run {
    download: Download,
    report: Report,
    output: PathBuf,
    overwrite: Overwrite,
    stay: Option<Stay>,
}

impl Run {
    async fn finish(mut self, mut interrupts: Interrupts) -> Result<ExitCode, Failure> {
        let fetched = self.fetch(&mut interrupts).await;
        let finished = self.report.started_at().elapsed();
        let done = match fetched {
            Ok(Ended::Complete) => self.write_and_stay(&mut interrupts).await,
            other => other.map(|_| Ended::Interrupted),
        };
        let complete = matches!(done, Ok(Ended::Complete));
        let progress = self.download.close().await;
        let told = self.report.summary(&progress, complete, complete.then_some(finished));
        match done? {
            Ended::Complete => told.map(|()| ExitCode::SUCCESS),
            Ended::Interrupted => Ok(ExitCode::from(INTERRUPTED)),
        }
    }

    async fn fetch(&mut self, interrupts: &mut Interrupts) -> Result<Ended, Failure> {
        loop {
            // Waiting and events both need the download, so they take turns; events come several times a second.
            let event = tokio::select! {
                event = self.download.next_event() => event,
                () = interrupts.next() => return Ok(Ended::Interrupted),
            };
            if let Some(event) = &event {
                self.report.event(event)?;
            }
            let ended = tokio::time::timeout(Duration::ZERO, self.download.wait()).await;
            if ended.is_ok() {
                // What happened before the end is told before it.
                while let Some(event) = self.download.told_event() {
                    self.report.event(&event)?;
                }
            }
            match (ended, event) {
                (Ok(Ok(())), _) => return Ok(Ended::Complete),
                (Ok(Err(error)), _) => return Err(error.into()),
                (Err(_), Some(_)) => {}
                (Err(_), None) => return self.download.wait().await.map(|()| Ended::Complete).map_err(Failure::from),
            }
        }
    }

    /// Writes the file; from then on an interruption is the ordinary way to end.
    async fn write_and_stay(&mut self, interrupts: &mut Interrupts) -> Result<Ended, Failure> {
        tokio::select! {
            written = self.download.export(&self.output, self.overwrite) => written?,
            () = interrupts.next() => return Ok(Ended::Interrupted),
        }
        self.report.complete(&self.output, &self.download.progress())?;
        let Some(stay) = self.stay else { return Ok(Ended::Complete) };
        let over = async {
            match stay {
                Stay::For(duration) => tokio::time::sleep(duration).await,
                Stay::Forever => std::future::pending().await,
            }
        };
        tokio::pin!(over);
        loop {
            tokio::select! {
                event = self.download.next_event() => match event {
                    Some(event) => self.report.event(&event)?,
                    None => return Ok(Ended::Complete),
                },
                () = &mut over => return Ok(Ended::Complete),
                () = interrupts.next() => return Ok(Ended::Complete),
            }
        }
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ended {
    Complete,
    Interrupted,
}

/// Ctrl-C and what a service manager sends. The second one ends the program at once.
struct Interrupts {
    interrupt: Signal,
    terminate: Signal,
}

impl Interrupts {
    fn new() -> Result<Self, Failure> {
        let of = |kind| signal(kind).map_err(|error| Failure::system("cannot watch for signals", &error));
        Ok(Self { interrupt: of(SignalKind::interrupt())?, terminate: of(SignalKind::terminate())? })
    }

    /// Waits for the first one. From then on, another one ends the program at once.
    async fn next(&mut self) {
        self.wait().await;
        if let Ok(mut more) = Self::new() {
            tokio::spawn(async move {
                more.wait().await;
                std::process::exit(INTERRUPTED.into());
            });
        }
    }

    async fn wait(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

fn config(args: &args::Get) -> Result<Config, Failure> {
    let mut config = Config::default();
    config.program = concat!("hybrid-peer/", env!("CARGO_PKG_VERSION")).to_owned();
    config.listen = args.listen;
    config.upload = !args.no_upload;
    config.upload_limit = args.upload_limit;
    config.upload_volume_max = args.upload_volume;
    config.upload_ratio_max = args.upload_ratio;
    config.upload_hours = args.upload_hours;
    config.metered = args.metered;
    config.allow_peers.clone_from(&args.allow_peers);
    config.cache_limit = args.cache_limit;
    config.dht = args.dht.then(|| DhtConfig { nodes: args.dht_node.clone() });
    config.tell_parts = args.parts;
    config.tls_trust = tls_trust(&args.tls)?;
    Ok(config)
}

pub(crate) fn tls_trust(tls: &Tls) -> Result<TlsTrust, Failure> {
    if let Some(fingerprint) = tls.tls_fingerprint {
        return Ok(TlsTrust::Fingerprint(fingerprint));
    }
    if tls.tls_ca.is_empty() {
        return Ok(TlsTrust::Platform);
    }
    let files: Result<Vec<Vec<u8>>, Failure> = tls.tls_ca.iter().map(|path| read_ca(path)).collect();
    Ok(TlsTrust::Pem(files?.join(&b'\n')))
}

fn read_ca(path: &Path) -> Result<Vec<u8>, Failure> {
    let failure = |why: String| Failure::file(format!("cannot read {}: {why}", path.display()));
    let found = std::fs::metadata(path).map_err(|error| failure(error.to_string()))?;
    if !found.is_file() || found.len() > CA_BYTES_MAX {
        return Err(failure("not a file of certificates".to_owned()));
    }
    std::fs::read(path).map_err(|error| failure(error.to_string()))
}

/// The folder that was asked for, or `hybrid` in the user's cache folder.
fn cache_folder(asked: Option<PathBuf>) -> Result<PathBuf, Failure> {
    cache_folder_from(asked, |name| std::env::var_os(name).filter(|value| !value.is_empty()))
}

fn cache_folder_from(asked: Option<PathBuf>, variable: impl Fn(&str) -> Option<OsString>) -> Result<PathBuf, Failure> {
    if let Some(asked) = asked {
        return Ok(asked);
    }
    let base = variable("XDG_CACHE_HOME").map(PathBuf::from).filter(|path| path.is_absolute());
    let base = base.or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".cache")));
    let missing = "neither XDG_CACHE_HOME nor HOME is set, so there is no place for the cache; give --cache DIR";
    Ok(base.ok_or_else(|| Failure::config(missing))?.join("hybrid"))
}

/// The content's own name, without its folders: a manifest's name was checked to be one that is safe to write.
fn output_of(manifest: &Manifest) -> PathBuf {
    let name = manifest.name();
    PathBuf::from(name.rsplit('/').next().unwrap_or(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn where_the_cache_is() {
        let none = |_: &str| None;
        let home = |name: &str| (name == "HOME").then(|| "/home/me".into());
        let both = |name: &str| Some(if name == "HOME" { "/home/me".into() } else { "/var/cache/me".into() });
        let relative = |name: &str| Some(if name == "HOME" { "/home/me".into() } else { "here".into() });
        let folder = |variable: &dyn Fn(&str) -> Option<OsString>| cache_folder_from(None, variable);
        assert_eq!(cache_folder_from(Some("x".into()), none).unwrap(), Path::new("x"));
        assert_eq!(folder(&home).unwrap(), Path::new("/home/me/.cache/hybrid"));
        assert_eq!(folder(&both).unwrap(), Path::new("/var/cache/me/hybrid"));
        assert_eq!(folder(&relative).unwrap(), Path::new("/home/me/.cache/hybrid"));
        assert!(folder(&none).is_err());
    }
}
