//! A follower that is slow to take its snapshot, while the cluster goes on.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farlane_consensus::Member;
use farlane_state::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::cluster::{Server, eventually, free_port, genesis, url};
use crate::load::{open, spec, submit};
use crate::three::{open_filler, same};

/// Tasks whose rows are several times what a connection holds on its way.
const TASKS: u64 = 12_000;

/// A way to a server that closes once a snapshot begins to arrive there, until it is opened.
struct Gate {
    incoming: PathBuf,
    closed: AtomicBool,
    open: AtomicBool,
}

impl Gate {
    fn stops(&self) -> bool {
        if self.incoming.exists() {
            self.closed.store(true, Ordering::SeqCst);
        }
        self.closed.load(Ordering::SeqCst) && !self.open.load(Ordering::SeqCst)
    }

    /// Passes connections on to `port`, and gives the port to call instead.
    async fn before(self: Arc<Self>, port: u16) -> u16 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let own = listener.local_addr().unwrap().port();
        tokio::spawn(async move {
            while let Ok((caller, _)) = listener.accept().await {
                let Ok(called) = TcpStream::connect(("127.0.0.1", port)).await else {
                    continue;
                };
                tokio::spawn(self.clone().pass(caller, called));
            }
        });
        own
    }

    async fn pass(self: Arc<Self>, caller: TcpStream, called: TcpStream) {
        let (mut from, mut back) = caller.into_split();
        let (mut answers, mut to) = called.into_split();
        tokio::spawn(async move { tokio::io::copy(&mut answers, &mut back).await });
        let mut piece = vec![0; 16 * 1024];
        while let Ok(length @ 1..) = from.read(&mut piece).await {
            while self.stops() {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if to.write_all(&piece[..length]).await.is_err() {
                return;
            }
        }
    }
}

/// The numbers of the log's files, the oldest first.
fn segments(dir: &Path) -> Vec<u64> {
    let names = std::fs::read_dir(dir.join("log")).unwrap();
    let number = |name: &str| u64::from_str_radix(name.strip_suffix(".log")?, 16).ok();
    let mut numbers: Vec<u64> = names
        .filter_map(|file| number(file.unwrap().file_name().to_str()?))
        .collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_log_stays_for_who_takes_a_snapshot_so_that_one_is_enough() {
    let dir = tempfile::tempdir().unwrap();
    let (first, second) = (dir.path().join("1"), dir.path().join("2"));
    let port = free_port();
    let founder = Member {
        id: 1,
        url: url(port),
    };
    let mut one = Server::new(1, first.clone(), port, vec![founder], true);
    one.start();
    let consensus = &one.consensus();
    consensus.propose(vec![genesis(), open(1)]).await.unwrap();
    let tasks: Vec<Command> = (1..=TASKS)
        .map(|seq| submit(1, seq, &spec(), seq == 1))
        .collect();
    for some in tasks.chunks(1500) {
        consensus.propose(some.to_vec()).await.unwrap();
    }
    let fill = |megabytes| async move {
        for _ in 0..megabytes {
            let done = consensus.propose(open_filler());
            // A server that is no voter yet holds nobody up.
            let done = tokio::time::timeout(Duration::from_secs(30), done).await;
            done.unwrap().unwrap();
        }
    };
    fill(60).await;
    eventually("the log is purged", || segments(&first).len() <= 3).await;

    let port = free_port();
    let mut two = Server::new(2, second.clone(), port, Vec::new(), false);
    two.start();
    let mut notices = two.consensus().subscribe();
    let gate = Arc::new(Gate {
        incoming: second.join("incoming.redb"),
        closed: AtomicBool::new(false),
        open: AtomicBool::new(false),
    });
    let added = Member {
        id: 2,
        url: url(gate.clone().before(port).await),
    };
    let adding = tokio::spawn({
        let consensus = consensus.clone();
        async move { consensus.add_member(added).await }
    });
    eventually("the snapshot is on its way", || gate.stops()).await;
    let newest = *segments(&first).last().unwrap();
    fill(160).await;
    // What the snapshot holds goes, as ever; what came after it stays. By size alone the log would
    // have been purged every second, and 160 MB take longer.
    assert!(segments(&first).len() >= 9, "{:?}", segments(&first));
    eventually("the log is purged again", || segments(&first)[0] >= newest).await;

    gate.open.store(true, Ordering::SeqCst);
    adding.await.unwrap().unwrap();
    let pair = [one, two];
    eventually("both hold the same", || same(&pair)).await;
    let mut snapshots = 0;
    while let Ok(notice) = notices.try_recv() {
        snapshots += usize::from(notice.reset);
    }
    assert_eq!(snapshots, 1);
    // Nobody is owed anything now.
    fill(60).await;
    eventually("the log is short again", || segments(&first).len() <= 3).await;
}
