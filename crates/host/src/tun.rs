//! A TUN interface with offloads: packets of up to 64 KiB, cut and summed by whoever comes after.

mod vnet;

use std::fs::{self, File, OpenOptions};
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};

use rustix::fs::{FileType, Mode};
use rustix::io::{Errno, ReadWriteFlags};
use rustix::ioctl::{IntegerSetter, Opcode, Updater, opcode};

pub use vnet::{Checksum, Segmentation, UnknownSegmentation, VNET_HEADER_BYTES, VnetHeader};

use crate::failure::{Area, HostError, Reason};
use crate::link;

/// A buffer of this size takes any packet that a TUN delivers, with its header.
pub const SUPER_PACKET_BYTES: usize = VNET_HEADER_BYTES + 65_535;
/// The longest name of an interface.
pub const INTERFACE_NAME_BYTES: usize = libc::IFNAMSIZ - 1;

const DEVICE: &str = "/dev/net/tun";
const SET_INTERFACE: Opcode = opcode::write::<libc::c_int>(b'T', 202);
const SET_OFFLOADS: Opcode = opcode::write::<libc::c_uint>(b'T', 208);

/// How an interface is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TunConfig {
    /// Its name, such as `tailscale0`.
    pub name: String,
    /// The longest packet inside the tunnel, in bytes.
    pub mtu: u32,
    /// How many packets may wait for the reader. A queue of 500 (the kernel's default) overflows in bursts.
    pub queue_length: u32,
    /// Whether [`Tun::queue`] may open more queues; the kernel keeps a flow on one of them.
    pub multi_queue: bool,
    /// What the kernel may leave to the reader.
    pub offloads: Offloads,
    /// Where the device is, and where it is made when it is missing.
    pub device: PathBuf,
}

/// What the kernel leaves undone in packets that it hands over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Offloads {
    /// Nothing: packets fit the MTU and carry their checksum.
    None,
    /// Checksums.
    Checksum,
    /// Checksums, and the cutting of TCP.
    Tcp,
    /// Checksums, and the cutting of TCP and UDP (Linux 6.2).
    TcpUdp,
}

/// An attached TUN interface, or one queue of it. It disappears when the last queue is dropped.
#[derive(Debug)]
pub struct Tun {
    device: OwnedFd,
    config: TunConfig,
    index: u32,
    offloads: Offloads,
}

impl TunConfig {
    /// An interface with every offload, the MTU of the tailnet and a long queue.
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            mtu: 1280,
            queue_length: 1000,
            multi_queue: false,
            offloads: Offloads::TcpUdp,
            device: DEVICE.into(),
        }
    }
}

impl Offloads {
    fn bits(self) -> libc::c_uint {
        let checksum = libc::TUN_F_CSUM;
        let tcp = checksum | libc::TUN_F_TSO4 | libc::TUN_F_TSO6 | libc::TUN_F_TSO_ECN;
        match self {
            Self::None => 0,
            Self::Checksum => checksum,
            Self::Tcp => tcp,
            Self::TcpUdp => tcp | libc::TUN_F_USO4 | libc::TUN_F_USO6,
        }
    }

    /// The next smaller set, for a kernel that refuses this one.
    fn fewer(self) -> Option<Self> {
        match self {
            Self::TcpUdp => Some(Self::Tcp),
            Self::Tcp => Some(Self::Checksum),
            Self::Checksum => Some(Self::None),
            Self::None => None,
        }
    }
}

impl Tun {
    /// Makes the interface, or attaches to the one of this name that nobody holds, and switches it on.
    ///
    /// Where the device is missing it is made, which takes the capability MKNOD. Addresses and routes are the
    /// [`Router`](crate::Router)'s.
    ///
    /// # Errors
    /// When the name is no name, another process holds the interface, or a right is missing.
    pub fn open(config: TunConfig) -> Result<Self, HostError> {
        let tun = Self::attach(config)?;
        let mut netlink = link::open()?;
        let configure = |what: &str, reason| HostError::new(Area::Network, format!("{what} {}", tun.name()), reason);
        match link::generate_no_addresses(&mut netlink, tun.index) {
            // A kernel without IPv6 makes no IPv6 addresses.
            Err(reason) if reason.errno() == Some(libc::EAFNOSUPPORT) => {}
            made => made.map_err(|reason| configure("configure the interface", reason))?,
        }
        link::bring_up(&mut netlink, tun.index, tun.config.mtu, tun.config.queue_length)
            .map_err(|reason| configure("switch on the interface", reason))?;
        Ok(tun)
    }

