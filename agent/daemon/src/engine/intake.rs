//! What the control plane says: assignments, grants, stops, acknowledgements.

use std::collections::HashMap;
use std::sync::Arc;

use bytes::Bytes;
use farlane_model::{AttemptRef, Digest, Exit, ExitKind, NodeSpec, Sealed, TaskSpec, Tier};
use farlane_reconcile::{Action, Event};
use farlane_wire::v1::agent_frame::Body as Out;
use farlane_wire::v1::control_frame::Body as In;
use farlane_wire::{BadMessage, id, v1};
use tokio::sync::watch;

use super::attempt::{Attempt, Beside, Spec, Stage, Token, places};
use super::log::Log;
use super::prepare::{Order, Unready};
use super::{Done, Engine};
use crate::clock::ClusterClock;
use crate::link::LinkEvent;
use crate::worker::WorkerNumber;

/// One-time prekeys at the start. Source: granters that find this node in its first minutes.
const FIRST_PREKEYS: usize = 16;
/// Most made at one wish.
const MOST_PREKEYS: u32 = 256;
/// Attempts held at once. Source: four times the largest backlog credit; a server that sends more is wrong.
const MAX_ATTEMPTS: usize = 4096;

impl Engine {
    pub(super) fn linked(&mut self, event: LinkEvent, connected: &watch::Sender<bool>) {
        match event {
            LinkEvent::WantHello(answer) => {
                let _ = answer.send(self.hello());
            }
            LinkEvent::Up { out, hello, sent } => {
                self.out = Some(out);
                self.up(hello, sent);
                connected.send_replace(true);
            }
            LinkEvent::Frame(v1::ControlFrame { body: Some(body) }) => self.frame(body),
            LinkEvent::Frame(_) => {}
            LinkEvent::Down => self.out = None,
            LinkEvent::Over(why) => self.over = Some(why),
        }
    }

    fn hello(&self) -> v1::AgentHello {
        v1::AgentHello {
            hello: Some(farlane_wire::hello(&crate::join::software())),
            boot: id::boot_bytes(&self.boot),
            seen_index: self.reconciler.seen(),
            spec_bytes: self.spec.to_canonical().into(),
            observed: Some(v1::Observed {
                live: self.by_ref.keys().map(|at| (*at).into()).collect(),
                ended: self.outbox.ended(),
                ungranted: self.ungranted(),
            }),
            record_bytes: self.record.to_bytes(),
        }
    }

    /// What is here and cannot begin before its grant has come.
    fn ungranted(&self) -> Vec<v1::AttemptRef> {
        let waiting = |at: &&AttemptRef| {
            let attempt = self.by_ref.get(*at).and_then(|t| self.attempts.get(t));
            attempt.is_some_and(|one| one.grant.is_none())
        };
        let waiting = self.by_ref.keys().filter(waiting);
        waiting.map(|at| (*at).into()).collect()
    }

    fn up(&mut self, hello: v1::ControlHello, sent: u64) {
        self.network = hello.network;
        self.clock.learn(hello.cluster_time_ms, sent);
        if let Some(limits) = hello.hello.and_then(|hello| hello.limits)
            && limits.lease_ms > 0
        {
            // A server may ask for a shorter one, never for one that others would not wait for.
            self.lease_ms = limits.lease_ms.min(farlane_wire::hello::LEASE_MS);
        }
        self.lease_until = self.lease_until.max(sent + self.lease_ms);
        self.round_trip_micros = ClusterClock::steady().saturating_sub(sent) * 1000;
        self.outbox.reconnected();
        self.way.connected();
        self.give_prekeys(FIRST_PREKEYS);
        self.heartbeat();
    }

    fn give_prekeys(&mut self, count: usize) {
        let now = self.clock.now();
        let stock = v1::PrekeyStock {
            boot: id::boot_bytes(&self.boot),
            daily_bytes: self.grants.daily(now).unwrap_or_default(),
            one_time_bytes: self.grants.one_time(count, now),
        };
        self.tell(Out::Prekeys(stock));
    }

    fn frame(&mut self, body: In) {
        match body {
            In::Heartbeat(ack) => self.renewed(&ack),
            In::Assign(assign) => {
                for spec in assign.specs {
                    self.learn_spec(&spec.spec_bytes);
                }
                self.wanted(assign.attempts, |attempts| Event::Assigned {
                    index: assign.index,
                    attempts,
                });
            }
            In::Desired(desired) => {
                self.wanted(desired.attempts, |attempts| Event::Desired {
                    index: desired.index,
                    attempts,
                });
            }
            In::Grant(batch) => self.granted(&batch),
            In::Completed(ack) => {
                let attempts = self.outbox.acknowledged(ack.batch);
                self.reconciler.step(Event::Acknowledged { attempts });
            }
            In::PrekeysWanted(wanted) => {
                self.give_prekeys(wanted.count.min(MOST_PREKEYS) as usize);
            }
            In::Stop(stop) => self.stop(&stop),
            In::Challenge(asked) => self.challenged(asked),
            In::Hello(_) | In::Refused(_) | In::Ping(_) => {}
        }
    }

