//! What the server is to do: the settings file, overridden by the flags, checked as a whole.

use crate::args::{Direct, Egress, Serve};
use crate::config::{self, File, Marks, Parsed};
use crate::failure::Failure;
use hybrid_origin::{
    AddressPolicy, Class, ClassConfig, Config, DirectClients, EgressPolicy, PartPolicy, Prefix, Rule, ServerConfig,
};
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Loopback: who wants to be seen by others says so.
const DEFAULT_LISTEN: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), 8080);

/// The settings as a whole.
#[derive(Debug)]
pub(crate) struct Settings {
    pub(crate) folder: PathBuf,
    pub(crate) listen: Vec<SocketAddr>,
    pub(crate) state: PathBuf,
    pub(crate) tls: Tls,
    pub(crate) wait_for_swarm: Option<Duration>,
    pub(crate) origin: Config,
    pub(crate) server: ServerConfig,
}

/// How connections are encrypted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Tls {
    Off,
    Files { cert: PathBuf, key: PathBuf },
    SelfSigned,
}

impl Settings {
    /// Reads the file, if there is one, and puts the flags over it.
    pub(crate) fn read(args: Serve, environment: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Failure> {
        let file = args.config.as_deref().map(File::read).transpose()?.unwrap_or_default();
        Self::merge(args, file, environment)
    }

    /// The text of a settings file without flags, and what can be checked without a server.
    pub(crate) fn check_text(text: &str) -> Result<(), Failure> {
        let file = File::parse(text)
            .map_err(|(line, column, message)| Failure::config(format!("settings:{line}:{column}: {message}")))?;
        Self::merge(Serve::default(), file, |_| Some(PathBuf::from("/home"))).map(drop)
    }

    fn merge(args: Serve, file: File, environment: impl Fn(&str) -> Option<PathBuf>) -> Result<Self, Failure> {
        let folder = args.folder.or(file.folder).filter(|folder| !folder.as_os_str().is_empty());
        let folder = folder.ok_or_else(|| {
            Failure::config("no folder to serve")
                .hint("name it on the command line, or as `folder` in the settings file")
        })?;
        let listen = first_given([args.listen, unwrap_all(file.listen).into_iter().map(|listen| listen.0).collect()])
            .unwrap_or_else(|| vec![DEFAULT_LISTEN]);
        let state = match args.state.or(file.state) {
            Some(state) => state,
            None => default_state(environment)?,
        };
        let allow = first_given([args.allow_peers, unwrap_all(file.allow_peers)]).unwrap_or_default();
        check_loopback_peers(&allow, &listen)?;
        let file_tls = file.tls.unwrap_or_default();
        let tls = match (args.tls_cert.zip(args.tls_key), args.tls_self_signed) {
            (Some((cert, key)), _) => Tls::Files { cert, key },
            (None, true) => Tls::SelfSigned,
            (None, false) => match (file_tls.cert, file_tls.key, file_tls.self_signed) {
                (None, None, false) => Tls::Off,
                (None, None, true) => Tls::SelfSigned,
                (Some(cert), Some(key), false) => Tls::Files { cert, key },
                (Some(_), Some(_), true) => {
                    return Err(Failure::config("tls: self_signed and cert contradict each other"));
                }
                _ => return Err(Failure::config("tls: cert and key belong together; one of them is missing")),
            },
        };
        let server = file.connections.server_config()?;
        let mut origin = Config::default();
        origin.egress_limit = args.egress_limit.or(file.egress_limit.map(|rate| rate.0));
        if let Some(Parsed(cache)) = file.cache {
            origin.cache = cache;
        }
        origin.coordinator.addresses = AddressPolicy::allowing(allow);
        file.networks.put(&mut origin.coordinator);
        match args.egress_policy.or(file.egress_policy.map(|policy| policy.0)) {
            Some(Egress::Fast) => origin.coordinator.egress_policy = EgressPolicy::Fast,
            Some(Egress::Thrifty) => origin.coordinator.egress_policy = EgressPolicy::Thrifty,
            None => {}
        }
        let qos = &mut origin.coordinator.qos;
        match args.direct_clients.or(file.direct_clients.map(|direct| direct.0)) {
            Some(Direct::Fixed(count)) => qos.direct_clients = DirectClients::Fixed(count),
            Some(Direct::Auto) => qos.direct_clients = DirectClients::Auto,
            None => {}
        }
        let thresholds = file.thresholds;
        let put_marks = |marks: Option<Marks>, low: &mut f64, high: &mut f64| {
            if let Some(marks) = marks {
                (*low, *high) = (marks.low, marks.high);
            }
        };
        put_marks(thresholds.egress, &mut qos.egress.low, &mut qos.egress.high);
        put_marks(thresholds.cpu, &mut qos.cpu.low, &mut qos.cpu.high);
        qos.enter_after = thresholds.enter_after.map_or(qos.enter_after, |time| time.0.0);
        qos.leave_after = thresholds.leave_after.map_or(qos.leave_after, |time| time.0.0);
        qos.dwell = thresholds.dwell.map_or(qos.dwell, |time| time.0.0);
        qos.required_rate = thresholds.required_rate.map_or(qos.required_rate, |rate| rate.0);
        qos.start_up = thresholds.start_up.map_or(qos.start_up, |time| time.0.0);
        qos.stalls_per_minute = thresholds.pauses_per_minute.unwrap_or(qos.stalls_per_minute);
        qos.control_share = thresholds.control_share.unwrap_or(qos.control_share);
        put_classes(&mut origin, file.classes, file.rules)?;
        Ok(Self { folder, listen, state, tls, wait_for_swarm: args.wait_for_swarm, origin, server })
    }

    /// The keys may not lie where everybody can fetch them. Both paths are as the system resolves them.
    pub(crate) fn check_state_is_not_served(folder: &Path, state: &Path) -> Result<(), Failure> {
        let hidden =
            |inner: &Path| inner.components().any(|part| part.as_os_str().as_encoded_bytes().starts_with(b"."));
        match state.strip_prefix(folder) {
            Ok(inner) if !hidden(inner) => {
                let message = format!("the state folder {} lies in the served folder", state.display());
                Err(Failure::config(message).hint("--state DIR names another one; its keys must not be served"))
            }
            _ => Ok(()),
        }
    }
}

/// Classes with what the file says of them, over what holds for all; the file's rules come before those by media type.
fn put_classes(
    origin: &mut Config,
    settings: BTreeMap<String, config::Class>,
    rules: Vec<config::Rule>,
) -> Result<(), Failure> {
    let base = origin.coordinator.qos.clone();
    for ClassConfig { class, .. } in &mut origin.classes {
        let own = std::mem::replace(&mut class.thresholds, base.clone());
        class.thresholds.required_rate = own.required_rate;
        class.thresholds.start_up = own.start_up;
        class.thresholds.stalls_per_minute = own.stalls_per_minute;
    }
    for (name, setting) in settings {
        if name == "file" {
            let hint = "its settings are those without a class: direct_clients, egress_policy and [thresholds]";
            return Err(Failure::config("classes.file: 'file' is what contents are that no rule fits").hint(hint));
        }
        if !origin.classes.iter().any(|known| known.class.name == name) {
            let mut class = Class::new(name.clone());
            class.thresholds = base.clone();
            origin.classes.push(class.into());
        }
        let Some(class) = origin.classes.iter_mut().find(|known| known.class.name == name) else { continue };
        let qos = &mut class.class.thresholds;
        match setting.direct_clients.map(|direct| direct.0) {
            Some(Direct::Fixed(count)) => qos.direct_clients = DirectClients::Fixed(count),
            Some(Direct::Auto) => qos.direct_clients = DirectClients::Auto,
            None => {}
        }
        qos.required_rate = setting.required_rate.map_or(qos.required_rate, |rate| rate.0);
        qos.start_up = setting.start_up.map_or(qos.start_up, |time| time.0.0);
        qos.stalls_per_minute = setting.pauses_per_minute.unwrap_or(qos.stalls_per_minute);
        qos.control_share = setting.control_share.unwrap_or(qos.control_share);
        if let Some(Parsed(length)) = setting.part_length {
            // A length that is no u32 is refused as any other that is none.
            class.class.parts = PartPolicy::Fixed { bytes: u32::try_from(length.as_u64()).unwrap_or(u32::MAX) };
        }
        class.egress_policy = setting.egress_policy.map(|policy| match policy.0 {
            Egress::Fast => EgressPolicy::Fast,
            Egress::Thrifty => EgressPolicy::Thrifty,
        });
    }
    for rule in &rules {
        check_rule(rule)?;
    }
    let own = rules.into_iter().map(|rule| {
        let mut own = Rule::path("**", rule.class);
        (own.media_type, own.path) = (rule.media_type, rule.path);
        own
    });
    let own: Vec<Rule> = own.collect();
    origin.rules.splice(0..0, own);
    Ok(())
}

/// A rule that can fit nothing is a slip of the pen.
fn check_rule(rule: &config::Rule) -> Result<(), Failure> {
    match (&rule.path, &rule.media_type) {
        (Some(path), _) if !path.starts_with(['/', '*']) => {
            Err(Failure::config(format!("rules: the path '{path}' fits nothing, because paths begin with /"))
                .hint(format!("write '/{path}', or '**/{path}' for any folder")))
        }
        (_, Some(media_type)) if !media_type.contains('/') => {
            Err(Failure::config(format!("rules: '{media_type}' is no media type"))
                .hint("write video/mp4, or video/* for all of a kind"))
        }
        _ => Ok(()),
    }
}

/// The first of several lists that says anything.
fn first_given<T>(lists: [Vec<T>; 2]) -> Option<Vec<T>> {
    lists.into_iter().find(|list| !list.is_empty())
}

fn unwrap_all<T>(values: Vec<Parsed<T>>) -> Vec<T> {
    values.into_iter().map(|value| value.0).collect()
}

/// `$XDG_STATE_HOME/hybrid-server`, or where that is by default (XDG Base Directory Specification 0.8).
pub(crate) fn default_state(environment: impl Fn(&str) -> Option<PathBuf>) -> Result<PathBuf, Failure> {
    // The specification has relative paths ignored.
    let state_home = environment("XDG_STATE_HOME").filter(|path| path.is_absolute());
    let home = || environment("HOME").filter(|path| path.is_absolute()).map(|home| home.join(".local/state"));
    state_home.or_else(home).map(|state| state.join("hybrid-server")).ok_or_else(|| {
        Failure::config("no state folder: neither XDG_STATE_HOME nor HOME is set to an absolute path")
            .hint("--state DIR names the folder for the server's keys")
    })
}

/// A server that others reach would tell them to connect to themselves.
fn check_loopback_peers(allow: &[Prefix], listen: &[SocketAddr]) -> Result<(), Failure> {
    let loopback = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];
    let allowed = allow.iter().find(|prefix| loopback.iter().any(|address| prefix.contains(*address)));
    let public = listen.iter().find(|address| !address.ip().is_loopback());
    match (allowed, public) {
        (Some(prefix), Some(address)) => {
            let message =
                format!("--allow-peers {prefix} with --listen {address}: loopback addresses mean nothing to others");
            Err(Failure::config(message).hint("listen on 127.0.0.1, or allow the networks in which the peers are"))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::args::{Args, Command};
    use clap::Parser;
    use hybrid_units::{ByteCount, BytesPerSecond};

    fn merge(flags: &str, file: &str) -> Result<Settings, Failure> {
        let args = Args::parse_from(format!("hybrid-server serve --state /s {flags}").split_whitespace());
        let Command::Serve(serve) = args.command else { panic!("not serve") };
        Settings::merge(serve, toml::from_str(file).unwrap(), |_| None)
    }

    #[test]
    fn defaults() {
        let settings = merge("dir", "").unwrap();
        assert_eq!(settings.listen, [DEFAULT_LISTEN]);
        assert_eq!((settings.folder, settings.tls), (PathBuf::from("dir"), Tls::Off));
        assert_eq!(settings.origin.egress_limit, None);
        assert_eq!(settings.origin.coordinator.qos, hybrid_origin::CoordinatorConfig::default().qos);
    }

    #[test]
    fn flags_override_the_file() {
        let file = "folder = \"file\"\nlisten = [\"127.0.0.1:1\"]\ndirect_clients = 5\negress_limit = \"8M\"\n\
                    egress_policy = \"thrifty\"\n\
                    cache = \"1MB\"\n[tls]\nself_signed = true\n[thresholds]\ncpu = { low = 0.1, high = 0.2 }\ndwell = \"1s\"";
        let from_file = merge("--config x", file).unwrap();
        assert_eq!(from_file.folder, PathBuf::from("file"));
        assert_eq!(from_file.listen, ["127.0.0.1:1".parse().unwrap()]);
        assert_eq!(from_file.tls, Tls::SelfSigned);
        let qos = &from_file.origin.coordinator.qos;
        assert_eq!((qos.direct_clients, qos.cpu.high, qos.dwell.as_secs()), (DirectClients::Fixed(5), 0.2, 1));
        assert_eq!(from_file.origin.egress_limit, Some(BytesPerSecond::new(1_000_000)));
        assert_eq!(from_file.origin.coordinator.egress_policy, EgressPolicy::Thrifty);
        assert_eq!(from_file.origin.cache, ByteCount::new(1_000_000));
        let flags = "flag --listen 127.0.0.1:2 --direct-clients auto --egress-limit 16M --egress-policy fast --tls-cert c --tls-key k";
        let overridden = merge(flags, file).unwrap();
        assert_eq!(overridden.folder, PathBuf::from("flag"));
        assert_eq!(overridden.listen, ["127.0.0.1:2".parse().unwrap()]);
        assert_eq!(overridden.tls, Tls::Files { cert: "c".into(), key: "k".into() });
        assert_eq!(overridden.origin.coordinator.qos.direct_clients, DirectClients::Auto);
        assert_eq!(overridden.origin.coordinator.egress_policy, EgressPolicy::Fast);
        assert_eq!(overridden.origin.egress_limit, Some(BytesPerSecond::new(2_000_000)));
    }

    #[test]
    fn classes_have_their_own_settings_and_those_of_all() {
        let file = "direct_clients = 3\n[thresholds]\ndwell = \"1s\"\n[classes.vod]\nrequired_rate = \"16M\"\n\
                    [classes.games]\ndirect_clients = \"auto\"\negress_policy = \"thrifty\"\npart_length = \"1MiB\"\n\
                    [[rules]]\npath = \"/games/**\"\nclass = \"games\"";
        let origin = merge("dir", file).unwrap().origin;
        let class = |name: &str| origin.classes.iter().find(|known| known.class.name == name).unwrap().clone();
        let (vod, games) = (class("vod"), class("games"));
        assert_eq!(vod.class.thresholds.required_rate, BytesPerSecond::new(2_000_000));
        assert_eq!(vod.class.thresholds.direct_clients, DirectClients::Fixed(3));
        assert_eq!((vod.class.thresholds.dwell.as_secs(), vod.egress_policy), (1, None));
        assert_eq!(games.class.thresholds.direct_clients, DirectClients::Auto);
        assert_eq!(
            (games.class.parts, games.egress_policy),
            (PartPolicy::Fixed { bytes: 1 << 20 }, Some(EgressPolicy::Thrifty))
        );
        assert_eq!(class("page").class.thresholds.start_up.as_millis(), 500);
        assert_eq!((origin.rules[0].class.as_str(), origin.rules[0].path.as_deref()), ("games", Some("/games/**")));
        assert!(origin.rules.len() > 1, "those by media type follow");
        assert!(merge("dir", "[classes.file]").unwrap_err().message.contains("no rule fits"));
    }

    #[test]
    fn what_contradicts_itself() {
        for (flags, file, words) in [
            ("--config x", "", "no folder to serve"),
            ("dir", "[tls]\ncert = \"a\"", "cert and key belong together"),
            ("dir", "[tls]\ncert = \"a\"\nkey = \"b\"\nself_signed = true", "contradict"),
            ("dir --listen 0.0.0.0:1 --allow-peers 127.0.0.0/8", "", "loopback"),
            ("dir --listen [::]:1 --allow-peers ::1/128", "", "loopback"),
            ("dir --listen 127.0.0.1:1 --listen 10.0.0.1:1 --allow-peers 0.0.0.0/0", "", "loopback"),
        ] {
            let failure = merge(flags, file).unwrap_err();
            assert_eq!((failure.exit, failure.code), (3, "E_CONFIG"), "{flags} {file}");
            assert!(failure.message.contains(words), "{flags} {file}: {}", failure.message);
        }
        assert!(merge("dir --listen 127.0.0.1:1 --allow-peers 127.0.0.0/8", "").is_ok());
        assert!(merge("dir --listen 0.0.0.0:1 --allow-peers 10.0.0.0/8", "").is_ok());
    }

    #[test]
    fn where_the_state_is() {
        let state = |xdg: &str, home: &str| {
            default_state(|name| Some(PathBuf::from(if name == "HOME" { home } else { xdg }))).ok()
        };
        assert_eq!(state("/x", "/h"), Some("/x/hybrid-server".into()));
        assert_eq!(state("relative", "/h"), Some("/h/.local/state/hybrid-server".into()));
        assert_eq!(state("", ""), None);
        for (folder, state, served) in [
            ("/a", "/a/b", true),
            ("/a", "/a", true),
            ("/a", "/b", false),
            ("/a", "/a/.local/x", false),
            ("/a", "/ab", false),
        ] {
            let checked = Settings::check_state_is_not_served(folder.as_ref(), state.as_ref());
            assert_eq!(checked.is_err(), served, "{folder} {state}");
        }
    }
}
