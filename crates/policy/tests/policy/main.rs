//! The policy language by its public API: what is refused, what is decided, told and compared, and what must hold of any policy.
#![expect(clippy::unwrap_used, reason = "a scenario test")]

mod bounds;
mod captures;
mod differences;
mod evaluation;
mod examples;
mod format;
mod properties;
mod random;
mod reference;
mod refusals;
mod told;
mod world;
