//! What the supervisor and the processes it starts say to each other, over a pair of unix sockets for each, which has no
//! name and which they inherit as their standard input: lengths and JSON, then descriptors, then one byte for each
//! [`Order`] one way and for what is [`Told`] of the command the other way; and when all has ended, what was [`Refused`].

use std::{
    ffi::OsString,
    io::{self, IoSlice, IoSliceMut, Read, Write},
    mem::MaybeUninit,
    net::SocketAddr,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::PathBuf,
};

use rustix::{
    io::Errno,
    net::{
        RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, ReturnFlags, SendAncillaryBuffer,
        SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::forbidden::Knobs;

/// A message is at most this long: thousands of paths, and an environment of the 6 MiB there may be (execve(2)), in numbers.
const LONGEST: usize = 32 << 20;
/// Descriptors in one message; the kernel takes 253.
const TOGETHER: usize = 64;

/// The outer process has made its namespaces.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Unshared;

/// What becomes of its user ids.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Mapping {
    /// The supervisor has written the maps, with every id of its own.
    Written,
    /// It may not: the process maps its own id to itself.
    Own,
}

/// One listener that is wanted in the sandbox.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) enum Wanted {
    Tcp(SocketAddr),
    Udp(SocketAddr),
    /// A unix stream socket.
    Unix(PathBuf),
}

/// A path that is hidden from the command.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
pub(super) enum Hidden {
    /// An empty directory stands in its place.
    Directory(#[serde(with = "any_bytes")] PathBuf),
    /// An empty file does, which nobody accepts connections on and which takes nothing.
    File(#[serde(with = "any_bytes")] PathBuf),
}

/// Paths that others have made, which need not be text.
mod any_bytes {
    use std::{
        ffi::OsString,
        path::{Path, PathBuf},
    };

    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(path: &Path, to: S) -> Result<S::Ok, S::Error> {
        path.as_os_str().serialize(to)
    }

    pub(super) fn deserialize<'d, D: Deserializer<'d>>(from: D) -> Result<PathBuf, D::Error> {
        OsString::deserialize(from).map(PathBuf::from)
    }
}

/// What the inner process is to do.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Plan {
    /// As they are outside: a new user namespace has its own.
    pub(super) knobs: Knobs,
    /// A private file system is mounted there, for what is the sandbox's own …
    pub(super) private: PathBuf,
    /// … which stands in this directory.
    pub(super) directory: PathBuf,
    /// Where connections that are not to loopback arrive.
    pub(super) capture: Option<u16>,
    pub(super) listeners: Vec<Wanted>,
    /// What stands in these files, where they exist.
    pub(super) files: Vec<(PathBuf, String)>,
    pub(super) hidden: Vec<Hidden>,
    pub(super) read_only: bool,
    /// Stays as it is, though the rest is read-only.
    pub(super) writable: Vec<PathBuf>,
    /// The command's, all of it: whoever starts it has none.
    pub(super) environment: Vec<(OsString, OsString)>,
    /// The command may have so many descriptors; `None`: as many as whoever starts it.
    pub(super) descriptors: Option<u64>,
}

/// What the inner process has done.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Prepared {
    /// For each listener that was wanted, whether there is one. Without IPv6 some are missing.
    pub(super) listeners: Vec<bool>,
    /// What could not be had and does no harm.
    pub(super) warnings: Vec<String>,
}

/// Datagrams that were refused, which the outer process tells of when all has ended.
#[derive(Clone, PartialEq, Eq, Debug, Default, Serialize, Deserialize)]
pub(super) struct Refused {
    /// How many to each of the destinations that are told apart.
    pub(super) to: Vec<(SocketAddr, u64)>,
    /// All others.
    pub(super) others: u64,
}

/// Everything is served: the command may begin.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub(super) struct Go;

/// What the inner process is to do while the command runs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Order {
    /// Send the command this signal.
    Command(u8),
    /// Send it to the command's process group, as a terminal would.
    Group(u8),
    /// Put that group in the terminal's foreground.
    Foreground,
}

impl Order {
    /// SIGCONT.
    pub(super) const GO_ON: Self = Self::Group(18);
    /// SIGHUP.
    pub(super) const HANG_UP: Self = Self::Group(1);
    /// Signals are below 65.
    const GROUP: u8 = 0x80;
    const FOREGROUND: u8 = 0xff;

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Command(signal) => signal,
            Self::Group(signal) => signal | Self::GROUP,
            Self::Foreground => Self::FOREGROUND,
        }
    }

    pub(super) fn of(byte: u8) -> Self {
        match byte {
            Self::FOREGROUND => Self::Foreground,
            _ if byte & Self::GROUP != 0 => Self::Group(byte & !Self::GROUP),
            _ => Self::Command(byte),
        }
    }
}

/// The connection that this process was started with.
pub(super) fn inherited() -> io::Result<UnixStream> {
    Ok(io::stdin().as_fd().try_clone_to_owned()?.into())
}

/// What the inner process tells of the command.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Told {
    /// It was stopped by this signal.
    Stopped(u8),
    /// It ended by this signal.
    Ended(u8),
}

