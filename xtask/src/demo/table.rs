//! Who gets what from where, live on a terminal, as a line now and then elsewhere.

use super::crowd::{Peer, State};
use super::mega;
use std::io::{IsTerminal, Write};
use std::time::Duration;

const BAR: usize = 24;

/// The table, redrawn in place.
#[derive(Debug, Default)]
pub(crate) struct Table {
    lines: usize,
    shown_secs: Option<u64>,
}

impl Table {
    pub(crate) fn show(&mut self, peers: &[Peer], elapsed: Duration, last: bool) {
        let mut out = std::io::stdout().lock();
        if !out.is_terminal() {
            // Without a terminal: one line every two seconds.
            let secs = elapsed.as_secs() / 2;
            if self.shown_secs != Some(secs) || last {
                self.shown_secs = Some(secs);
                drop(writeln!(out, "{}", summary(peers, elapsed)));
            }
            return;
        }
        let mut text = String::new();
        if self.lines > 0 {
            text.push_str(&format!("\x1b[{}A", self.lines));
        }
        let mut lines = vec![format!(
            "{:<8} {:<14} {:<BAR$}  {:>8} {:>8} {:>8} {:>6}",
            "", "mode", "= server  # peers", "server", "peers", "given", "time"
        )];
        lines.extend(peers.iter().map(|peer| row(&peer.name, &peer.state())));
        lines.push(summary(peers, elapsed));
        for line in &lines {
            text.push_str("\x1b[2K");
            text.push_str(line);
            text.push('\n');
        }
        self.lines = lines.len();
        drop(out.write_all(text.as_bytes()));
        drop(out.flush());
    }
}

fn from_server(state: &State) -> u64 {
    ["server-direct", "server-grant", "server-rescue"].iter().map(|source| state.bytes_from(source)).sum()
}

fn row(name: &str, state: &State) -> String {
    let (server, peers) = (from_server(state), state.bytes_from("peer"));
    let total = state.number("total_bytes").max(1);
    let cells = |bytes: u64| usize::try_from(bytes * BAR as u64 / total).unwrap_or(0).min(BAR);
    let bar = format!("{}{}", "=".repeat(cells(server)), "#".repeat(cells(server + peers) - cells(server)));
    let time = state.complete_after.map(|after| format!("{:.1} s", after.as_secs_f64())).unwrap_or_default();
    let mode = state.mode.as_deref().unwrap_or("joining");
    let given = state.number("sent_bytes");
    format!(
        "{name:<8} {mode:<14} {bar:<BAR$}  {:>6.1}MB {:>6.1}MB {:>6.1}MB {time:>6}",
        mega(server),
        mega(peers),
        mega(given)
    )
}

fn summary(peers: &[Peer], elapsed: Duration) -> String {
    let total = peers.first().map_or(1, |peer| peer.state().number("total_bytes")).max(1);
    let sum = |of: fn(&State) -> u64| -> u64 { peers.iter().map(|peer| of(&peer.state())).sum() };
    let (server, swarm) = (sum(from_server), sum(|state| state.bytes_from("peer")));
    let complete = peers.iter().filter(|peer| peer.state().complete_after.is_some()).count();
    format!(
        "{:5.1} s: {complete} of {} complete; copies from the server {:.2}, from peers {:.2}",
        elapsed.as_secs_f64(),
        peers.len(),
        mega(server) / mega(total),
        mega(swarm) / mega(total)
    )
}
