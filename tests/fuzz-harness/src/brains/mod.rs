//! Sequences of inputs to both brains: each byte string is one sequence, on a virtual clock.

pub(crate) mod coordinator;
pub(crate) mod session;

use crate::feed::Feed;
use bytes::Bytes;
use hybrid_manifest::PartNumber;
use hybrid_wire::{Decoded, PartRanges, PeerId};
use std::fmt::Debug;

fn peer(index: u8) -> PeerId {
    PeerId::from_bytes([index; 32])
}

fn ranges(numbers: &[u32]) -> PartRanges {
    PartRanges::from_ascending(numbers.iter().copied().map(PartNumber::new))
}

/// A frame as it would come over a network, if the next bytes are one.
fn decoded<T, E>(feed: &mut Feed<'_>, decode: impl Fn(&Bytes) -> Result<Decoded<T>, E>) -> Option<T> {
    decode(&Bytes::copy_from_slice(feed.run())).ok()?.message()
}

/// Told of every input; the test below looks whether each kind was among them.
#[cfg_attr(not(test), allow(unused_variables, clippy::missing_const_for_fn, reason = "only the test listens"))]
fn note(input: &impl Debug) {
    #[cfg(test)]
    tests::note(format!("{input:?}"));
}

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::collections::BTreeSet;
    use std::path::Path;

    thread_local! {
        static FED: RefCell<BTreeSet<String>> = const { RefCell::new(BTreeSet::new()) };
    }

    /// Keeps the kind, the first word.
    pub(super) fn note(mut input: String) {
        input.truncate(input.find(|c: char| !c.is_alphanumeric()).unwrap_or(input.len()));
        FED.with_borrow_mut(|fed| fed.insert(input));
    }

    /// The kinds of `Input` in a brain's `io.rs`.
    fn kinds(source: &str) -> impl Iterator<Item = &str> {
        let body = source.split("pub enum Input {").nth(1).expect("the enum").split("\n}").next().expect("its end");
        let lines = body.lines().filter_map(|line| line.strip_prefix("    "));
        lines
            .filter(|line| line.starts_with(char::is_uppercase))
            .filter_map(|line| line.split(|c: char| !c.is_alphanumeric()).next())
    }

    #[test]
    fn the_corpora_feed_every_kind_of_input() {
        for (name, io) in [
            ("coordinator", include_str!("../../../../crates/coordinator/src/io.rs")),
            ("session", include_str!("../../../../crates/session/src/io.rs")),
        ] {
            let target = crate::find(name).expect("a target");
            let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../fuzz/corpus").join(name);
            for entry in corpus.read_dir().unwrap() {
                (target.run)(&std::fs::read(entry.unwrap().path()).unwrap());
            }
            let fed = FED.take();
            let missing: Vec<&str> = kinds(io).filter(|kind| !fed.contains(*kind)).collect();
            assert!(kinds(io).count() > 8 && missing.is_empty(), "{name} was never fed {missing:?}");
        }
    }
}
