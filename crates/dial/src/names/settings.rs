use std::fmt;
use std::fs::File;
use std::io::{self, Read};

const PATH: &str = "/etc/resolv.conf";
/// In bytes; more than any resolver reads.
const LIMIT: u64 = 64 * 1024;

/// Where it stands who is to be asked for names: text in the format of resolv.conf(5).
pub trait NameSettings: Send + Sync + fmt::Debug + 'static {
    /// The settings as they are now. It is asked before every name, and should be as quick as a small file.
    ///
    /// # Errors
    /// When they can't be read.
    fn read(&self) -> io::Result<String>;
}

/// The machine's own file.
#[derive(Debug)]
pub(super) struct ResolvConf;

impl NameSettings for ResolvConf {
    fn read(&self) -> io::Result<String> {
        let mut bytes = Vec::new();
        File::open(PATH)?.take(LIMIT).read_to_end(&mut bytes)?;
        Ok(String::from_utf8_lossy(&bytes).into_owned())
    }
}
