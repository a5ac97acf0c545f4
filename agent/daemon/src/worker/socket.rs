//! One worker's end of its socket: whole messages, never blocking.
//!
//! The agent keeps the worker's own end too: messages that the worker has not received yet can be
//! taken back from it, exactly, by receiving them there.

use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use tokio::io::unix::AsyncFd;

/// Most bytes of one message. Source: `PIECE` in python/farlane_worker.py.
pub(crate) const PIECE: usize = 64 * 1024;

/// Whether a message went.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Sent {
    Whole,
    /// The buffer is full; nothing went.
    Full,
    /// Nobody will ever read it.
    Closed,
}

/// A SEQPACKET pair, both ends held.
#[derive(Debug)]
pub(crate) struct Socket {
    near: AsyncFd<OwnedFd>,
    far: OwnedFd,
}

impl Socket {
    /// A new pair.
    ///
    /// *Errors*: no descriptors left.
    pub(crate) fn pair() -> io::Result<Self> {
        let (near, far) = seqpacket(libc::SOCK_NONBLOCK)?;
        Ok(Self {
            near: watched(near)?,
            far,
        })
    }

    /// The worker's end, to be passed on.
    pub(crate) fn far(&self) -> RawFd {
        self.far.as_raw_fd()
    }

    /// The same, owned, as a process that was forked from the worker holds it.
    #[cfg(test)]
    pub(crate) fn far_clone(&self) -> io::Result<OwnedFd> {
        self.far.try_clone()
    }

    /// Sends one message of two parts.
    pub(crate) fn send(&self, head: &[u8], body: &[u8]) -> Sent {
        send_parts(self.near.as_raw_fd(), head, body)
    }

    /// Waits until a message could be sent.
    pub(crate) async fn writable(&self) {
        if let Ok(mut guard) = self.near.writable().await {
            guard.clear_ready();
        }
    }

    /// Waits for messages; then receives one into `buffer`. An empty one is a task's doing, as is a socket
    /// shut for sending: this side holds both ends, so neither has ended. `None` where it fails.
    pub(crate) async fn receive(&self, buffer: &mut [u8]) -> Option<usize> {
        loop {
            let mut guard = self.near.readable().await.ok()?;
            match guard.try_io(|fd| receive(fd.as_raw_fd(), buffer)) {
                Ok(Err(_)) => return None,
                Ok(Ok(n)) => return Some(n),
                Err(_) => continue,
            }
        }
    }

    /// Receives one message that is already here, as [`Socket::receive`].
    pub(crate) fn receive_now(&self, buffer: &mut [u8]) -> Option<usize> {
        receive(self.near.as_raw_fd(), buffer).ok()
    }

    /// Takes back one message that the worker has not received.
    pub(crate) fn take_back(&self, buffer: &mut [u8]) -> Option<usize> {
        receive(self.far.as_raw_fd(), buffer)
            .ok()
            .filter(|n| *n > 0)
    }
}

/// Watches something that owns its descriptor.
///
/// *Errors*: the descriptor cannot be watched.
#[allow(unsafe_code)]
pub(crate) fn watched<T: AsRawFd + Into<OwnedFd>>(io: T) -> io::Result<AsyncFd<T>> {
    // SAFETY: `T` owns its descriptor (it converts into an `OwnedFd`), so the descriptor stays open and
    // the same for as long as the registration that holds `T` lasts.
    unsafe { AsyncFd::register(io) }.map_err(Into::into)
}

