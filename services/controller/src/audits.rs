//! Audits of what nodes claim, on the leader: whom to ask, when, and what to make of it.
//!
//! Owns the moments, what is out, and the way from a finding to the state. Leaves what is asked and what follows to
//! `farlane-audit`, and what a standing does to the state and the planner.
//!
//! ```text
//! attach ─▶ due, by chance ─▶ idle and measured? ─▶ Challenge ─▶ answer (a step checked) or none in time ─┐
//!                 ▲               └ far from where it says? ─────────────────────────────────────────────┼─▶ SetStanding
//!                 └──────────── a day later or so; within two minutes after a bad one ◀──────────────────┘
//! every minute: run times beside others' ──────────────────────────────────────────────────────────────────▲
//! ```
//! What is remembered is this leader's; the standing is the network's. A new leader begins to ask anew.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use farlane_audit::{Challenge, Found, LONGEST, Place, Record, Verdict, impossible};
use farlane_model::{Glob, NodeId, Standing};
use farlane_runtime::{Entropy, SystemEntropy};
use farlane_state::{Node, SetStanding};
use farlane_units::{Micros, Millis};
use farlane_wire::v1;
use farlane_wire::v1::control_frame::Body as ToAgent;

use crate::link::AgentLink;
use crate::{Caller, ControlError, Controller};

const SECOND: Micros = Micros(1_000_000);
/// How often is looked for who is due.
const TICK: Duration = Duration::from_secs(1);
/// Challenges begun in one tick. Source: an answer is checked in a tenth of a second, so that a network of 100,000
/// nodes, each asked once a day, takes a tenth of one core.
const MOST_BEGUN: usize = 4;
/// A node is asked for the first time within so long after it was measured, and again after a bad answer.
const SOON: Micros = Micros(60 * SECOND.0);
/// A node with work is looked at again after this.
const BUSY: Micros = Micros(20 * SECOND.0);
/// An agent answers no sooner again. Source: farlane-daemon, `LEAST_MS`. Where audits are more frequent than that, it
/// says now and then that it is busy.
const LEAST: Micros = Micros(11 * SECOND.0);
/// Run times are looked at so often, in ticks.
const PACE_TICKS: u64 = 60;
/// Places of regions that a server can be told.
pub const MAX_PLACES: usize = 1024;

/// What a server is told about audits.
#[derive(Debug, Clone, Default)]
pub struct AuditSettings {
    /// A node is challenged once in so long, give or take half; zero: never.
    pub every: Duration,
    /// Where this server is; `None` where nobody said.
    pub here: Option<Place>,
    /// Where regions are: the first that matches counts. At most [`MAX_PLACES`].
    pub places: Vec<(Glob, Place)>,
}

/// What is out.
#[derive(Debug)]
struct Asked {
    id: u64,
    challenge: Challenge,
    /// Millions of operations a second.
    claimed: u64,
    stream: u64,
    sent: Micros,
}

/// One node as audits know it.
#[derive(Debug, Default)]
struct Audited {
    record: Record,
    asked: Option<Asked>,
    last: Millis,
}

/// What this leader knows.
#[derive(Debug, Default)]
pub(crate) struct Audits {
    nodes: HashMap<NodeId, Audited>,
    /// When each is looked at; every node of `nodes` once.
    due: BinaryHeap<Reverse<(Micros, NodeId)>>,
    /// Found slow beside its like when that was looked at last.
    slow: BTreeSet<NodeId>,
}

impl Audits {
    /// A node is there.
    pub fn attach(&mut self, node: NodeId, now: Micros, within: Micros) {
        if self.nodes.contains_key(&node) {
            return;
        }
        self.nodes.insert(node, Audited::default());
        let wait = Micros(SystemEntropy.below(within.0.max(1)));
        self.due.push(Reverse((now.saturating_add(wait), node)));
    }

    fn next_due(&mut self, now: Micros) -> Option<NodeId> {
        let (at, _) = self.due.peek()?.0;
        if at > now {
            return None;
        }
        self.due.pop().map(|Reverse((_, node))| node)
    }

