//! `hybrid-server serve`.

use crate::args::Serve;
use crate::failure::Failure;
use crate::print_line;
use crate::settings::{Settings, Tls};
use hybrid_origin::{Identity, Origin, StateFolder, TlsIdentity};
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::signal::unix::{SignalKind, signal};

/// Clients report about as often.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// As a shell shows SIGINT: the second signal found answers still under way.
const INTERRUPTED: i32 = 130;

pub(crate) fn run(args: Serve) -> Result<(), Failure> {
    let check_only = args.check_config;
    let settings = Settings::read(args, |name| std::env::var_os(name).map(PathBuf::from))?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::file(format!("cannot start: {error}")))?;
    let done = if check_only { runtime.block_on(check(settings)) } else { runtime.block_on(serve(settings)) };
    // A file that is being prepared is not waited for.
    runtime.shutdown_background();
    done
}

/// Everything but opening a port, and without making what is not there yet.
async fn check(mut settings: Settings) -> Result<(), Failure> {
    check_state(&settings)?;
    let kept = settings.state.exists();
    let identity = if kept { StateFolder::open(&settings.state)?.identity()? } else { Identity::ephemeral()? };
    settings.origin.prepare_at_start = false;
    if settings.tls != Tls::SelfSigned {
        drop(tls_identity(&settings, None)?);
    }
    drop(Origin::open(&settings.folder, identity, settings.origin)?);
    print_line("the configuration is good")
}

async fn serve(settings: Settings) -> Result<(), Failure> {
    check_state(&settings)?;
    let state = StateFolder::open(&settings.state)?;
    let tls = tls_identity(&settings, Some(&state))?;
    let listeners = settings.listen.iter().map(|address| bind(*address)).collect::<Result<Vec<_>, _>>()?;
    let origin = Origin::open(&settings.folder, state.identity()?, settings.origin.clone())?;
    let mut interrupts = signal(SignalKind::interrupt()).map_err(no_signals)?;
    let mut terminations = signal(SignalKind::terminate()).map_err(no_signals)?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    if let (Tls::SelfSigned, Some(identity)) = (&settings.tls, &tls) {
        print_line(&format!("certificate fingerprint {}", identity.fingerprint()))?;
    }
    for listener in &listeners {
        let address = listener.local_addr().map_err(|error| Failure::network(error.to_string()))?;
        print_line(&format!("listening on {scheme}://{address}"))?;
    }
    tracing::info!(folder = %settings.folder.display(), server_key = %origin.server_key(), "serving");
    let mut config = settings.server;
    config.tls = tls;
    let (wait, swarms) = (settings.wait_for_swarm, origin.clone());
    let shutdown = async move {
        tokio::select! {
            _ = interrupts.recv() => {}
            _ = terminations.recv() => {}
        }
        let waits = if wait.is_some() { " until the clients hold enough, and" } else { "" };
        tracing::info!("stopping: waiting{waits} for answers under way; a second signal ends at once");
        tokio::spawn(async move {
            tokio::select! {
                _ = interrupts.recv() => {}
                _ = terminations.recv() => {}
            }
            std::process::exit(INTERRUPTED);
        });
        if let Some(limit) = wait {
            wait_for_swarms(&swarms, limit).await;
        }
    };
    #[cfg(unix)]
    match crate::status::listen(state.path()) {
        Ok(listener) => drop(tokio::spawn(crate::status::answer_all(listener, origin.clone()))),
        Err(error) => tracing::warn!(%error, "`hybrid-server explain` will get no answer"),
    }
    let summary = origin.serve(listeners, config, shutdown).await;
    let summary = summary.map_err(|error| Failure::network(error.to_string()))?;
    tracing::info!(
        connections = summary.connections,
        refused = summary.refused,
        cut = summary.cut,
        sent_bytes = origin.sent_bytes(),
        "stopped"
    );
    Ok(())
}

/// Goes on serving until clients hold enough copies of all that they have come for, but no longer than this.
async fn wait_for_swarms(origin: &Origin, limit: Duration) {
    let began = Instant::now();
    loop {
        let survivals = origin.survivals();
        let unsafe_ones = || survivals.iter().filter(|(_, survival)| !survival.may_stop());
        let waited_secs = began.elapsed().as_secs_f64();
        if unsafe_ones().next().is_none() {
            return tracing::info!(
                waited_secs,
                contents = survivals.len(),
                "the clients keep all parts without the server"
            );
        }
        if began.elapsed() >= limit {
            for (content, survival) in unsafe_ones() {
                let lost = survival.lost_of_fifth;
                tracing::warn!(%content, "{lost:.2} parts would be lost if one client in five left");
            }
            return tracing::warn!(waited_secs, "the clients did not get enough copies in time");
        }
        tokio::time::sleep(LOOK_AGAIN.min(limit.saturating_sub(began.elapsed()))).await;
    }
}

fn no_signals(error: std::io::Error) -> Failure {
    Failure::file(format!("cannot receive signals: {error}"))
}

/// Whether the state folder, which may not be there yet, lies where it is not served.
fn check_state(settings: &Settings) -> Result<(), Failure> {
    let Ok(folder) = settings.folder.canonicalize() else { return Ok(()) };
    let absolute = std::path::absolute(&settings.state).unwrap_or_else(|_| settings.state.clone());
    // What is there is resolved, the rest is taken as it is written.
    let resolved = absolute.ancestors().find_map(|ancestor| {
        let rest = absolute.strip_prefix(ancestor).ok()?;
        Some(ancestor.canonicalize().ok()?.join(rest))
    });
    Settings::check_state_is_not_served(&folder, &resolved.unwrap_or(absolute))
}

fn bind(address: SocketAddr) -> Result<TcpListener, Failure> {
    TcpListener::bind(address).map_err(|error| Failure::bind(address, &error))
}

/// The certificate and its key; a self-signed one is kept in the state folder.
fn tls_identity(settings: &Settings, state: Option<&StateFolder>) -> Result<Option<TlsIdentity>, Failure> {
    match (&settings.tls, state) {
        (Tls::Files { cert, key }, _) => {
            let read = |path: &PathBuf| {
                std::fs::read(path).map_err(|error| Failure::tls(format!("cannot read {}: {error}", path.display())))
            };
            let identity = TlsIdentity::from_pem(&read(cert)?, &read(key)?);
            identity.map(Some).map_err(|error| Failure::tls(error.to_string()))
        }
        (Tls::SelfSigned, Some(state)) => {
            // Names for who connects from here; addresses for who connects to where we listen.
            let mut addresses: Vec<IpAddr> = settings.listen.iter().map(SocketAddr::ip).collect();
            addresses.retain(|address| !address.is_unspecified());
            addresses.extend([[127, 0, 0, 1].into(), IpAddr::from(std::net::Ipv6Addr::LOCALHOST)]);
            addresses.sort();
            addresses.dedup();
            Ok(Some(state.self_signed(&["localhost".to_owned()], &addresses)?))
        }
        _ => Ok(None),
    }
}
