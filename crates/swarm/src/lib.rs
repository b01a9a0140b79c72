//! Who holds what: sets of parts, how rare each part is, and the directory of the holders of one content.
//!
//! A [`PartSet`] is what one client holds, a [`Rarity`] says which parts the swarm lacks most, and a [`Directory`] keeps
//! the sets of all holders and their rarity in step.
//! A report of one more part costs a constant time whatever the size of the swarm, and a walk from the rarest part on is a
//! walk over a slice.
//!
//! This crate decides nothing: who is granted what, and whom a newcomer meets, is up to the coordinator.
//! It has no clock and no randomness; a caller that wants a random useful part brings a random start
//! ([`PartSet::select_missing_from`]).
//! Part numbers come from a network, so none of them can make this crate panic: a part beyond a set's end is a part that
//! the set does not hold and cannot take.
//!
//! ```
//! use hybrid_manifest::PartNumber;
//! use hybrid_swarm::{Directory, PartSet};
//!
//! let mut directory = Directory::new(3, 1_000);
//! let first = directory.join(PartSet::from_parts(3, [0, 1].map(PartNumber::new)))?;
//! let second = directory.join(PartSet::new(3))?;
//! directory.gain(second, PartNumber::new(0));
//!
//! let newcomer = PartSet::new(3);
//! let rarest: Vec<u32> =
//!     directory.rarity().rarest_for(&newcomer, |_| false, 2).map(PartNumber::as_u32).collect();
//! assert_eq!(rarest, [2, 1], "nobody holds part 2, one peer holds part 1");
//! assert_eq!(directory.holders(PartNumber::new(0)).collect::<Vec<_>>(), [first, second]);
//! # Ok::<(), hybrid_swarm::DirectoryError>(())
//! ```

mod directory;
mod part_set;
mod rarity;

pub use directory::{Directory, DirectoryError, HolderSlot};
pub use part_set::PartSet;
pub use rarity::Rarity;
