//! How many bytes of answers the agent holds at once, all workers together.
//!
//! A large answer waits, unread, in its worker until there is room for all of it; it keeps its room until it
//! is sealed and where it belongs. Small ones need none: workers and their queues are bounded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::MAX_ANSWER;
use super::socket::PIECE;

/// Answers up to this need no room. Source: workers of a large machine (256) hold a quarter of the bound.
pub(crate) const SMALL: usize = 1 << 20;
/// Bytes of the others together: the largest one always finds room. Source: a node of 4 GiB holds it with its
/// sealed copy.
const TOGETHER: usize = MAX_ANSWER;
/// Once there is room, a worker has this long to say its answer, and a second more for each so many bytes.
/// Source: a socket of this machine carries 1 GB/s; one that dawdles keeps others waiting.
const PATIENCE: Duration = Duration::from_secs(30);
const BYTES_A_SECOND: u64 = 8 << 20;

/// Room for one answer; dropping it gives it back.
pub(crate) type Room = OwnedSemaphorePermit;

/// The bound.
#[derive(Debug, Clone)]
pub(crate) struct Answers {
    free: Arc<Semaphore>,
    patience: Duration,
}

impl Default for Answers {
    fn default() -> Self {
        Self::of(TOGETHER, PATIENCE)
    }
}

impl Answers {
    fn of(bytes: usize, patience: Duration) -> Self {
        let free = Arc::new(Semaphore::new(bytes.div_ceil(PIECE)));
        Self { free, patience }
    }

    /// Waits for room; those who ask first get it first.
    pub(super) async fn room(&self, bytes: usize) -> Option<Room> {
        let pieces = u32::try_from(bytes.div_ceil(PIECE)).ok()?;
        self.free.clone().acquire_many_owned(pieces).await.ok()
    }

    /// How long an answer of so many bytes may take from when it has room.
    pub(super) fn patience(&self, bytes: usize) -> Duration {
        self.patience + Duration::from_secs(bytes as u64 / BYTES_A_SECOND)
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::super::message::{Answer, Said};
    use super::super::{Event, Link, WorkerNumber};
    use super::*;
    use std::os::fd::AsRawFd;
    use tokio::sync::mpsc;

    /// Says the head of an answer of so many bytes, and then its body, as far as it is read.
    fn answer(far: &std::os::fd::OwnedFd, total: usize) {
        let mut head = vec![0; 44];
        head[0] = 2;
        head[36..44].copy_from_slice(&(total as u64).to_le_bytes());
        let send = |bytes: &[u8]| {
            let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
            nix::sys::socket::send(far.as_raw_fd(), bytes, flags).is_ok()
        };
        let mut rest = total;
        let mut going = send(&head);
        while going && rest > 0 {
            let piece = rest.min(PIECE);
            going = send(&vec![7; piece]);
            rest -= piece;
        }
    }

    async fn next(events: &mut mpsc::Receiver<Event>) -> (u32, Answer) {
        loop {
            match events.recv().await.unwrap() {
                Event::Said { worker, mut said } => match said.pop() {
                    Some(Said::Result(answer)) => return (worker.0, answer),
                    other => panic!("{other:?}"),
                },
                // The end of its output, which nobody holds here.
                Event::Printing { .. } => {}
                other => panic!("{other:?}"),
            }
        }
    }

    #[tokio::test]
    async fn large_answers_wait_for_one_another_and_small_ones_for_nobody() {
        let answers = Answers::of(5 << 20, PATIENCE);
        let (events, mut heard) = mpsc::channel(16);
        let mut links = Vec::new();
        for (number, total) in [(1, 4 << 20), (2, 3 << 20), (3, 3 << 20)] {
            let (link, _output) = Link::open(WorkerNumber(number), &events, &answers).unwrap();
            let far = link.socket.far_clone().unwrap();
            links.push(link);
            std::thread::spawn(move || answer(&far, total));
            if number == 1 {
                let (from, first) = next(&mut heard).await;
                assert_eq!((from, first.body.len()), (1, 4 << 20));
                // Held, as while it is sealed and uploaded.
                links.push(Link::open(WorkerNumber(9), &events, &answers).unwrap().0);
                let far = links[1].socket.far_clone().unwrap();
                std::thread::spawn(move || answer(&far, SMALL));
                let (from, small) = next(&mut heard).await;
                assert!((from, small.body.len()) == (9, SMALL) && small.room.is_none());
                tokio::spawn({
                    let free = answers.free.clone();
                    async move {
                        // Others wait until the first is let go.
                        for _ in 0..100 {
                            tokio::task::yield_now().await;
                        }
                        assert!(free.available_permits() < (3 << 20) / PIECE);
                        drop(first);
                    }
                });
            }
        }
        let mut from = Vec::new();
        for _ in 0..2 {
            let (number, answer) = next(&mut heard).await;
            assert!(answer.room.is_some() && answer.body.len() == 3 << 20);
            from.push(number);
        }
        from.sort_unstable();
        assert_eq!(from, [2, 3]);
        assert_eq!(answers.free.available_permits(), (5 << 20) / PIECE);
    }

    #[tokio::test]
    async fn who_has_room_and_says_nothing_gives_it_back() {
        let total = 4 << 20;
        let answers = Answers::of(total, Duration::from_millis(50));
        let (events, mut heard) = mpsc::channel(16);
        let (link, _output) = Link::open(WorkerNumber(1), &events, &answers).unwrap();
        let mut head = [0; 44];
        head[0] = 2;
        head[36..44].copy_from_slice(&(total as u64).to_le_bytes());
        let far = link.socket.far_clone().unwrap();
        let flags = nix::sys::socket::MsgFlags::MSG_NOSIGNAL;
        nix::sys::socket::send(far.as_raw_fd(), &head, flags).unwrap();
        while !matches!(heard.recv().await, Some(Event::Violated { .. })) {}
        drop(link);
        let room = answers.room(total).await;
        assert!(room.is_some());
    }
}
