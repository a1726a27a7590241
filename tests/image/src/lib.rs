//! OCI images: layers made from files, layouts on disk, and a push into a registry over plain HTTP.
//!
//! It does not pull, unpack or run images, does not compress (registry and nodes share one machine), and knows no
//! authentication and no TLS: the registry that it speaks to is the laboratory's own.
//!
//! # Model
//!
//! An [`Image`] is a configuration and a list of layers, each a [`Blob`] in memory or in a file. It comes from
//! [`Image::new`] or from a layout on disk ([`Layout::read`]), and is immutable: [`Image::with_layer`] gives another one.
//! A [`LayerBuilder`] maps paths in the image to where their content comes from.
//!
//! # Invariants
//!
//! * The same inputs give the same digests: entries are sorted by path, times are zero, nothing names the machine.
//! * A layout is written with its index last, so that one with an index is whole.

mod blob;
mod http;
mod layer;
mod layout;
mod manifest;
mod registry;

pub use blob::{Blob, Digest};
pub use layer::LayerBuilder;
pub use layout::{Layout, Reference};
pub use manifest::{Image, Process};
pub use registry::Registry;
