//! One voter: what was acknowledged is there after a kill.

use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use farlane_consensus::{Consensus, Member, ProposeError, StartError};
use farlane_runtime::SystemClock;
use farlane_state::{Command, Outcome, Refusal, Rows, Table};

use crate::cluster::{config, genesis};
use crate::load::{cancel, open, session, spec, submit};

/// Names the folder in which the child process writes until it is killed.
const CHILD: &str = "FARLANE_TEST_WRITE_UNTIL_KILLED";
const WRITERS: u64 = 64;

pub async fn start(dir: &Path) -> Consensus {
    let members = vec![Member {
        id: 1,
        url: "http://127.0.0.1:1".to_owned(),
    }];
    Consensus::start(
        config(1, dir.to_owned(), members, true),
        Arc::new(SystemClock),
    )
    .await
    .unwrap()
}

async fn write(consensus: Consensus, writer: u64) {
    consensus.propose(vec![open(writer)]).await.unwrap();
    let spec = spec();
    for seq in 1.. {
        let proposed = consensus
            .propose(vec![submit(writer, seq, &spec, seq == 1)])
            .await
            .unwrap();
        assert!(
            matches!(&proposed.outcomes[..], [Outcome::Submitted { through, .. }] if *through == seq)
        );
        // One write a line, so that a kill cuts no line in two that was whole before.
        let line = format!("{writer} {seq}\n");
        std::io::stdout().lock().write_all(line.as_bytes()).unwrap();
    }
}

/// The body of the child process; does nothing in an ordinary run of the tests.
#[test]
fn child_writes_until_killed() {
    let Ok(dir) = std::env::var(CHILD) else {
        return;
    };
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .unwrap();
    runtime.block_on(async {
        let consensus = start(Path::new(&dir)).await;
        let founded = consensus.propose(vec![genesis()]).await.unwrap();
        assert!(matches!(
            founded.outcomes[..],
            [Outcome::Done | Outcome::Refused(Refusal::AlreadyFounded)]
        ));
        let round: u64 = std::env::var("FARLANE_TEST_ROUND")
            .unwrap()
            .parse()
            .unwrap();
        let writers =
            (0..WRITERS).map(|n| tokio::spawn(write(consensus.clone(), round * WRITERS + n)));
        for writer in writers.collect::<Vec<_>>() {
            writer.await.unwrap();
        }
    });
}

/// Runs the child and kills it with -9 after a while; gives the last acknowledged task of each writer.
fn write_and_kill(dir: &Path, round: u64, run: Duration) -> Vec<u64> {
    let mut child = Process::new(std::env::current_exe().unwrap())
        .args([
            "--exact",
            "single::child_writes_until_killed",
            "--nocapture",
        ])
        .env(CHILD, dir)
        .env("FARLANE_TEST_ROUND", round.to_string())
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap());
    let reader = std::thread::spawn(move || {
        let mut last = vec![0; WRITERS as usize];
        for line in lines.lines().map_while(Result::ok) {
            let mut words = line.split(' ').map(str::parse::<u64>);
            if let (Some(Ok(writer)), Some(Ok(seq)), None) =
                (words.next(), words.next(), words.next())
            {
                last[(writer - round * WRITERS) as usize] = seq;
            }
        }
        last
    });
    std::thread::sleep(run);
    child.kill().unwrap();
    child.wait().unwrap();
    reader.join().unwrap()
}