    /// Opens another queue of the same interface.
    ///
    /// # Errors
    /// When the interface was not opened for several queues, or a right is missing.
    pub fn queue(&self) -> Result<Self, HostError> {
        if !self.config.multi_queue {
            return Err(HostError::with_advice(
                format!("open another queue of {}", self.name()),
                io::Error::from_raw_os_error(libc::EINVAL),
                "open the interface with `multi_queue`",
            ));
        }
        Self::attach(self.config.clone())
    }

    /// Reads one packet behind its header, waiting for it. A buffer of [`SUPER_PACKET_BYTES`] takes any packet; what
    /// does not fit is lost.
    ///
    /// # Errors
    /// `EBADFD` once the interface was [removed](Self::remove); that is how a waiting reader is stopped.
    pub fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::read(&self.device, &mut *buffer))?)
    }

    /// Reads one packet behind its header, or nothing when none waits.
    ///
    /// # Errors
    /// As [`read`](Self::read).
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<Option<usize>> {
        let read = rustix::io::retry_on_intr(|| {
            let mut slices = [IoSliceMut::new(buffer)];
            rustix::io::preadv2(&self.device, &mut slices, u64::MAX, ReadWriteFlags::NOWAIT)
        });
        match read {
            Ok(length) => Ok(Some(length)),
            Err(Errno::AGAIN) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// Writes one packet: its header, then the packet in as many pieces as the caller has it.
    ///
    /// # Errors
    /// `EINVAL` for a packet that the kernel can't make sense of, `EIO` while the interface is down.
    pub fn write(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(rustix::io::retry_on_intr(|| rustix::io::writev(&self.device, pieces))?)
    }

    /// Removes the interface now, with its addresses and routes: every reader that waits gets an error.
    ///
    /// # Errors
    /// When the kernel refuses; an interface that is gone already is no error.
    pub fn remove(&self) -> Result<(), HostError> {
        match link::remove_link(&mut link::open()?, self.index) {
            Err(reason) if reason.errno() == Some(libc::ENODEV) => Ok(()),
            removed => removed.map_err(|reason| {
                HostError::new(Area::Network, format!("remove the interface {}", self.name()), reason)
            }),
        }
    }

    /// The interface's name.
    pub fn name(&self) -> &str {
        &self.config.name
    }

    /// The kernel's number for the interface.
    pub fn index(&self) -> u32 {
        self.index
    }

    /// The MTU that it was opened with.
    pub fn mtu(&self) -> u32 {
        self.config.mtu
    }

    /// What the kernel granted of the offloads that were asked for.
    pub fn offloads(&self) -> Offloads {
        self.offloads
    }

    fn attach(config: TunConfig) -> Result<Self, HostError> {
        let file = open_device(&config.device)?;
        let action = || format!("attach to the interface {}", config.name);
        let refused = |errno| HostError::new(Area::Tun, action(), errno);
        let mut flags = libc::IFF_TUN | libc::IFF_NO_PI | libc::IFF_VNET_HDR;
        if config.multi_queue {
            flags |= libc::IFF_MULTI_QUEUE;
        }
        let mut request = InterfaceRequest::new(&config.name, flags)
            .ok_or_else(|| HostError::with_advice(action(), Errno::INVAL, bad_name_advice()))?;
        // SAFETY: TUNSETIFF reads and writes one `struct ifreq`, which `InterfaceRequest` has the size and layout of.
        unsafe { rustix::ioctl::ioctl(&file, Updater::<SET_INTERFACE, _>::new(&mut request)) }.map_err(refused)?;
        let offloads = grant_offloads(file.as_fd(), config.offloads).map_err(refused)?;
        let index = link::find_link(&mut link::open()?, &config.name)?.index;
        Ok(Self { device: file.into(), config, index, offloads })
    }
}

impl AsFd for Tun {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.device.as_fd()
    }
}