    fn renewed(&mut self, ack: &v1::HeartbeatAck) {
        let now = ClusterClock::steady();
        // Never from the future: a server cannot stretch a lease.
        let sent = ack.sent_ms.min(now);
        self.lease_until = self.lease_until.max(sent + self.lease_ms);
        self.clock.learn(ack.cluster_time_ms, sent);
        self.round_trip_micros = (now - sent) * 1000;
    }

    fn learn_spec(&mut self, bytes: &Bytes) {
        let digest = Digest::of(bytes);
        if self.specs.renew(&digest) {
            return;
        }
        let Ok(spec) = TaskSpec::from_canonical(bytes) else {
            tracing::warn!(%digest, "a task's spec cannot be read");
            return;
        };
        let spec = Arc::new(Spec::new(digest, spec));
        self.specs.insert(spec.clone());
        let waiting: Vec<Token> = self
            .attempts
            .iter()
            .filter(|(_, attempt)| attempt.spec.is_none() && attempt.spec_digest == digest)
            .map(|(token, _)| *token)
            .collect();
        for token in waiting {
            if let Some(attempt) = self.attempts.get_mut(&token) {
                attempt.spec = Some(spec.clone());
            }
            self.advance(token);
        }
    }

    /// What should be here, held against what is: the reconciler says what to do.
    fn wanted(
        &mut self,
        assignments: Vec<v1::Assignment>,
        event: impl FnOnce(Vec<AttemptRef>) -> Event,
    ) {
        let mut by_ref = HashMap::with_capacity(assignments.len());
        for assignment in assignments {
            match assignment.attempt.as_ref().map(AttemptRef::try_from) {
                Some(Ok(at)) => {
                    by_ref.insert(at, assignment);
                }
                _ => tracing::warn!("an assignment names no attempt"),
            }
        }
        let refs = by_ref.keys().copied().collect();
        for action in self.reconciler.step(event(refs)) {
            match action {
                Action::Hold(at) => {
                    let one = by_ref.remove(&at);
                    let yields = one.as_ref().map_or(0, |one| one.yields_ms);
                    let assigned = one.map(|one| self.assigned(at, one));
                    self.make_way(&at, yields);
                    if let Some(Err(bad)) = assigned {
                        tracing::warn!(%bad, %at.task, "an assignment cannot be read");
                        self.reconciler
                            .step(Event::StopWanted { attempts: vec![at] });
                    }
                }
                Action::Stop(at) | Action::Forget(at) => self.stop_ref(&at, None),
                Action::Report(at) => self.outbox.report(&at),
            }
        }
        // What was here already may have come out of the backlog, with GPUs, or is to make way.
        for (at, assignment) in by_ref {
            self.promoted(&at, &assignment.devices);
            self.make_way(&at, assignment.yields_ms);
        }
    }

    /// An attempt that waited for GPUs learns which are its.
    fn promoted(&mut self, at: &AttemptRef, devices: &[u32]) {
        let Some(token) = self.by_ref.get(at).copied() else {
            return;
        };
        let attempt = self.attempts.get_mut(&token);
        let waits = attempt.filter(|attempt| attempt.devices == 0 && !devices.is_empty());
        let Some(attempt) = waits else { return };
        match device_set(devices, &self.spec) {
            Ok(devices) => attempt.devices = devices,
            Err(bad) => return tracing::warn!(%bad, %at.task, "an assignment cannot be read"),
        }
        self.advance(token);
    }

    fn assigned(&mut self, at: AttemptRef, assignment: v1::Assignment) -> Result<(), BadMessage> {
        if self.attempts.len() >= MAX_ATTEMPTS {
            return Err(BadMessage {
                field: "assignment",
                problem: "more than this node holds",
            });
        }
        let spec_digest = id::digest(&assignment.spec)?;
        let payload = farlane_wire::convert::present(assignment.payload, "payload")?;
        let payload = Sealed::try_from(payload)?;
        let devices = device_set(&assignment.devices, &self.spec)?;
        self.calibrator.work_came();
        let token = Token(self.next_token);
        self.next_token += 1;
        let attempt = Attempt {
            at,
            spec_digest,
            spec: self.specs.get(&spec_digest),
            payload,
            devices,
            grant: self.grants.take(&at),
            stage: Stage::Waiting,
            arrived_ms: self.clock.now().0,
            log: Log::default(),
            told_started: false,
            beside: None,
        };
        self.by_ref.insert(at, token);
        self.attempts.insert(token, attempt);
        self.advance(token);
        Ok(())
    }

    fn granted(&mut self, batch: &v1::GrantBatch) {
        let opened = self.grants.open(batch, &self.network, self.clock.now());
        let granted = match opened {
            Ok(granted) => granted,
            Err(error) => {
                tracing::warn!(%error, context = batch.context, "a batch of grants was not taken");
                return;
            }
        };
        let steady = ClusterClock::steady();
        for (at, granted) in granted {
            let Some(token) = self.by_ref.get(&at).copied() else {
                self.grants.hold(at, granted, steady);
                continue;
            };
            if let Some(attempt) = self.attempts.get_mut(&token)
                && attempt.grant.is_none()
            {
                attempt.grant = Some(granted);
                self.advance(token);
            }
        }
    }

