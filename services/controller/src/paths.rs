//! What lies between this server and each node: how far it is, and how much goes through.
//!
//! Owns the measuring on the leader. Leaves leases to `lease`, and what regions are to each other to `farlane-plan`.
//!
//! ```text
//! attach, heartbeat ─▶ Ping (a nonce) ─▶ agent answers at once ─▶ Pong ─▶ smoothed, and the least of some minutes
//!                        └ not answered by the next heartbeat: its age so far counts ◀─────┘ far off: asked again now
//! ```
//! A node cannot answer what it has not been asked, so that it may seem further away than it is, and never nearer.

use std::collections::HashMap;
use std::sync::Arc;

use farlane_model::NodeId;
use farlane_plan::Survey;
use farlane_runtime::Throughput;
use farlane_units::{ByteCount, ByteRate, Micros};
use farlane_wire::hello::PROBE_PAUSE_MS;

/// Share of a new round trip in the smoothed one, and in its deviation. Source: RFC 6298 has 1/8 and 1/4 for every
/// segment; here is one in three seconds.
const GAIN: u64 = 4;
/// Deviations that a round trip lies off before it is taken for another path. Source: RFC 6298, K.
const FAR_OFF: u64 = 4;
/// Asked one after the other when a node attaches, so that the smoothed one begins with more than luck.
const FIRST: u32 = 4;
/// Half of the time that a least round trip is kept. Source: choice; paths change within an hour, queues within minutes.
const WINDOW: Micros = Micros(300 * 1_000_000);
/// A longer round trip is not believed. Source: a lease; whoever needs longer cannot keep one.
const MAX_ROUND_TRIP: Micros = Micros(crate::LEASE.0 * 1000);
/// A round trip that follows what is measured.
#[derive(Debug, Clone, Copy, Default)]
struct RoundTrip {
    smoothed: u64,
    deviation: u64,
    /// Measured in all.
    count: u32,
    /// Of the last one: on which side it was far off.
    off: i8,
    /// Least of this window, and of the one before; `u64::MAX` for none.
    least: [u64; 2],
    window: u64,
}

impl RoundTrip {
    /// True where it should be measured again at once.
    fn see(&mut self, micros: u64, now: u64) -> bool {
        let micros = micros.clamp(1, MAX_ROUND_TRIP.0);
        self.count = self.count.saturating_add(1);
        self.keep_least(micros, now);
        if self.count == 1 {
            (self.smoothed, self.deviation) = (micros, micros / 2);
            return true;
        }
        let apart = micros.abs_diff(self.smoothed);
        let side = match apart > FAR_OFF * self.deviation.max(self.smoothed / 32) {
            false => 0,
            true if micros > self.smoothed => 1,
            true => -1,
        };
        if side != 0 && side == self.off {
            // Twice on one side: the path is another.
            (self.smoothed, self.deviation, self.off) = (micros, micros / 8, 0);
            return false;
        }
        self.off = side;
        if side == 0 {
            self.deviation = self.deviation - self.deviation / GAIN + apart / GAIN;
            self.smoothed = self.smoothed - self.smoothed / GAIN + micros / GAIN;
        }
        side != 0 || self.count < FIRST
    }

    fn keep_least(&mut self, micros: u64, now: u64) {
        let window = now / WINDOW.0;
        if self.count == 1 || window > self.window + 1 {
            self.least = [u64::MAX; 2];
        } else if window == self.window + 1 {
            self.least = [u64::MAX, self.least[0]];
        }
        self.window = window;
        self.least[0] = self.least[0].min(micros);
    }
}

/// What is known of one node's way here.
#[derive(Debug)]
struct Path {
    region: Arc<str>,
    /// Named among those that changed.
    changed: bool,
    /// The stream on which it is asked.
    stream: u64,
    /// What was asked, and when.
    asked: Option<(u64, Micros)>,
    trip: RoundTrip,
    /// To the servers, measured here.
    up: Throughput,
    /// From the servers, as the agent says.
    down: Option<ByteRate>,
    /// When it probed last.
    probed: Option<Micros>,
    /// To other servers, as the agent says.
    servers: Vec<(u64, Micros)>,
}

/// What a planner and people see of it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Seen {
    /// Smoothed; zero before it was measured.
    pub round_trip: Micros,
    /// The least of the last five to ten minutes; zero before it was measured.
    pub least: Micros,
    /// The slower way of those known.
    pub bandwidth: Option<ByteRate>,
}

/// Each once, however long nobody asks.
fn note(changed: &mut Vec<NodeId>, node: NodeId, path: &mut Path) {
    if !std::mem::replace(&mut path.changed, true) {
        changed.push(node);
    }
}

/// All nodes' ways to this leader.
#[derive(Debug, Default)]
pub(crate) struct Paths {
    nodes: HashMap<NodeId, Path>,
    changed: Vec<NodeId>,
}

