//! The conversation of a take-over: messages of JSON on a unix socket that keeps them apart, with descriptors.

use core::time::Duration;
use std::fs;
use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd, RawFd};
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::{Path, PathBuf};

use nix::cmsg_space;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, Backlog, ControlMessage, ControlMessageOwned, MsgFlags, Shutdown, SockFlag, SockType, UnixAddr,
    accept4, bind, connect, listen, recvmsg, sendmsg, shutdown, socket,
};
use nix::sys::stat::{Mode, fchmod};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Descriptors that one message can have (`SCM_MAX_FD`).
pub(super) const MAX_DESCRIPTORS: usize = 253;

/// Octets of the longest message.
const MAX_MESSAGE: usize = 1 << 16;

/// The offer of the server that runs, which goes with the descriptors: those of the maps, of the links, a pipe
/// whose other end this process alone has; and for each earlier process such a pipe, the conversation with it, and
/// its relays.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Offer {
    pub(super) version: u32,
    /// A hash of the XDP object.
    pub(super) object: u64,
    /// The program of it that is attached.
    pub(super) program: String,
    /// The number of its first shard in the flow filter.
    pub(super) first: u16,
    pub(super) queues: u32,
    pub(super) devices: Vec<String>,
    /// By device: whether the kernel runs the program in its stack.
    pub(super) generic: Vec<bool>,
    pub(super) mtu: u16,
    /// The secret of SYN cookies.
    pub(super) secret: [u64; 2],
    /// The names of the program's maps.
    pub(super) maps: Vec<String>,
    /// Earlier processes, by the number of their first shards.
    pub(super) earlier: Vec<u16>,
}

/// The messages that follow an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) enum Word {
    /// The later process is ready. With it come a socket that receives nothing, and relays for the shards.
    Ready,
    /// The earlier process has closed its sockets.
    Released,
    /// The later process serves.
    Taken,
}

/// One end of a conversation.
#[derive(Debug)]
pub(super) struct Conversation(OwnedFd);

impl Conversation {
    /// Calls the process that listens at `path`; `None`: there is none.
    ///
    /// # Errors
    ///
    /// The kernel's.
    pub(super) fn call(path: &Path) -> io::Result<Option<Self>> {
        let end = unix_socket(SockFlag::empty())?;
        match connect(end.as_raw_fd(), &UnixAddr::new(path)?) {
            Ok(()) => Ok(Some(Self(end))),
            Err(Errno::ENOENT | Errno::ECONNREFUSED) => Ok(None),
            Err(errno) => Err(errno.into()),
        }
    }

    /// # Errors
    ///
    /// The kernel's; `EPIPE` when the other end is closed.
    pub(super) fn send(&self, message: &impl Serialize, descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let text = serde_json::to_vec(message)?;
        let raw: Vec<RawFd> = descriptors.iter().map(|fd| fd.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&raw)];
        let rights = if raw.is_empty() { &[][..] } else { &rights[..] };
        let flags = MsgFlags::MSG_NOSIGNAL;
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(&text)], rights, flags, None)?;
        Ok(())
    }

    /// The next message, if it comes within `limit`.
    ///
    /// # Errors
    ///
    /// The kernel's, `TimedOut`, `UnexpectedEof` when the other end is closed, or what is wrong with the message.
    pub(super) fn receive<T: DeserializeOwned>(&self, limit: Duration) -> io::Result<(T, Vec<OwnedFd>)> {
        if !is_ready(self.0.as_fd(), PollFlags::POLLIN, limit)? {
            return Err(io::ErrorKind::TimedOut.into());
        }
        let mut text = vec![0; MAX_MESSAGE];
        let mut space = cmsg_space!([RawFd; MAX_DESCRIPTORS]);
        let mut parts = [IoSliceMut::new(&mut text)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let message = recvmsg::<()>(self.0.as_raw_fd(), &mut parts, Some(&mut space), flags)?;
        let length = message.bytes;
        let mut descriptors = Vec::new();
        for control in message.cmsgs()? {
            if let ControlMessageOwned::ScmRights(raw) = control {
                // SAFETY: the kernel has just made these descriptors for this message, and nobody else knows of them.
                descriptors.extend(raw.into_iter().map(|raw| unsafe { OwnedFd::from_raw_fd(raw) }));
            }
        }
        if length == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        Ok((serde_json::from_slice(&text[..length])?, descriptors))
    }

    /// Waits for a word that comes without descriptors.
    ///
    /// # Errors
    ///
    /// As [`Conversation::receive`], or that it is another.
    pub(super) fn expect(&self, expected: Word, limit: Duration) -> io::Result<()> {
        let (word, _) = self.receive::<Word>(limit)?;
        if word == expected {
            Ok(())
        } else {
            Err(io::Error::other(format!("it says {word:?} and not {expected:?}")))
        }
    }

    /// Takes no further message: to send one is an error for the other end, which learns nothing else.
    pub(super) fn refuse(&self) {
        // It fails only where the other end is closed.
        let _ = shutdown(self.0.as_raw_fd(), Shutdown::Read);
    }

    /// Whether a message waits, or the other end is closed.
    pub(super) fn has_news(&self) -> bool {
        is_ready(self.0.as_fd(), PollFlags::POLLIN, Duration::ZERO).unwrap_or(true)
    }
}