/// `struct ifreq` as TUNSETIFF uses it: a name and 16-bit flags, padded to the size of the kernel's union.
#[repr(C)]
struct InterfaceRequest {
    name: [u8; libc::IFNAMSIZ],
    flags: u16,
    padding: [u8; 22],
}

const _: () = assert!(size_of::<InterfaceRequest>() == size_of::<libc::ifreq>());

impl InterfaceRequest {
    fn new(name: &str, flags: libc::c_int) -> Option<Self> {
        let usable = !name.is_empty()
            && name.len() <= INTERFACE_NAME_BYTES
            && name != "."
            && name != ".."
            && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/%:".contains(&byte));
        let mut padded = [0; libc::IFNAMSIZ];
        usable.then(|| padded[..name.len()].copy_from_slice(name.as_bytes()))?;
        Some(Self { name: padded, flags: u16::try_from(flags).ok()?, padding: [0; 22] })
    }
}

fn bad_name_advice() -> String {
    format!("choose a name of 1 to {INTERFACE_NAME_BYTES} letters, digits, dashes and dots")
}

fn grant_offloads(device: BorrowedFd<'_>, wanted: Offloads) -> Result<Offloads, Errno> {
    let mut offloads = wanted;
    loop {
        // SAFETY: TUNSETOFFLOAD takes an integer and no pointer.
        let set =
            unsafe { rustix::ioctl::ioctl(device, IntegerSetter::<SET_OFFLOADS>::new_usize(offloads.bits() as usize)) };
        match (set, offloads.fewer()) {
            (Err(Errno::INVAL), Some(fewer)) => offloads = fewer,
            (set, _) => return set.map(|()| offloads),
        }
    }
}

fn open_device(path: &Path) -> Result<File, HostError> {
    let open = || OpenOptions::new().read(true).write(true).open(path);
    match open() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => make_device(path)?,
        opened => return opened.map_err(|error| device_error("open", path, error)),
    }
    open().map_err(|error| device_error("open", path, error))
}

fn make_device(path: &Path) -> Result<(), HostError> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(|error| device_error("make", path, error))?;
    }
    let device = rustix::fs::makedev(10, 200);
    let made =
        rustix::fs::mknodat(rustix::fs::CWD, path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), device);
    match made {
        Ok(()) | Err(Errno::EXIST) => Ok(()),
        Err(errno) => Err(device_error("make", path, errno)),
    }
}

fn device_error(what: &str, path: &Path, reason: impl Into<Reason>) -> HostError {
    let reason = reason.into();
    let action = format!("{what} the device {}", path.display());
    let is_device = fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_char_device());
    match (what, reason.errno()) {
        ("make", Some(libc::EPERM | libc::EACCES)) => HostError::with_advice(
            action,
            reason,
            "grant the capability MKNOD, or mount the machine's /dev/net/tun here, or run in user space",
        ),
        ("make", Some(libc::EROFS)) => {
            HostError::with_advice(action, reason, "mount the machine's /dev/net/tun here, or run in user space")
        }
        ("open", Some(libc::EPERM)) if is_device => HostError::with_advice(
            action,
            reason,
            "the container runtime denies the device: allow character device 10:200 (runc 1.2.0 to 1.2.3 denies it \
             by mistake), or run in user space",
        ),
        _ => HostError::new(Area::Tun, action, reason),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_the_kernel_would_expand_or_refuse_are_refused() {
        for name in ["", "tun%d", "a/b", "with space", "..", "sixteen-letters-"] {
            assert!(InterfaceRequest::new(name, 0).is_none(), "{name:?}");
        }
        assert!(InterfaceRequest::new("tailscale0", 0).is_some());
    }
}