/// A close-on-exec SEQPACKET pair; `near_flags` apply to both descriptions' creation, so the far end is
/// switched back to blocking for its reader.
#[allow(unsafe_code)]
pub(crate) fn seqpacket(near_flags: i32) -> io::Result<(OwnedFd, OwnedFd)> {
    let mut fds = [0; 2];
    let kind = libc::SOCK_SEQPACKET | libc::SOCK_CLOEXEC;
    // SAFETY: `fds` has room for the two descriptors that the call writes.
    if unsafe { libc::socketpair(libc::AF_UNIX, kind, 0, fds.as_mut_ptr()) } != 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: both are new and owned by nobody else.
    let (near, far) = unsafe { (OwnedFd::from_raw_fd(fds[0]), OwnedFd::from_raw_fd(fds[1])) };
    if near_flags & libc::SOCK_NONBLOCK != 0 {
        // SAFETY: sets a flag of a descriptor owned here.
        let set = unsafe { libc::fcntl(near.as_raw_fd(), libc::F_SETFL, libc::O_NONBLOCK) };
        if set != 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok((near, far))
}

#[allow(unsafe_code)]
fn receive(fd: RawFd, buffer: &mut [u8]) -> io::Result<usize> {
    // SAFETY: the buffer is valid for its length during the call.
    let n = unsafe {
        libc::recv(
            fd,
            buffer.as_mut_ptr().cast(),
            buffer.len(),
            libc::MSG_DONTWAIT,
        )
    };
    usize::try_from(n).map_err(|_| io::Error::last_os_error())
}

#[allow(unsafe_code)]
fn send_parts(fd: RawFd, head: &[u8], body: &[u8]) -> Sent {
    let mut parts = [head, body].map(|part| libc::iovec {
        iov_base: part.as_ptr().cast_mut().cast(),
        iov_len: part.len(),
    });
    // SAFETY: an all-zero msghdr is valid; the parts live until the call returns, which only reads them.
    let n = unsafe {
        let mut message: libc::msghdr = std::mem::zeroed();
        message.msg_iov = parts.as_mut_ptr();
        message.msg_iovlen = parts.len();
        libc::sendmsg(fd, &message, libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL)
    };
    match n {
        0.. => Sent::Whole,
        _ => match io::Error::last_os_error().raw_os_error() {
            Some(libc::EAGAIN | libc::ENOBUFS | libc::EINTR) => Sent::Full,
            _ => Sent::Closed,
        },
    }
}

/// Sends bytes with descriptors.
///
/// *Errors*: the receiver is gone, or its buffer is full.
#[allow(unsafe_code)]
pub(crate) fn send_with_fds(fd: RawFd, bytes: &[u8], fds: &[RawFd]) -> io::Result<()> {
    use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
    let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
    let rights = [ControlMessage::ScmRights(fds)];
    let control: &[ControlMessage<'_>] = if fds.is_empty() { &[] } else { &rights };
    sendmsg::<()>(fd, &[io::IoSlice::new(bytes)], control, flags, None)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[tokio::test]
    async fn what_was_not_received_can_be_taken_back() {
        let socket = Socket::pair().unwrap();
        for i in 0..3u8 {
            assert_eq!(socket.send(&[i], b"body"), Sent::Whole);
        }
        let mut buffer = [0; 64];
        // The worker receives the first.
        assert_eq!(receive(socket.far(), &mut buffer).unwrap(), 5);
        assert_eq!(socket.take_back(&mut buffer), Some(5));
        assert_eq!(&buffer[..5], b"\x01body");
        assert_eq!(socket.take_back(&mut buffer), Some(5));
        assert_eq!(socket.take_back(&mut buffer), None);
    }

    #[tokio::test]
    async fn a_full_buffer_is_said_and_nothing_is_lost() {
        let socket = Socket::pair().unwrap();
        let piece = vec![7; PIECE];
        let mut sent = 0;
        while socket.send(&piece, &[]) == Sent::Whole {
            sent += 1;
            assert!(sent < 1000);
        }
        assert!(sent >= 1);
        let mut buffer = vec![0; PIECE];
        for _ in 0..sent {
            assert_eq!(socket.take_back(&mut buffer), Some(PIECE));
        }
        assert_eq!(socket.send(&piece, &[]), Sent::Whole);
    }
}