impl AsFd for Conversation {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Conversation {
    fn from(end: OwnedFd) -> Self {
        Self(end)
    }
}

/// Whether the other end of a pipe or socket is closed.
pub(super) fn is_hung_up(end: impl AsFd) -> bool {
    is_ready(end.as_fd(), PollFlags::empty(), Duration::ZERO).unwrap_or(true)
}

fn is_ready(end: BorrowedFd<'_>, events: PollFlags, limit: Duration) -> io::Result<bool> {
    let limit = PollTimeout::try_from(limit).unwrap_or(PollTimeout::MAX);
    match poll(&mut [PollFd::new(end, events)], limit) {
        Ok(count) => Ok(count > 0),
        Err(Errno::EINTR) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

fn unix_socket(flags: SockFlag) -> io::Result<OwnedFd> {
    let flags = SockFlag::SOCK_CLOEXEC | flags;
    Ok(socket(AddressFamily::Unix, SockType::SeqPacket, flags, None)?)
}

/// The socket that later processes connect to. Dropping it removes it, unless another process has the path since.
#[derive(Debug)]
pub(super) struct Door {
    socket: OwnedFd,
    path: PathBuf,
    /// Device and inode, to remove nobody else's.
    file: (u64, u64),
}

impl Door {
    /// Listens at `path`, for the owner of this process alone, in the place of whatever process did before.
    ///
    /// # Errors
    ///
    /// The kernel's, or that something else is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        match fs::symlink_metadata(path) {
            Ok(metadata) if metadata.file_type().is_socket() => fs::remove_file(path)?,
            Ok(_) => return Err(io::Error::other("there is something that is no socket")),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
        let socket = unix_socket(SockFlag::SOCK_NONBLOCK)?;
        // What is bound has the mode of the socket.
        fchmod(&socket, Mode::S_IRUSR | Mode::S_IWUSR)?;
        bind(socket.as_raw_fd(), &UnixAddr::new(path)?)?;
        let file = file_of(path)?;
        listen(&socket, Backlog::new(4)?)?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            file,
        })
    }