    /// Forgets everything, when leadership is lost.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Takes in what was found. The standing that follows, where it is another.
    fn note(&mut self, node: NodeId, found: Found, now: &Standing) -> Option<Standing> {
        self.nodes.entry(node).or_default().record.note(found, now)
    }
}

impl Controller {
    /// Audits nodes while this server leads, until it stops.
    pub(crate) async fn audit_loop(self: Arc<Self>) {
        let stop = self.shutdown.requested();
        tokio::pin!(stop);
        for tick in 1u64.. {
            tokio::select! {
                () = &mut stop => return,
                () = tokio::time::sleep(TICK) => {}
            }
            if self.check_leads().is_err() {
                continue;
            }
            for (node, found) in self.begin_audits() {
                self.found(node, found).await;
            }
            if tick.is_multiple_of(PACE_TICKS) {
                for (node, found) in self.look_at_paces() {
                    self.found(node, found).await;
                }
            }
        }
    }

    /// How long a node that came in waits at most for its first audit; `None` where there are none.
    pub(crate) fn first_audit_within(&self) -> Option<Micros> {
        let every = self.every();
        (every > Micros::ZERO).then(|| every.min(SOON))
    }

    /// Challenges those that are due; what is already known without asking.
    fn begin_audits(&self) -> Vec<(NodeId, Found)> {
        let now = self.clock.steady();
        let (mut found, mut begun) = (Vec::new(), 0);
        while begun < MOST_BEGUN {
            let Some(node) = self.audits.lock().next_due(now) else {
                break;
            };
            let again = match self.audit_now(node, now, &mut found) {
                Next::Forget => {
                    self.audits.lock().nodes.remove(&node);
                    continue;
                }
                Next::Begun(wait) => {
                    begun += 1;
                    wait
                }
                Next::Later(wait) => wait,
            };
            let at = now.saturating_add(again);
            self.audits.lock().due.push(Reverse((at, node)));
        }
        found
    }

    fn audit_now(&self, id: NodeId, now: Micros, found: &mut Vec<(NodeId, Found)>) -> Next {
        if let Some(next) = self.overdue(id, now, found) {
            return next;
        }
        let seen = self.consensus.read(|state| {
            let node = state.node(&id).filter(|node| !node.revoked)?;
            let idle = node.running() + node.waiting() == 0;
            Some((node.spec.measured, idle, self.place_of(node)))
        });
        let Some((measured, idle, place)) = seen else {
            return Next::Forget;
        };
        let least = self.least_round_trip(id);
        if let (Some(here), Some(there)) = (self.audit_settings.here, place)
            && least > Micros::ZERO
            && let Some((km, light)) = impossible(&here, &there, least)
        {
            let (micros, light_micros) = (least.0, light.0);
            let place = Found::Place {
                km,
                micros,
                light_micros,
            };
            found.push((id, place));
        }
        let Some(agent) = self.links.agent(id) else {
            // It is asked once it is back. What is known of it stays, so that leaving is no way out.
            return Next::Later(SOON);
        };
        match measured {
            Some(measured) if idle => self.challenge(&agent, &measured, now),
            _ => Next::Later(BUSY),
        }
    }

    fn challenge(
        &self,
        agent: &AgentLink,
        measured: &farlane_model::Measured,
        now: Micros,
    ) -> Next {
        let mut seed = [0; 32];
        SystemEntropy.fill(&mut seed);
        let challenge = Challenge::of(measured, seed);
        let id = SystemEntropy.next_u64();
        agent.frame(ToAgent::Challenge(v1::Challenge {
            id,
            seed: seed.to_vec().into(),
            cores: challenge.cores,
            steps: challenge.steps,
            rounds: challenge.rounds,
        }));
        let mut audits = self.audits.lock();
        audits.nodes.entry(agent.node).or_default().asked = Some(Asked {
            id,
            challenge,
            claimed: measured.fp32.all_cores,
            stream: agent.link.id,
            sent: now,
        });
        // Until it has answered, or could have.
        Next::Begun(Micros(LONGEST * 1000).saturating_add(SECOND))
    }