impl Paths {
    /// Its control stream has opened: it is to be asked this nonce on it.
    pub fn attach(
        &mut self,
        node: NodeId,
        region: &Arc<str>,
        stream: u64,
        nonce: u64,
        now: Micros,
    ) {
        let path = self.nodes.entry(node).or_insert_with(|| Path {
            region: region.clone(),
            changed: false,
            stream,
            asked: None,
            trip: RoundTrip::default(),
            up: Throughput::default(),
            down: None,
            probed: None,
            servers: Vec::new(),
        });
        path.region = region.clone();
        (path.stream, path.asked) = (stream, Some((nonce, now)));
    }

    /// A heartbeat came: whether to ask this nonce. Where an answer is still missing its age counts.
    pub fn beat(&mut self, node: NodeId, stream: u64, nonce: u64, now: Micros) -> bool {
        let Some(path) = self.nodes.get_mut(&node).filter(|p| p.stream == stream) else {
            return false;
        };
        let Some((_, asked)) = path.asked else {
            path.asked = Some((nonce, now));
            return true;
        };
        let age = now.saturating_sub(asked).0;
        if age > path.trip.smoothed {
            path.trip.see(age, now.0);
            note(&mut self.changed, node, path);
        }
        false
    }

    /// An answer came: whether to ask `next` at once.
    pub fn answered(
        &mut self,
        node: NodeId,
        stream: u64,
        nonce: u64,
        next: u64,
        now: Micros,
    ) -> bool {
        let Some(path) = self.nodes.get_mut(&node).filter(|p| p.stream == stream) else {
            return false;
        };
        let Some((_, asked)) = path.asked.take_if(|(asked, _)| *asked == nonce) else {
            return false;
        };
        let again = path.trip.see(now.saturating_sub(asked).0, now.0);
        if again {
            path.asked = Some((next, now));
        }
        note(&mut self.changed, node, path);
        again
    }

    /// So many bytes came from a node within `time`.
    pub fn came(&mut self, node: NodeId, bytes: ByteCount, time: Micros) {
        if let Some(path) = self.nodes.get_mut(&node) {
            path.up.see(bytes, time);
            note(&mut self.changed, node, path);
        }
    }

    /// Whether a node that is attached here may probe now: its last one was long enough ago.
    pub fn may_probe(&mut self, node: NodeId, now: Micros) -> bool {
        let Some(path) = self.nodes.get_mut(&node) else {
            return false;
        };
        // Clocks and the way itself take their part of an agent's pause.
        let pause = Micros(PROBE_PAUSE_MS * 900);
        let may = path.probed.is_none_or(|at| now.saturating_sub(at) >= pause);
        if may {
            path.probed = Some(now);
        }
        may
    }

    /// What an agent says that it measured.
    pub fn told(&mut self, node: NodeId, down: Option<ByteRate>, servers: Vec<(u64, Micros)>) {
        let Some(path) = self.nodes.get_mut(&node) else {
            return;
        };
        if down.is_some() && down != path.down {
            path.down = down;
            note(&mut self.changed, node, path);
        }
        if !servers.is_empty() {
            path.servers = servers;
        }
    }

    /// Its lease has ended: what was known of it is old when it comes back.
    pub fn forget(&mut self, nodes: &[NodeId]) {
        for node in nodes {
            self.nodes.remove(node);
        }
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        self.nodes.clear();
    }

    /// Nodes that are nearer or further than before, since this was asked last.
    pub fn take_changed(&mut self) -> Vec<NodeId> {
        let changed = std::mem::take(&mut self.changed);
        for node in &changed {
            if let Some(path) = self.nodes.get_mut(node) {
                path.changed = false;
            }
        }
        changed
    }

    /// Everything by region, for what lies between regions; `server` is this one.
    pub fn survey(&self, server: u64) -> Survey {
        let mut survey = Survey::default();
        for (node, path) in &self.nodes {
            if path.trip.count > 0 {
                survey.trip(&path.region, server, Micros(path.trip.smoothed));
            }
            for (other, trip) in path.servers.iter().filter(|(other, _)| *other != server) {
                survey.trip(&path.region, *other, *trip);
            }
            if let Some(rate) = self.of(*node).bandwidth {
                survey.rate(&path.region, rate);
            }
        }
        survey
    }