/// Holds the state and its rows against what was acknowledged.
fn check(consensus: &Consensus, round: u64, acknowledged: &[u64]) {
    let rows = consensus.rows();
    for (n, last) in acknowledged.iter().enumerate() {
        let id = session(round * WRITERS + n as u64);
        let next = consensus.read(|state| state.session(&id).map_or(1, |session| session.next_seq));
        assert!(
            next > *last,
            "writer {n}: task {last} was acknowledged, and {next} is next"
        );
        assert!(
            next <= last + 2,
            "writer {n}: one task at a time, {last} acknowledged, {next} next"
        );
        for seq in 1..next {
            let key = id.task(seq).to_bytes();
            assert!(
                rows.get(Table::Tasks, &key).is_some(),
                "writer {n}: task {seq} has no row"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_acknowledged_is_lost_by_a_kill() {
    let dir = tempfile::tempdir().unwrap();
    let mut rounds = Vec::new();
    // Kills at different moments of the flush's rhythm.
    for (round, run) in [700, 950, 1_330].into_iter().enumerate() {
        let path = dir.path().to_owned();
        let round = round as u64;
        let killed = tokio::task::spawn_blocking(move || {
            write_and_kill(&path, round, Duration::from_millis(run))
        });
        rounds.push(killed.await.unwrap());
        assert!(
            rounds.iter().flatten().sum::<u64>() > 100,
            "hardly anything was written: {rounds:?}"
        );
        let consensus = start(dir.path()).await;
        for (round, acknowledged) in rounds.iter().enumerate() {
            check(&consensus, round as u64, acknowledged);
        }
        consensus.shutdown().await;
    }
}

#[tokio::test]
async fn a_clean_stop_needs_no_replay_and_time_goes_on() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    consensus.propose(vec![genesis(), open(1)]).await.unwrap();
    let (index, now, print) = (
        consensus.applied_index(),
        consensus.now(),
        consensus.read(|state| state.fingerprint()),
    );
    consensus.shutdown().await;
    let consensus = start(dir.path()).await;
    assert!(consensus.applied_index() >= index && consensus.now() >= now);
    assert_eq!(consensus.read(|state| state.fingerprint()), print);
    consensus.confirm().await.unwrap();
}

#[tokio::test]
async fn commands_of_one_call_stay_in_one_entry_in_order() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    let mut notices = consensus.subscribe();
    let spec = spec();
    let all = vec![
        genesis(),
        open(1),
        submit(1, 1, &spec, true),
        submit(1, 2, &spec, false),
    ];
    let proposed = consensus.propose(all).await.unwrap();
    assert!(matches!(
        proposed.outcomes[..],
        [
            Outcome::Done,
            Outcome::Done,
            Outcome::Submitted { through: 1, .. },
            Outcome::Submitted { through: 2, .. }
        ]
    ));
    let cancelled = consensus.propose(vec![cancel(1, &[1, 2])]).await.unwrap();
    let notice = notices.recv().await.unwrap();
    assert_eq!((notice.index, notice.reset), (cancelled.index, false));
    assert!(
        cancelled.index > proposed.index && notice.changes.len() >= 2,
        "{notice:?}"
    );
    let many: Vec<_> = (3..40u64).map(|seq| submit(1, seq, &spec, false)).collect();
    let proposals: Vec<_> = many
        .into_iter()
        .map(|command| consensus.propose(vec![command]))
        .collect();
    for (seq, proposed) in (3..40u64).zip(futures_util::future::join_all(proposals).await) {
        assert!(
            matches!(proposed.unwrap().outcomes[..], [Outcome::Submitted { through, .. }] if through == seq)
        );
    }
}

#[tokio::test]
async fn what_does_not_fit_an_entry_is_refused_and_what_does_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    let large = |bytes: usize| Command {
        kind: 9999,
        version: 1,
        body: Bytes::from(vec![0; bytes]),
    };
    let refused = consensus
        .propose(vec![large(700_000), large(700_000)])
        .await;
    assert!(
        matches!(
            refused,
            Err(ProposeError::TooLarge {
                bytes: 1_400_016,
                ..
            })
        ),
        "{refused:?}"
    );
    assert!(
        consensus
            .propose(Vec::new())
            .await
            .unwrap()
            .outcomes
            .is_empty()
    );
}

#[tokio::test]
async fn an_unknown_command_stops_the_replica_and_says_so() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    consensus.propose(vec![genesis()]).await.unwrap();
    let print = consensus.read(|state| state.fingerprint());
    let unknown = Command {
        kind: 9999,
        version: 7,
        body: Bytes::new(),
    };
    // The known command of the same entry must not be applied either.
    let proposed = consensus.propose(vec![open(1), unknown]).await;
    assert_eq!(proposed, Err(ProposeError::Stopped));
    let failure = consensus.failed().await;
    assert!(failure.reason.contains("kind 9999 version 7"), "{failure}");
    assert_eq!(consensus.read(|state| state.fingerprint()), print);
    assert_eq!(
        consensus.propose(vec![open(1)]).await,
        Err(ProposeError::Stopped)
    );
    drop(consensus);
    tokio::time::sleep(Duration::from_millis(300)).await;
    let again = tokio::time::timeout(Duration::from_secs(20), async {
        let members = vec![Member {
            id: 1,
            url: "http://127.0.0.1:1".to_owned(),
        }];
        Consensus::start(
            config(1, dir.path().to_owned(), members, true),
            Arc::new(SystemClock),
        )
        .await
    });
    let Err(error) = again.await.unwrap() else {
        panic!("it started with a command it does not know")
    };
    assert!(
        matches!(error, StartError::Raft(ref why) if why.contains("kind 9999")),
        "{error}"
    );
}

#[tokio::test]
async fn a_folder_serves_one_process_and_one_server() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    let members = |id| {
        vec![Member {
            id,
            url: "http://127.0.0.1:1".to_owned(),
        }]
    };
    let twice = Consensus::start(
        config(1, dir.path().to_owned(), members(1), true),
        Arc::new(SystemClock),
    )
    .await;
    assert!(matches!(twice.err(), Some(StartError::InUse { .. })));
    consensus.shutdown().await;
    let other = Consensus::start(
        config(2, dir.path().to_owned(), members(2), true),
        Arc::new(SystemClock),
    )
    .await;
    assert!(matches!(
        other.err(),
        Some(StartError::WrongServer {
            found: 1,
            wanted: 2,
            ..
        })
    ));
}

/// Rows are read the same whether they are new, being flushed, or in the file.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rows_read_the_same_across_flushes() {
    let dir = tempfile::tempdir().unwrap();
    let consensus = start(dir.path()).await;
    consensus.propose(vec![genesis(), open(1)]).await.unwrap();
    let (rows, spec, id) = (consensus.rows(), spec(), session(1));
    let (low, high) = (id.task(0).to_bytes(), id.task(u64::MAX).to_bytes());
    let begun = Instant::now();
    let mut seq = 0;
    while begun.elapsed() < Duration::from_millis(600) {
        seq += 1;
        consensus
            .propose(vec![submit(1, seq, &spec, seq == 1)])
            .await
            .unwrap();
        let found = rows.scan(Table::Tasks, &low, &high, usize::MAX);
        let keys: Vec<Bytes> = (1..=seq)
            .map(|n| Bytes::copy_from_slice(&id.task(n).to_bytes()))
            .collect();
        assert_eq!(
            found.iter().map(|(key, _)| key.clone()).collect::<Vec<_>>(),
            keys
        );
        assert_eq!(
            rows.scan(Table::Tasks, &low, &high, 3).len() as u64,
            seq.min(3)
        );
        assert_eq!(rows.get(Table::Tasks, &keys[0]), Some(found[0].1.clone()));
    }
    assert!(rows.scan(Table::Tasks, &high, &low, 10).is_empty());
    assert_eq!(rows.get(Table::Tasks, &id.task(seq + 1).to_bytes()), None);
}