    /// Moves an attempt on that has its spec and its grant.
    fn advance(&mut self, token: Token) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        let (Stage::Waiting, Some(spec), Some(grant)) =
            (&attempt.stage, &attempt.spec, &attempt.grant)
        else {
            return;
        };
        let gpus = spec.spec.resources.devices();
        if gpus > 0 && attempt.devices == 0 {
            // In backlog: the assignment comes again once GPUs are its.
            return;
        }
        let refusal = if grant.spec_digest != spec.digest {
            Some("the spec is not the one that was granted")
        } else if spec.spec.node.tier > self.tier {
            Some("this node cannot shut the task in as tightly as it asks")
        } else if self
            .tenants
            .as_ref()
            .is_some_and(|all| !all.contains(&grant.tenant))
        {
            Some("this provider does not run this tenant's work; see `farlane tenants allow`")
        } else if self.tier == Tier::Process && !self.own_tenants.contains(&grant.tenant) {
            Some("without a sandbox this node runs its own tenant's work only")
        } else if attempt.devices.count_ones() != gpus
            || places(attempt.devices).any(|at| !spec.spec.gpu.matches(&self.spec.devices[at]))
        {
            Some("the GPUs of the lease are not those that the task asks for")
        } else {
            None
        };
        if let Some(why) = refusal {
            return self.end(token, Exit::new(ExitKind::Refused, why), None);
        }
        let Some(order) = Order::of(attempt) else {
            return;
        };
        attempt.stage = Stage::Preparing;
        match self.preparer.at_once(&order) {
            Some(prepared) => self.prepared(token, prepared),
            None => {
                let (preparer, done) = (self.preparer.clone(), self.done.clone());
                attempt.beside = Some(Beside::spawn(async move {
                    let prepared = preparer.prepare(order).await;
                    let _ = done.send(Done::Prepared(token, prepared)).await;
                }));
            }
        }
    }

    pub(super) fn prepared(
        &mut self,
        token: Token,
        prepared: Result<super::attempt::Prepared, Unready>,
    ) {
        let Some(attempt) = self.attempts.get_mut(&token) else {
            return;
        };
        match prepared {
            Ok(prepared) => {
                attempt.stage = Stage::Ready(prepared);
                let Some(key) = attempt.pool(self.tier) else {
                    return;
                };
                self.pools.ready(key, token);
            }
            Err(Unready::Environment(log)) => self.environment_failed(token, &log),
            Err(unready) => {
                self.end(
                    token,
                    Exit::new(ExitKind::Refused, unready.to_string()),
                    None,
                );
            }
        }
    }

    fn stop(&mut self, stop: &v1::Stop) {
        let attempts: Vec<_> = stop
            .attempts
            .iter()
            .filter_map(|at| AttemptRef::try_from(at).ok())
            .collect();
        self.reconciler.step(Event::StopWanted {
            attempts: attempts.clone(),
        });
        for at in attempts {
            self.stop_ref(
                &at,
                Some(Exit::new(ExitKind::Cancelled, stop.reason.clone())),
            );
        }
    }

    fn stop_ref(&mut self, at: &AttemptRef, exit: Option<Exit>) {
        if let Some(token) = self.by_ref.get(at).copied() {
            self.stop_one(token, exit);
        }
    }

    /// Ends an attempt that is not wanted; with an exit to say so, without one silently.
    pub(super) fn stop_one(&mut self, token: Token, exit: Option<Exit>) {
        let Some(attempt) = self.attempts.get(&token) else {
            return;
        };
        let sent_to: Option<WorkerNumber> = match &attempt.stage {
            Stage::Sent(worker, _) => Some(*worker),
            _ => None,
        };
        match sent_to {
            Some(worker) => self.kill_for(worker, token, exit),
            None => match exit {
                Some(exit) => self.end(token, exit, None),
                None => self.forget(token),
            },
        }
    }

    /// Removes an attempt without a word.
    pub(super) fn forget(&mut self, token: Token) {
        if let Some(attempt) = self.attempts.remove(&token) {
            self.unname(&attempt.at, token);
        }
    }

    /// The attempt has no token any more, unless it came again meanwhile and has another.
    pub(super) fn unname(&mut self, at: &AttemptRef, token: Token) {
        if self.by_ref.get(at) == Some(&token) {
            self.by_ref.remove(at);
        }
    }
}

/// The set of GPUs that an assignment names.
fn device_set(places: &[u32], spec: &NodeSpec) -> Result<u64, BadMessage> {
    let bad = BadMessage {
        field: "devices",
        problem: "not a place in this node's list of devices",
    };
    let known = spec.devices.len().min(64);
    places.iter().try_fold(0u64, |set, place| match *place {
        place if (place as usize) < known => Ok(set | 1 << place),
        _ => Err(bad.clone()),
    })
}