    /// What is known of a node.
    pub fn of(&self, node: NodeId) -> Seen {
        let Some(path) = self.nodes.get(&node) else {
            return Seen::default();
        };
        let least = path.trip.least[0].min(path.trip.least[1]);
        let up = path.up.rate();
        Seen {
            round_trip: Micros(path.trip.smoothed),
            least: match path.trip.count {
                0 => Micros::ZERO,
                _ => Micros(least),
            },
            bandwidth: match (up, path.down) {
                (Some(up), Some(down)) => Some(up.min(down)),
                (one, other) => one.or(other),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NODE: NodeId = NodeId([1; 32]);

    fn at(millis: u64) -> Micros {
        Micros(millis * 1000)
    }

    /// Attached, and asked until it is not asked at once any more; every answer takes `trip` ms.
    fn measured(trip: u64) -> (Paths, u64) {
        let (mut paths, mut now, mut nonce) = (Paths::default(), 1000, 7);
        paths.attach(NODE, &"eu".into(), 1, nonce, at(now));
        loop {
            now += trip;
            nonce += 1;
            if !paths.answered(NODE, 1, nonce - 1, nonce, at(now)) {
                return (paths, now);
            }
        }
    }

    #[test]
    fn a_path_that_worsens_is_believed_with_the_second_answer_and_one_slow_answer_is_not() {
        let (mut paths, mut now) = measured(20);
        let seen = paths.of(NODE);
        assert!(
            (at(20).0..at(21).0).contains(&seen.round_trip.0),
            "{seen:?}"
        );
        assert_eq!(seen.least, at(20));
        for _ in 0..5 {
            now += 3000;
            assert!(paths.beat(NODE, 1, 5, at(now)));
            now += 21;
            assert!(!paths.answered(NODE, 1, 5, 0, at(now)));
        }
        // One late answer: asked again at once, and that was that.
        assert!(paths.beat(NODE, 1, 5, at(now)));
        now += 400;
        assert!(paths.answered(NODE, 1, 5, 6, at(now)));
        now += 20;
        assert!(!paths.answered(NODE, 1, 6, 0, at(now)));
        assert!(paths.of(NODE).round_trip < at(25));
        // Two: that is how it is now.
        assert!(paths.beat(NODE, 1, 5, at(now)));
        now += 300;
        assert!(paths.answered(NODE, 1, 5, 6, at(now)));
        now += 300;
        assert!(!paths.answered(NODE, 1, 6, 0, at(now)));
        let seen = paths.of(NODE);
        assert_eq!((seen.round_trip, seen.least), (at(300), at(20)));
        // And back.
        assert!(paths.beat(NODE, 1, 5, at(now)));
        now += 20;
        let again = paths.answered(NODE, 1, 5, 6, at(now));
        now += 20;
        assert!(again && !paths.answered(NODE, 1, 6, 0, at(now)));
        assert_eq!(paths.of(NODE).round_trip, at(20));
        // What was least long ago is forgotten.
        now += 700_000;
        assert!(paths.beat(NODE, 1, 5, at(now)));
        paths.answered(NODE, 1, 5, 6, at(now + 25));
        assert_eq!(paths.of(NODE).least, at(25));
    }

    #[test]
    fn who_does_not_answer_is_further_away_with_every_heartbeat_and_nobody_answers_early() {
        let (mut paths, now) = measured(10);
        assert!(paths.beat(NODE, 1, 5, at(now)));
        for late in 1..=3 {
            assert!(!paths.beat(NODE, 1, 6, at(now + 3000 * late)));
        }
        assert!(paths.of(NODE).round_trip >= at(6000));
        // Nonces and streams of others are no answers.
        let (mut paths, now) = measured(10);
        let before = paths.of(NODE);
        assert!(paths.beat(NODE, 1, 5, at(now)));
        assert!(!paths.answered(NODE, 1, 4, 0, at(now)) && !paths.answered(NODE, 2, 5, 0, at(now)));
        assert_eq!(paths.of(NODE), before);
        assert_eq!(paths.of(NodeId([2; 32])), Seen::default());
    }

    #[test]
    fn large_transfers_say_more_of_bandwidth_and_claims_never_better_it() {
        let (mut paths, _) = measured(10);
        assert_eq!(paths.of(NODE).bandwidth, None);
        let second = Micros(1_000_000);
        paths.came(NODE, ByteCount(10_000_000), second);
        assert_eq!(paths.of(NODE).bandwidth, Some(ByteRate(10_000_000)));
        paths.came(NODE, ByteCount(500_000), second);
        let after = paths.of(NODE).bandwidth;
        assert!(
            after.is_some_and(|r| (8_900_000..9_000_000).contains(&r.0)),
            "{after:?}"
        );
        paths.came(NODE, ByteCount(10), Micros::ZERO);
        assert_eq!(paths.of(NODE).bandwidth, after);
        paths.told(NODE, Some(ByteRate::MAX), Vec::new());
        assert_eq!(paths.of(NODE).bandwidth, after);
        paths.told(NODE, Some(ByteRate(5)), Vec::new());
        assert_eq!(paths.of(NODE).bandwidth, Some(ByteRate(5)));
        // A probe an hour, and none of nodes that are not here.
        let hour = Micros(PROBE_PAUSE_MS * 1000);
        assert!(paths.may_probe(NODE, second) && !paths.may_probe(NODE, Micros(hour.0 / 2)));
        assert!(paths.may_probe(NODE, hour) && !paths.may_probe(NodeId([2; 32]), hour));
    }
}