    /// The next conversation, if somebody called.
    pub(super) fn answer(&self) -> Option<Conversation> {
        let raw = accept4(self.socket.as_raw_fd(), SockFlag::SOCK_CLOEXEC).ok()?;
        // SAFETY: the kernel has just made this descriptor, and nobody else knows of it.
        Some(Conversation(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Whether it is still at its path.
    pub(super) fn is_in_place(&self) -> bool {
        file_of(&self.path).is_ok_and(|file| file == self.file)
    }

    /// Listens at its path again, if another process has done so since.
    ///
    /// # Errors
    ///
    /// As [`Door::open`]. It can be tried again.
    pub(super) fn reopen(&mut self) -> io::Result<()> {
        if !self.is_in_place() {
            *self = Self::open(&self.path)?;
        }
        Ok(())
    }
}

impl Drop for Door {
    fn drop(&mut self) {
        if self.is_in_place() {
            let _ = fs::remove_file(&self.path);
        }
    }
}

/// Device and inode of what is at `path`.
fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let file = fs::symlink_metadata(path)?;
    Ok((file.dev(), file.ino()))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read as _, Write as _};
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn messages_come_one_by_one_with_their_descriptors() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        assert!(Conversation::call(&path).expect("a look").is_none(), "nobody is there");
        let door = Door::open(&path).expect("a socket");
        assert_eq!(fs::metadata(&path).expect("it").permissions().mode() & 0o777, 0o600);
        assert!(door.answer().is_none());
        let caller = Conversation::call(&path).expect("a call").expect("somebody is there");
        let called = door.answer().expect("a call");
        assert!(!called.has_news());
        let mut file = tempfile::tempfile().expect("a file");
        file.write_all(b"shared").expect("room");
        caller
            .send(&Word::Ready, &[file.as_fd(), file.as_fd()])
            .expect("an end");
        caller.send(&Word::Taken, &[]).expect("an end");
        let (word, descriptors) = called.receive::<Word>(SOON).expect("a message");
        assert_eq!((word, descriptors.len()), (Word::Ready, 2));
        let mut text = String::new();
        let mut copy = File::from(descriptors.into_iter().next().expect("a descriptor"));
        io::Seek::rewind(&mut copy).expect("a file");
        copy.read_to_string(&mut text).expect("a file");
        assert_eq!(text, "shared");
        called.expect(Word::Taken, SOON).expect("the word");
        assert!(!is_hung_up(&called));
        drop(caller);
        assert!(is_hung_up(&called) && called.has_news());
        let error = called.expect(Word::Taken, SOON).expect_err("the end");
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn a_conversation_that_is_refused_is_an_error_to_who_speaks_and_its_end_is_seen() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let door = Door::open(&path).expect("a socket");
        let caller = Conversation::call(&path).expect("a call").expect("somebody is there");
        let called = door.answer().expect("a call");
        called.refuse();
        assert!(!is_hung_up(&called), "the caller lives");
        let error = caller.send(&Word::Taken, &[]).expect_err("too late");
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        drop(caller);
        assert!(is_hung_up(&called));
        called.refuse();
    }

    #[test]
    fn the_path_is_that_of_the_last_to_open_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let first = Door::open(&path).expect("a socket");
        let second = Door::open(&path).expect("a socket");
        drop(first);
        let _caller = Conversation::call(&path).expect("a call").expect("the second is there");
        assert!(second.answer().is_some());
        drop(second);
        assert!(!path.exists());
        fs::write(&path, "").expect("a file");
        assert!(Door::open(&path).is_err(), "a file is not removed");
    }

    #[test]
    fn the_path_can_be_had_back_when_it_is_free_again() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = directory.path().join("door");
        let mut first = Door::open(&path).expect("a socket");
        first.reopen().expect("it is there yet");
        let file = first.file;
        assert_eq!(file_of(&path).expect("a socket"), file, "the same");
        let second = Door::open(&path).expect("a socket");
        first.reopen().expect("another's socket goes");
        drop(second);
        let _caller = Conversation::call(&path).expect("a call").expect("the first is there");
        assert!(first.answer().is_some());
        fs::remove_file(&path).expect("a socket");
        fs::write(&path, "").expect("a file");
        first.reopen().expect_err("a file is not removed");
        fs::remove_file(&path).expect("a file");
        first.reopen().expect("the path is free");
        assert!(Conversation::call(&path).expect("a call").is_some());
        drop(first);
        assert!(!path.exists());
    }
}
