//! Three voters over gRPC: a leader killed under load, and a server that joins late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use farlane_consensus::{Consensus, Member, ProposeError};
use farlane_state::{Outcome, Rows, Table};
use parking_lot::Mutex;

use crate::cluster::{Server, eventually, free_port, genesis, leader, three, url};
use crate::load::{open, session, spec, submit};

const WRITERS: u64 = 16;

/// The servers that writers may try, as they come and go.
type Known = Arc<Mutex<Vec<Consensus>>>;

/// Sends one task after another to whoever leads, each until it is acknowledged; gives their number.
async fn write(known: Known, writer: u64, stop: Arc<AtomicBool>) -> u64 {
    let spec = spec();
    let mut seq = 1;
    let mut at = 0;
    while !stop.load(Ordering::Relaxed) {
        let server = {
            let known = known.lock();
            known[at % known.len()].clone()
        };
        let proposal = server.propose(vec![open(writer), submit(writer, seq, &spec, seq == 1)]);
        match tokio::time::timeout(Duration::from_secs(2), proposal).await {
            Ok(Ok(proposed)) => {
                // Sent again after a doubtful answer, it is still the same task.
                assert!(
                    matches!(&proposed.outcomes[..], [Outcome::Done, Outcome::Submitted { through, refused, .. }] if *through == seq && refused.is_empty()),
                    "{proposed:?}"
                );
                seq += 1;
            }
            Ok(Err(
                ProposeError::NotLeader { .. }
                | ProposeError::Unknown
                | ProposeError::Stopped
                | ProposeError::NoQuorum,
            ))
            | Err(_) => {
                at += 1;
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            Ok(Err(error)) => panic!("{error}"),
        }
    }
    seq - 1
}

/// Proposes Genesis to whoever leads, until it is done.
async fn founded(servers: &[Server]) {
    for _ in 0..50 {
        let at = leader(servers).await;
        if servers[at]
            .consensus()
            .propose(vec![genesis()])
            .await
            .is_ok()
        {
            return;
        }
    }
    panic!("no leader stayed for one proposal");
}

/// Every row of the tables of tasks, for comparing replicas.
fn tasks(consensus: &Consensus) -> Vec<(bytes::Bytes, bytes::Bytes)> {
    consensus
        .rows()
        .scan(Table::Tasks, &[], &[0xff; 17], usize::MAX)
}

pub fn same(servers: &[Server]) -> bool {
    let all: Vec<_> = servers.iter().map(Server::consensus).collect();
    let index = all.iter().map(Consensus::applied_index).max().unwrap();
    all.iter().all(|one| one.applied_index() == index)
        && all.iter().all(|one| {
            one.read(|state| state.fingerprint()) == all[0].read(|state| state.fingerprint())
        })
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_killed_under_load_loses_and_repeats_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = three(dir.path());
    founded(&servers).await;
    let first = leader(&servers).await;
    let known: Known = Arc::new(Mutex::new(servers.iter().map(Server::consensus).collect()));
    let stop = Arc::new(AtomicBool::new(false));
    let writers: Vec<_> = (0..WRITERS)
        .map(|n| tokio::spawn(write(known.clone(), n, stop.clone())))
        .collect();
    eventually("the first leader works", || {
        servers[first].consensus().applied_index() > 200
    })
    .await;

    known.lock().remove(first);
    servers[first].kill();
    let second = leader(&servers).await;
    assert_ne!(first, second);
    let after = servers[second].consensus().applied_index();
    eventually("work goes on under the new leader", || {
        servers[second].consensus().applied_index() > after + 50
    })
    .await;

    servers[first].start();
    known.lock().push(servers[first].consensus());
    tokio::time::sleep(Duration::from_millis(500)).await;
    stop.store(true, Ordering::Relaxed);
    let mut acknowledged = Vec::new();
    for writer in writers {
        acknowledged.push(writer.await.unwrap());
    }
    eventually("all three hold the same", || same(&servers)).await;
    for server in &servers {
        let consensus = server.consensus();
        for (writer, last) in acknowledged.iter().enumerate() {
            let next =
                consensus.read(|state| state.session(&session(writer as u64)).unwrap().next_seq);
            assert!(
                next == last + 1 || next == last + 2,
                "writer {writer}: {last} acknowledged, {next} next"
            );
        }
        let all = consensus.read(|state| state.counts());
        let numbers: u64 = (0..WRITERS)
            .map(|n| consensus.read(|state| state.session(&session(n)).unwrap().next_seq - 1))
            .sum();
        // Each number is one live task and one row: none lost, none twice.
        assert_eq!(tasks(&consensus).len() as u64, numbers, "{all:?}");
        assert_eq!(tasks(&consensus), tasks(&servers[0].consensus()));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_fresh_server_is_caught_up_by_a_snapshot() {
    let dir = tempfile::tempdir().unwrap();
    let port = free_port();
    let founder = vec![Member {
        id: 1,
        url: url(port),
    }];
    let mut one = Server::new(1, dir.path().join("1"), port, founder, true);
    one.start();
    let consensus = one.consensus();
    let mut all = vec![genesis(), open(1)];
    all.extend((1..=200u64).map(|seq| submit(1, seq, &spec(), seq == 1)));
    consensus.propose(all).await.unwrap();
    // Entries of a megabyte fill segments until the log is purged, so that only a snapshot helps.
    let filler = open_filler();
    for _ in 0..60 {
        consensus.propose(filler.clone()).await.unwrap();
    }
    let logs = || {
        std::fs::read_dir(dir.path().join("1/log"))
            .unwrap()
            .filter(|f| {
                f.as_ref()
                    .unwrap()
                    .path()
                    .extension()
                    .is_some_and(|e| e == "log")
            })
            .count()
    };
    eventually("the log is purged", || logs() <= 3).await;

    let port = free_port();
    let mut two = Server::new(2, dir.path().join("2"), port, Vec::new(), false);
    two.start();
    let mut notices = two.consensus().subscribe();
    consensus
        .add_member(Member {
            id: 2,
            url: url(port),
        })
        .await
        .unwrap();
    consensus
        .propose(vec![submit(1, 201, &spec(), false)])
        .await
        .unwrap();
    let pair = [one, two];
    eventually("both hold the same", || same(&pair)).await;
    assert!(
        notices.recv().await.unwrap().reset,
        "a snapshot tells subscribers to begin anew"
    );
    assert_eq!(tasks(&pair[1].consensus()), tasks(&consensus));
    assert_eq!(tasks(&consensus).len(), 201);

    // What was installed is there after a restart, too.
    let [one, mut two] = pair;
    let print = two.consensus().read(|state| state.fingerprint());
    two.kill();
    two.start();
    let pair = [one, two];
    eventually("both hold the same again", || same(&pair)).await;
    assert_eq!(pair[1].consensus().read(|state| state.fingerprint()), print);
    assert_eq!(tasks(&pair[1].consensus()).len(), 201);
}

/// An entry of nearly a megabyte that changes nothing: the same session opened again and again.
pub fn open_filler() -> Vec<farlane_state::Command> {
    let one = open(1);
    let count = 1_000_000 / (one.body.len() + 8);
    vec![one; count]
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_without_a_quorum_confirms_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let mut servers = three(dir.path());
    let mut confirmed = None;
    for _ in 0..50 {
        let at = leader(&servers).await;
        if servers[at].consensus().confirm().await.is_ok() {
            confirmed = Some(at);
            break;
        }
    }
    let at = confirmed.expect("a leader with its quorum is confirmed");
    let consensus = servers[at].consensus();
    for (other, server) in servers.iter_mut().enumerate() {
        if other != at {
            server.kill();
        }
    }
    let confirmed = tokio::time::timeout(Duration::from_secs(5), consensus.confirm()).await;
    assert!(!matches!(confirmed, Ok(Ok(()))), "{confirmed:?}");
}
