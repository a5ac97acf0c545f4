//! How long a proposal takes, beside what the disk itself takes.
//!
//! `cargo run --release -p farlane-consensus --example commit_latency [FOLDER]` founds a cluster of one
//! server in a fresh folder under FOLDER (or the system's temporary folder) and prints: fdatasync of a small append, a redb
//! commit of one small row, one writer's proposals, and the throughput of 64 and of 1,024 writers.
//! Each proposal submits one sealed task of 300 bytes to the real state machine.
#![allow(clippy::unwrap_used)]

use std::fs::OpenOptions;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use farlane_consensus::{Config, Consensus, Member, PlainConnector};
use farlane_model::Digest;
use farlane_runtime::SystemClock;
use farlane_state::{Genesis, Order, Outcome};
use farlane_units::ByteCount;

#[path = "../tests/it/load.rs"]
mod load;

use load::{open, spec, submit};

const ROUNDS: usize = 2_000;
const SPAN: Duration = Duration::from_secs(5);

fn percentile(times: &mut [Duration], part: f64) -> Duration {
    times.sort_unstable();
    times[((times.len() - 1) as f64 * part) as usize]
}

fn show(what: &str, mut times: Vec<Duration>) {
    let (half, most) = (percentile(&mut times, 0.5), percentile(&mut times, 0.99));
    println!(
        "{what:<44} p50 {:>7.0} µs   p99 {:>7.0} µs",
        half.as_secs_f64() * 1e6,
        most.as_secs_f64() * 1e6
    );
}

fn timed(mut work: impl FnMut(usize)) -> Vec<Duration> {
    (0..ROUNDS)
        .map(|round| {
            let start = Instant::now();
            work(round);
            start.elapsed()
        })
        .collect()
}

fn disk(dir: &Path) {
    let file = OpenOptions::new()
        .create(true)
        .truncate(true)
        .write(true)
        .open(dir.join("plain"))
        .unwrap();
    file.set_len(16 << 20).unwrap();
    file.sync_all().unwrap();
    let row = [7u8; 400];
    show(
        "fdatasync of 400 B",
        timed(|round| {
            file.write_all_at(&row, round as u64 * 400).unwrap();
            file.sync_data().unwrap();
        }),
    );
    let database = redb::Database::create(dir.join("plain.redb")).unwrap();
    let table = redb::TableDefinition::<u64, &[u8]>::new("log");
    show(
        "redb commit of 400 B",
        timed(|round| {
            let transaction = database.begin_write().unwrap();
            transaction
                .open_table(table)
                .unwrap()
                .insert(round as u64, row.as_slice())
                .unwrap();
            transaction.commit().unwrap();
        }),
    );
}

/// Proposes one task after another; gives how long each took.
async fn write(consensus: Consensus, number: u64, until: Instant, most: usize) -> Vec<Duration> {
    consensus.propose(vec![open(number)]).await.unwrap();
    let spec = spec();
    let mut times = Vec::new();
    while Instant::now() < until && times.len() < most {
        let seq = times.len() as u64 + 1;
        let start = Instant::now();
        let proposed = consensus
            .propose(vec![submit(number, seq, &spec, seq == 1)])
            .await
            .unwrap();
        times.push(start.elapsed());
        assert!(
            matches!(&proposed.outcomes[..], [Outcome::Submitted { through, refused, .. }] if *through == seq && refused.is_empty()),
            "{proposed:?}"
        );
    }
    times
}

fn cpu() -> Duration {
    let usage = nix::sys::resource::getrusage(nix::sys::resource::UsageWho::RUSAGE_SELF).unwrap();
    [usage.user_time(), usage.system_time()]
        .iter()
        .map(|t| Duration::from_micros((t.tv_sec() * 1_000_000 + t.tv_usec()) as u64))
        .sum()
}

#[tokio::main]
async fn main() {
    let parent = std::env::args()
        .nth(1)
        .map_or_else(std::env::temp_dir, Into::into);
    let dir = tempfile::tempdir_in(parent).unwrap();
    disk(dir.path());
    let config = Config {
        id: 1,
        dir: dir.path().join("replica"),
        members: vec![Member {
            id: 1,
            url: "http://127.0.0.1:1".to_owned(),
        }],
        bootstrap: true,
        cache: ByteCount::mib(8),
        connector: Arc::new(PlainConnector),
    };
    let start = Instant::now();
    let consensus = Consensus::start(config, Arc::new(SystemClock))
        .await
        .unwrap();
    println!(
        "{:<44} {:>11.1} ms",
        "founded and led after",
        start.elapsed().as_secs_f64() * 1e3
    );
    let genesis = Order::Genesis(Genesis {
        network: Digest::of(b"bench"),
        epoch: 1,
        cluster_version: 1,
    });
    consensus.propose(vec![genesis.encode()]).await.unwrap();
    show(
        "propose, 1 writer",
        write(
            consensus.clone(),
            0,
            Instant::now() + Duration::from_secs(60),
            ROUNDS,
        )
        .await,
    );
    for writers in [64u64, 1024] {
        let (begun, used) = (Instant::now(), cpu());
        let tasks: Vec<_> = (0..writers)
            .map(|n| {
                tokio::spawn(write(
                    consensus.clone(),
                    writers * 10_000 + n,
                    begun + SPAN,
                    usize::MAX,
                ))
            })
            .collect();
        let mut times = Vec::new();
        for task in tasks {
            times.extend(task.await.unwrap());
        }
        let rate = times.len() as f64 / begun.elapsed().as_secs_f64();
        let each = (cpu() - used).as_secs_f64() * 1e6 / times.len() as f64;
        println!("propose, {writers} writers: {rate:.0} a second, {each:.1} µs of CPU each");
        show("", times);
    }
    disk(dir.path());
    let start = Instant::now();
    let queued = consensus.read(|state| state.counts());
    consensus.shutdown().await;
    println!(
        "flushed and stopped after {:.0} ms; {queued:?}",
        start.elapsed().as_secs_f64() * 1e3
    );
}
