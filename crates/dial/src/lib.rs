//! What every client of ours shares on its way out: who turns names into addresses, which certificates are believed, and
//! what is written down of it.
//!
//! - [`Resolve`] is asked wherever a host name becomes an address; [`SystemResolver`] asks the name servers that
//!   `/etc/resolv.conf`, or another source of [`NameSettings`], names at the time: machines change networks. Nothing asks
//!   libc: the binary is static, and a container without NSS files must do.
//! - [`Roots`] are the trusted certificate authorities: the public web's, which are built in, this machine's, and those
//!   of files that the user names.
//! - [`CertificateFault`] tells people why a server's certificate is not believed, and what helps.
//! - [`causes`] tells an error with everything behind it.
//! - A [`Ledger`] knows whom a client connected to, and how many bytes its sockets moved.
//!
//! What it does not do: open connections. Each client has its own rules for ports, marks, proxies and races.

#![forbid(unsafe_code)]

mod causes;
mod certificate;
mod ledger;
mod names;
mod roots;

pub use causes::causes;
pub use certificate::CertificateFault;
pub use ledger::{Account, Ledger, Metered, OpenConnection, Remote};
pub use names::{NameSettings, NameSocketSetup, Resolve, ResolverError, SystemResolver};
pub use roots::{Roots, RootsError};