impl Told {
    /// Signals are below 65.
    const ENDED: u8 = 0x80;

    pub(super) fn byte(self) -> u8 {
        match self {
            Self::Stopped(signal) => signal,
            Self::Ended(signal) => signal | Self::ENDED,
        }
    }

    pub(super) fn of(byte: u8) -> Self {
        match byte & Self::ENDED {
            0 => Self::Stopped(byte),
            _ => Self::Ended(byte & !Self::ENDED),
        }
    }
}

/// Write one message.
pub(super) fn say(mut stream: &UnixStream, message: &impl Serialize) -> io::Result<()> {
    stream.write_all(&encode(message)?)
}

/// Read one message.
pub(super) fn hear<T: DeserializeOwned>(mut stream: &UnixStream) -> io::Result<T> {
    let mut length = [0; 4];
    stream.read_exact(&mut length)?;
    let mut bytes = vec![0; sane(length)?];
    stream.read_exact(&mut bytes)?;
    decode(&bytes)
}

pub(super) fn encode(message: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(message)?;
    let length = u32::try_from(json.len()).map_err(io::Error::other)?;
    Ok([&length.to_be_bytes()[..], &json].concat())
}

pub(super) fn decode<T: DeserializeOwned>(bytes: &[u8]) -> io::Result<T> {
    serde_json::from_slice(bytes).map_err(io::Error::from)
}

/// The length that stands before a message.
pub(super) fn sane(length: [u8; 4]) -> io::Result<usize> {
    let length = u32::from_be_bytes(length) as usize;
    if length > LONGEST {
        return Err(io::Error::from(io::ErrorKind::InvalidData));
    }
    Ok(length)
}

/// Hand over descriptors, in order.
pub(super) fn give(stream: impl AsFd, descriptors: &[OwnedFd]) -> io::Result<()> {
    for some in descriptors.chunks(TOGETHER) {
        let some: Vec<BorrowedFd<'_>> = some.iter().map(AsFd::as_fd).collect();
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        control.push(SendAncillaryMessage::ScmRights(&some));
        sendmsg(
            &stream,
            &[IoSlice::new(&[0])],
            &mut control,
            SendFlags::empty(),
        )?;
    }
    Ok(())
}

/// Take what one call of [`give`]'s chunks holds.
pub(super) fn take(stream: impl AsFd, into: &mut Vec<OwnedFd>) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(TOGETHER))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut data = [IoSliceMut::new(&mut byte)];
    let got = recvmsg(stream, &mut data, &mut control, RecvFlags::CMSG_CLOEXEC)?;
    if got.bytes == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    // There was no room for all of them, and the rest is gone: nobody would send it again.
    if got.flags.contains(ReturnFlags::CTRUNC) {
        return Err(Errno::MFILE.into());
    }
    for message in control.drain() {
        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
            into.extend(descriptors);
        }
    }
    Ok(())
}

/// Take the one descriptor that comes next.
pub(super) fn take_one(stream: impl AsFd) -> io::Result<OwnedFd> {
    let mut taken = Vec::new();
    take(stream, &mut taken)?;
    taken.pop().ok_or_else(|| io::ErrorKind::InvalidData.into())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::indexing_slicing)]

    use std::{
        net::TcpListener,
        os::{fd::OwnedFd, unix::net::UnixStream},
    };

    use super::{Go, Mapping, Order, Told, give, hear, sane, say, take, take_one};

    #[test]
    fn an_order_is_one_byte() {
        for order in [
            Order::Command(15),
            Order::Group(2),
            Order::GO_ON,
            Order::Foreground,
        ] {
            assert_eq!(Order::of(order.byte()), order);
        }
        assert_eq!(Order::Command(10).byte(), 10);
        for told in [Told::Stopped(20), Told::Ended(2)] {
            assert_eq!(Told::of(told.byte()), told);
        }
    }

    #[test]
    fn what_is_said_is_heard_and_descriptors_arrive() {
        let (near, far) = UnixStream::pair().unwrap();
        say(&near, &Mapping::Own).unwrap();
        say(&near, &Go).unwrap();
        assert_eq!(hear::<Mapping>(&far).unwrap(), Mapping::Own);
        assert_eq!(hear::<Go>(&far).unwrap(), Go);
        let given: Vec<OwnedFd> = (0..70)
            .map(|_| TcpListener::bind("127.0.0.1:0").unwrap().into())
            .collect();
        give(&near, &given).unwrap();
        let mut taken = Vec::new();
        while taken.len() < given.len() {
            take(&far, &mut taken).unwrap();
        }
        let port = |fd: &OwnedFd| {
            let listener = TcpListener::from(fd.try_clone().unwrap());
            listener.local_addr().unwrap().port()
        };
        assert!(given.iter().map(port).eq(taken.iter().map(port)));
        say(&near, &Go).unwrap();
        give(&near, &given[..1]).unwrap();
        assert_eq!(hear::<Go>(&far).unwrap(), Go);
        assert_eq!(port(&take_one(&far).unwrap()), port(&given[0]));
        drop(near);
        assert!(take(&far, &mut taken).is_err());
        assert!(sane([255; 4]).is_err());
    }
}