    /// What of the last challenge is to be said now; `None` where none is out.
    fn overdue(&self, id: NodeId, now: Micros, found: &mut Vec<(NodeId, Found)>) -> Option<Next> {
        let mut audits = self.audits.lock();
        let node = audits.nodes.get_mut(&id)?;
        let asked = node.asked.as_ref()?;
        let late = now.saturating_sub(asked.sent) > Micros(LONGEST * 1000);
        if !late {
            return Some(Next::Later(SECOND));
        }
        let stream = asked.stream;
        node.asked = None;
        let there = self.links.agent(id).is_some_and(|a| a.link.id == stream);
        // Who left meanwhile may have had a reason, a few times in a row.
        let verdict = if there { Verdict::Late } else { Verdict::Busy };
        found.push((id, Found::Challenge(verdict)));
        let every = self.every();
        let wait = SystemEntropy.below(SOON.min(every).0);
        Some(Next::Later(LEAST.min(every).saturating_add(Micros(wait))))
    }

    fn every(&self) -> Micros {
        Micros(u64::try_from(self.audit_settings.every.as_micros()).unwrap_or(u64::MAX))
    }

    /// An answer came: one step of it is done anew, beside what else the agent's stream brings.
    ///
    /// *Errors*: it is longer than what was asked.
    pub(crate) fn challenge_answered(
        self: &Arc<Self>,
        node: NodeId,
        answer: v1::ChallengeAnswer,
    ) -> Result<(), ControlError> {
        let now = self.clock.steady();
        let asked = {
            let mut audits = self.audits.lock();
            let known = audits.nodes.get_mut(&node);
            known.and_then(|known| known.asked.take_if(|a| a.id == answer.id))
        };
        // One that was given up for late is nothing to anybody.
        let Some(asked) = asked else { return Ok(()) };
        if answer.links.len() > asked.challenge.answer_bytes() {
            return Err(ControlError::invalid("an answer is longer than was asked"));
        }
        let took = now.saturating_sub(asked.sent);
        let took = took.saturating_sub(self.least_round_trip(node));
        let controller = self.clone();
        tokio::spawn(async move {
            let check = move || verdict(&asked, &answer.links, took);
            let Ok(verdict) = tokio::task::spawn_blocking(check).await else {
                return;
            };
            tracing::debug!(%node, ?verdict, "a challenge was answered");
            controller.found(node, Found::Challenge(verdict)).await;
            controller.plan_next(node, now, verdict);
        });
        Ok(())
    }

    /// The next audit of a node that has answered.
    fn plan_next(&self, node: NodeId, now: Micros, verdict: Verdict) {
        let every = self.every();
        let good = matches!(verdict, Verdict::Right(share) if share >= Record::LEAST_SHARE);
        let mut audits = self.audits.lock();
        let doubted = audits.nodes.get(&node).is_some_and(|n| n.record.in_doubt());
        let wait = match good && !doubted {
            true => Micros(every.0 / 2 + SystemEntropy.below(every.0)),
            false => Micros(SystemEntropy.below(2 * SOON.min(every).0)),
        };
        let at = now.saturating_add(wait.max(LEAST.min(every)));
        audits.due.retain(|Reverse((_, other))| *other != node);
        audits.due.push(Reverse((at, node)));
    }

    /// Nodes whose run times lie outside the band, and those that no longer do.
    fn look_at_paces(&self) -> Vec<(NodeId, Found)> {
        let slow: BTreeMap<_, _> = self.view.lock().pace.slow();
        let mut audits = self.audits.lock();
        let before = std::mem::take(&mut audits.slow);
        audits.slow = slow.keys().copied().collect();
        let well = before.difference(&audits.slow).map(|node| (*node, None));
        let slow = slow.into_iter().map(|(node, slow)| (node, Some(slow)));
        let all = slow.chain(well);
        all.map(|(node, slow)| (node, Found::Pace(slow))).collect()
    }

