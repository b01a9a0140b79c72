//! Programs under measurement: started so that none outlives us, and asked what they cost.

use anyhow::{Context, bail};
use std::ffi::OsStr;
use std::fs::File;
use std::net::{SocketAddr, TcpStream};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Whether a program is installed. The folders of administrators count too: not everybody has them in the path.
pub(crate) fn is_installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    folders.map(|folder| folder.join(program)).any(|file| file.is_file())
}

/// The first of these that is not installed, as a reason to skip.
pub(crate) fn missing(programs: &[(&str, &str)]) -> Option<String> {
    let (program, package) = programs.iter().find(|(program, _)| !is_installed(program))?;
    Some(format!("{program} is not installed (Debian: apt-get install {package})"))
}

/// Whether we may make network namespaces.
pub(crate) fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let ids = status.lines().find_map(|line| line.strip_prefix("Uid:"));
    ids.and_then(|ids| ids.split_ascii_whitespace().nth(1)) == Some("0")
}

/// A command whose process the kernel kills when we are gone, however we go.
///
/// `prefix` runs in front, such as `taskset -c 0`; all of them replace themselves by what they start, so that the process
/// that we start is the program.
pub(crate) fn bound<S: AsRef<OsStr>>(prefix: &[S], program: impl AsRef<OsStr>) -> Command {
    let bind = ["setpriv", "--pdeathsig", "KILL", "--"].map(OsStr::new);
    let mut words = prefix.iter().map(AsRef::as_ref).chain(bind);
    let mut command = Command::new(words.next().expect("there is at least setpriv"));
    command.args(words).arg(program).stdin(Stdio::null()).env_remove("RUST_LOG").env_remove("HYBRID_LOG");
    command
}

/// A running program, killed when it is dropped.
#[derive(Debug)]
pub(crate) struct Running(Child);

impl Running {
    /// Starts a program, its output and errors in a file.
    pub(crate) fn start(command: &mut Command, log: &Path) -> anyhow::Result<Self> {
        let output = File::create(log).with_context(|| format!("cannot write {}", log.display()))?;
        let errors = output.try_clone()?;
        let child = command.stdout(output).stderr(errors).spawn();
        Ok(Self(child.with_context(|| format!("{command:?} does not start"))?))
    }

    pub(crate) fn id(&self) -> u32 {
        self.0.id()
    }

    /// How it ended, if it has.
    pub(crate) fn ended(&mut self) -> anyhow::Result<Option<ExitStatus>> {
        Ok(self.0.try_wait()?)
    }

    /// Waits until its log has some words; an end before that is an error with the log.
    pub(crate) fn wait_for_log(&mut self, log: &Path, words: &str, limit: Duration) -> anyhow::Result<()> {
        self.wait_until(log, limit, || Ok(std::fs::read_to_string(log)?.contains(words)))
    }

    /// Waits until it has made a file.
    pub(crate) fn wait_for_file(&mut self, log: &Path, file: &Path, limit: Duration) -> anyhow::Result<()> {
        self.wait_until(log, limit, || Ok(file.exists()))
    }

    /// Waits until it takes connections.
    pub(crate) fn wait_for_port(&mut self, log: &Path, port: u16, limit: Duration) -> anyhow::Result<()> {
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        self.wait_until(log, limit, || Ok(TcpStream::connect(address).is_ok()))
    }

    fn wait_until(
        &mut self,
        log: &Path,
        limit: Duration,
        mut is_ready: impl FnMut() -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let deadline = Instant::now() + limit;
        while !is_ready()? {
            let text = || std::fs::read_to_string(log).unwrap_or_default();
            if let Some(status) = self.ended()? {
                bail!("a program ended with {status}: {}", text());
            }
            if Instant::now() > deadline {
                bail!("a program was not ready within {limit:?}: {}", text());
            }
            std::thread::sleep(Duration::from_millis(10));
        }
        Ok(())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Whoever has ended already cannot be killed, which is as well.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// The processor time that a process and all that it has started have used, user and system.
pub(crate) fn cpu_time(process: u32) -> anyhow::Result<Duration> {
    let mut stats = Vec::new();
    for entry in Path::new("/proc").read_dir()? {
        let name = entry?.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        // A process may end while we look.
        let Ok(text) = std::fs::read_to_string(format!("/proc/{id}/stat")) else { continue };
        stats.extend(parse_stat(&text).map(|(parent, time)| (id, parent, time)));
    }
    sum_of_family(process, &stats).with_context(|| format!("process {process} has ended"))
}

/// The parent and the processor time in a line of proc_pid_stat(5); times there are in hundredths of a second.
fn parse_stat(text: &str) -> Option<(u32, Duration)> {
    // The name in field 2 may hold anything; the last parenthesis ends it.
    let (_, rest) = text.rsplit_once(')')?;
    let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
    let ticks = |place: usize| fields.get(place)?.parse::<u64>().ok();
    // Fields 4, 14 and 15, counted from 1; `rest` begins with field 3.
    let parent = fields.get(1)?.parse().ok()?;
    Some((parent, Duration::from_millis(10 * (ticks(11)? + ticks(12)?))))
}

fn sum_of_family(process: u32, stats: &[(u32, u32, Duration)]) -> Option<Duration> {
    let own = stats.iter().find(|(id, _, _)| *id == process)?.2;
    let children = stats.iter().filter(|(_, parent, _)| *parent == process);
    Some(children.filter_map(|(child, _, _)| sum_of_family(*child, stats)).fold(own, |sum, time| sum + time))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_processes() {
        let stat = "4242 (odd) name) S 17 2 3 4 5 6 7 8 9 10 150 25 7 8 20 0 1 0 1 1 1";
        assert_eq!(parse_stat(stat), Some((17, Duration::from_millis(1_750))));
        assert_eq!(parse_stat("4242 (short) S 1 2 3"), None);
        assert_eq!(parse_stat(""), None);
    }

    #[test]
    fn families() {
        let ms = Duration::from_millis;
        let stats = [(1, 0, ms(1)), (2, 1, ms(10)), (3, 2, ms(100)), (4, 1, ms(1_000)), (5, 9, ms(10_000))];
        assert_eq!(sum_of_family(2, &stats), Some(ms(110)));
        assert_eq!(sum_of_family(1, &stats), Some(ms(1_111)));
        assert_eq!(sum_of_family(9, &stats), None);
    }

    #[test]
    fn our_own_time() {
        assert!(cpu_time(std::process::id()).is_ok());
        assert!(cpu_time(4_194_305).is_err(), "above PID_MAX_LIMIT");
    }

    #[test]
    fn commands_are_bound() {
        let command = bound(&["taskset", "-c", "0"], "sleep");
        assert_eq!(
            format!("{command:?}").replace("env -u HYBRID_LOG -u RUST_LOG ", ""),
            r#""taskset" "-c" "0" "setpriv" "--pdeathsig" "KILL" "--" "sleep""#
        );
    }
}
