//! The folder that outlives checkouts: pinned programs, the Debian tree, images, Cargo's target folders.
//!
//! It does not know how anything in it is made (`xtask` does) nor who uses it (`lab` reads the paths).
//!
//! # Model
//!
//! An [`Entry`] is a name such as `bin/kubelet` with the [`Key`] of everything it is made from. What was made for a key
//! stands at `made/<name>-<key>` and never changes again; the public path `<name>` points at the one asked for last.
//! Files are published as hard links, so that a folder of them can be bound elsewhere on its own; folders as symbolic
//! links.
//!
//! # Invariants
//!
//! * What stands under `made/` is whole: it was made under `drafts/` and renamed.
//! * One process makes an entry at a time, in whatever checkout: [`Lock`] is a file lock, which the programs that the
//!   process starts hold too. When the process is killed, its orphans keep the lock until they end.
//! * An entry whose key is unchanged costs two `stat` calls.
//! * Nothing that may be in use is removed, but by [`Cache::prune`] and by its age.

mod entry;
mod folder;
mod key;
mod lock;
mod target;

pub use entry::{Entry, Outcome};
pub use folder::Cache;
pub use key::{Key, KeyBuilder};
pub use lock::Lock;
