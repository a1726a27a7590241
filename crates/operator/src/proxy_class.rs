//! ProxyClasses: whether they can be used.

mod status;
mod validate;

pub use status::{Status, status};
pub use validate::{Verdict, validate};