    /// Makes of a finding what follows from it.
    async fn found(&self, node: NodeId, found: Found) {
        let standing = self
            .consensus
            .read(|state| state.node(&node).map(|n| n.standing.clone()));
        let Some(now) = standing else { return };
        let at = self.now();
        let next = {
            let mut audits = self.audits.lock();
            if matches!(found, Found::Challenge(_)) {
                audits.nodes.entry(node).or_default().last = at;
            }
            audits.note(node, found, &now)
        };
        let Some(next) = next else { return };
        let (name, reason) = (next.name(), next.reason().unwrap_or_default().to_owned());
        tracing::warn!(%node, was = now.name(), is = name, reason, "a node's standing changes");
        if now.is_quarantined() {
            // What it ran before says nothing of what it is now.
            self.view.lock().pace.forget(&node);
        }
        let order = SetStanding {
            node,
            standing: next,
        };
        match self.order(vec![order.into()]).await {
            Ok(_) => {
                let action = format!("node.{name}");
                self.audit("audit", &action, &node.to_string(), &reason)
                    .await;
            }
            // It is found again, or another leader finds it.
            Err(error) => tracing::debug!(%error, "a standing was not changed"),
        }
    }

    /// Gives a node its good standing again; audits begin anew.
    ///
    /// *Errors*: unknown or removed, it stands good, or no quorum.
    pub async fn pardon_node(
        &self,
        caller: &Caller,
        request: &v1::PardonNodeRequest,
    ) -> Result<(), ControlError> {
        let node = farlane_wire::id::node(&request.node)?;
        let standing = self
            .consensus
            .read(|s| s.node(&node).map(|n| n.standing.clone()));
        if standing.ok_or(ControlError::UnknownNode)? == Standing::Good {
            return Err(ControlError::invalid("the node is in good standing"));
        }
        let order = SetStanding {
            node,
            standing: Standing::Good,
        };
        self.order(vec![order.into()]).await?;
        if let Some(known) = self.audits.lock().nodes.get_mut(&node) {
            known.record = Record::default();
        }
        self.view.lock().pace.forget(&node);
        let who = caller.key.to_string();
        self.audit(&who, "node.pardon", &node.to_string(), "").await;
        Ok(())
    }

    /// What people see of it.
    pub(crate) fn standing(&self, node: &Node) -> v1::NodeStanding {
        let audits = self.audits.lock();
        let known = audits.nodes.get(&node.id);
        let (challenges, passed) = known.map_or((0, 0), |n| n.record.counts());
        let standing = &node.standing;
        v1::NodeStanding {
            name: standing.name().to_owned(),
            reason: standing.reason().unwrap_or_default().to_owned(),
            slowdown_milli: standing.slowdown_milli(),
            lifts: matches!(standing, Standing::Quarantined { lifts: true, .. }),
            challenges,
            passed,
            last_share_milli: known.and_then(|n| n.record.last_share()).unwrap_or(0),
            last_ms: known.map_or(0, |n| n.last.0),
        }
    }

    fn least_round_trip(&self, node: NodeId) -> Micros {
        self.paths.lock().of(node).least
    }

    fn place_of(&self, node: &Node) -> Option<Place> {
        let mut places = self.audit_settings.places.iter();
        let found = places.find(|(glob, _)| glob.matches(&node.region));
        found.map(|(_, place)| *place)
    }
}

/// What becomes of a node that was due.
enum Next {
    /// It is not there.
    Forget,
    /// It was asked.
    Begun(Micros),
    Later(Micros),
}

/// What an answer that came after so long is worth; blocks for a step of the work.
fn verdict(asked: &Asked, links: &[u8], took: Micros) -> Verdict {
    let challenge = &asked.challenge;
    let core = SystemEntropy.below(challenge.cores.into()) as u32;
    let step = SystemEntropy.below(challenge.steps.into()) as u32;
    match links.is_empty() {
        true => Verdict::Busy,
        false if challenge.holds(links, core, step) => {
            Verdict::Right(share(challenge, took, asked.claimed))
        }
        false => Verdict::Wrong,
    }
}

/// Of the claimed rate, thousandths.
fn share(challenge: &Challenge, took: Micros, claimed: u64) -> u64 {
    // Operations over microseconds are millions a second.
    let rate = challenge.operations() / took.0.max(1);
    rate.saturating_mul(1000) / claimed.max(1)
}
