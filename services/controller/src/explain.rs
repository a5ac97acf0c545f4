//! Why a task is where it is, for people.
//!
//! Owns the words of one answer: what a waiting task waits for, what a placed or finished one was expected to take
//! when it was placed, and what it took. Leaves each class's lacks, and the terms of now, to `farlane-plan`.

use std::sync::Arc;

use farlane_model::{
    Affinity, Digest, Direction, Kin, NodeId, Quote, Strength, TaskSpec, TenantId,
};
use farlane_plan::{ClassReason, Explanation, Fleet, Group, explain};
use farlane_state::{FinishedTask, LiveTask, QuotaLimit, QuotaReached, State};
use farlane_units::{ByteCount, MilliUcu, NanoGramsCo2};
use farlane_wire::{id, v1};

use crate::quota::{MAX_LOOKS, kept_back, never};
use crate::refusals::Refused;
use crate::tasks::quoted;
use crate::tempo::Start;
use crate::view::ViewCache;
use crate::{Caller, ControlError, Controller};

/// Waiting tasks counted before a task's place in its project's line is "more than so many".
const MAX_PLACE: usize = 100_000;

impl Controller {
    /// Why a task is where it is, or whether and where one like it could run.
    ///
    /// *Errors*: unknown, another project's, or a spec that is not valid.
    pub fn explain(
        &self,
        caller: &Caller,
        request: &v1::ExplainRequest,
    ) -> Result<v1::ExplainReply, ControlError> {
        if request.task.is_empty() {
            let spec = TaskSpec::from_canonical(&request.spec_bytes)
                .map_err(|e| ControlError::invalid(e.to_string()))?;
            let digest = Digest::of(&request.spec_bytes);
            let mut cache = self.view.lock();
            let gang = spec.gang.map_or(1, |gang| gang.size.into());
            let (group, never) = self.consensus.read(|state| {
                self.refresh(state, &mut cache);
                let asked = (&digest, &spec);
                // Another project's quota is none of the caller's business.
                let own = spec.project == caller.project;
                let never = own
                    .then(|| never(state, &mut cache.fleet, asked, gang, &mut MAX_LOOKS.clone()));
                // Of a project that no device has used nothing is held.
                let tenant = caller.tenant.unwrap_or(TenantId([0; 32]));
                let spec = Arc::new(spec.clone());
                let group = cache.group(state, digest, &spec, tenant, gang);
                (Group { gang, ..group }, never)
            });
            let explained = explain(&mut cache.fleet, &group);
            let mut reply = reply("asked", &cache.fleet, &group, explained);
            reply.summary = never.flatten().unwrap_or(reply.summary);
            return Ok(reply);
        }
        let task = id::task(&request.task)?;
        if self.of_project(caller, &[task]).is_empty() {
            return Err(ControlError::UnknownTask);
        }
        // Planning takes its lock, then that of refusals, and reads the state while it holds both.
        let mut cache = self.view.lock();
        let cache = &mut *cache;
        let refused = self.refusals.lock().last(task);
        let live = self.consensus.read(|state| {
            let live = state.task(task)?;
            self.refresh(state, cache);
            Some(live_reply(state, cache, &live, refused))
        });
        match live {
            Some(reply) => Ok(reply),
            None => {
                let (finished, _) = self.finished(task).ok_or(ControlError::ResultExpired)?;
                Ok(finished_reply(&finished))
            }
        }
    }
}

fn live_reply(
    state: &State,
    cache: &mut ViewCache,
    live: &LiveTask<'_>,
    refused: Option<Refused>,
) -> v1::ExplainReply {
    let granter = state.granter_for(live.session);
    let refused = refused.filter(|r| granter == Some(r.granter));
    let gang = live
        .gang
        .map_or(1, |member| state.gang(&member).count() as u32);
    let group = cache.group(
        state,
        live.spec.digest,
        &live.spec.task,
        live.session.tenant,
        gang,
    );
    let group = Group {
        gang,
        granter: granter.is_some(),
        not_on: refused.as_ref().map_or_else(Vec::new, |r| r.nodes.clone()),
        ..group
    };
    let explained = explain(&mut cache.fleet, &group);
    let best = explained.best.as_ref().map(|(node, _)| *node);
    let phase = match live.placed {
        Some(_) => "placed",
        None => "queued",
    };
    let mut reply = reply(phase, &cache.fleet, &group, explained);
    if live.placed.is_none() {
        let asked = (&live.spec.digest, &*live.spec.task);
        let fleet = &mut cache.fleet;
        if let Some(why) = never(state, fleet, asked, gang, &mut MAX_LOOKS.clone()) {
            // It has no place in a line, and no time to start.
            reply.summary = why;
            return reply;
        }
        let quota = kept_back(state, fleet, asked, best, gang);
        reply.summary = quota.unwrap_or(reply.summary);
    }
    if let Some(refused) = refused {
        let count = refused.nodes.len();
        reply.summary = format!(
            "refused on {count} node(s) by its granter: {}",
            refused.reason
        );
        reply.classes.push(v1::NodeClassReason {
            class: "refused by the granter".to_owned(),
            nodes: count as u32,
            reasons: vec![refused.reason],
        });
    }
    let Some(placed) = live.placed else {
        let line = Line::of(state, live);
        let start = start(state, cache, live, &line, best);
        let more = [
            company(state, &live.spec.task),
            line.words(),
            kept(state, cache, live),
            format!("; {}", start.words()),
        ];
        reply.summary.push_str(&more.concat());
        reply.starts_in_ms = start.within.map(|ms| ms.0);
        reply.starts_because = start.because;
        return reply;
    };
    reply.node_name = placed.node.spec.name.clone();
    let waits = match placed.lease.backlog {
        true => ", and waits there for room",
        false => "",
    };
    let (attempt, name, region) = (live.attempt, &reply.node_name, &placed.node.region);
    reply.summary = format!("attempt {attempt} is on {name} in {region}{waits}");
    if let Some(gang) = live.gang {
        let more = format!("; rank {} of a gang of {}", gang.rank, gang.size);
        reply.summary.push_str(&more);
    }
    of_then(&mut reply, Quote::from_bytes(&quoted(live)));
    reply
}

/// Whom it waits for, where none of those it must be near is placed anywhere.
fn company(state: &State, spec: &TaskSpec) -> String {
    let required = |wish: &&Affinity| {
        wish.strength == Strength::Required
            && wish.direction == Direction::Near
            && !spec.company.is_first_of(&wish.tag)
    };
    let missing = |wish: &&Affinity| {
        let kin = Kin::Tag(spec.project, wish.tag.clone());
        state.whereabouts(&kin).next().is_none()
    };
    let mut wishes = spec.company.affinities.iter().filter(required);
    match wishes.find(missing) {
        Some(wish) => format!(
            "; no task tagged {:?} is placed, and it must be near one",
            wish.tag
        ),
        None => String::new(),
    }
}

/// Whether room is kept for its gang.
fn kept(state: &State, cache: &ViewCache, live: &LiveTask<'_>) -> String {
    let first = live.gang.and_then(|member| state.gang(&member).next());
    let Some(kept) = first.and_then(|first| cache.reserved.of(&first.id)) else {
        return String::new();
    };
    let (nodes, left) = (kept.nodes.len(), kept.at.saturating_sub(state.now()));
    let seconds = left.0.div_ceil(1000);
    format!("; room is kept for it on {nodes} node(s), expected in {seconds} s")
}

/// Where a task stands among those of its project.
struct Line {
    /// So many go before it.
    before: usize,
    /// Of other lines as urgent as its own, which take turns with it.
    beside: usize,
}

impl Line {
    fn of(state: &State, live: &LiveTask<'_>) -> Self {
        let spec = &live.spec.task;
        // Its own gang goes with it.
        let first = live.gang.map_or(live.id, |gang| gang.first);
        let (mut before, mut equal) = (0, Vec::new());
        let mine = state.waiting().filter(|q| q.project == spec.project);
        for queue in mine.filter(|q| q.priority >= spec.priority) {
            let own = queue.session.id == live.session.id && queue.spec.digest == live.spec.digest;
            let heads = || queue.heads().take(MAX_PLACE);
            match () {
                // Of equal priority, those of its own line: other lines take turns with it.
                () if own => before += heads().take_while(|t| *t < first).count(),
                () if queue.priority == spec.priority => equal.push(queue.count()),
                () => before += queue.count(),
            }
            if before >= MAX_PLACE {
                break;
            }
        }
        let turns = before.saturating_add(1);
        let beside = equal.into_iter().map(|count| count.min(turns));
        Self {
            before,
            beside: beside.fold(0, usize::saturating_add),
        }
    }

    fn words(&self) -> String {
        match self.before {
            MAX_PLACE.. => format!("; more than {MAX_PLACE} of its project go before it"),
            0 => "; it is the next of its line".to_owned(),
            n => format!("; {n} of its project go before it"),
        }
    }
}

/// Why nothing of a project, or not this, starts until somebody sets another bound or the month ends; `None` where what
/// is given back makes room.
fn stopped(reached: &QuotaReached) -> Option<&'static str> {
    match (reached.limit, reached.most, reached.held) {
        (_, 0, _) => Some("its project is paused"),
        (QuotaLimit::Budget, ..) => Some("its project's month is spent"),
        (.., 0) => Some("it is more than its project may hold"),
        _ => None,
    }
}

/// When a waiting task would start, as far as its project's line and the room kept for it say.
fn start(
    state: &State,
    cache: &ViewCache,
    live: &LiveTask<'_>,
    line: &Line,
    best: Option<NodeId>,
) -> Start {
    let project = state.project(&live.session.project);
    // No task takes less than a thousandth of a unit.
    let reached = project.reached(&live.spec.task.resources, MilliUcu(1), 1, state.now());
    if let Some(why) = reached.as_ref().and_then(stopped) {
        return Start::unknown(why);
    }
    if best.is_none() {
        return Start::unknown("no node that could take it is here");
    }
    if state.granter_for(live.session).is_none() {
        return Start::unknown("nobody who can grant it is attached");
    }
    let first = live.gang.and_then(|member| state.gang(&member).next());
    if let Some(kept) = first.and_then(|first| cache.reserved.of(&first.id)) {
        let nodes = kept.nodes.len();
        return Start {
            within: Some(kept.at.saturating_sub(state.now())),
            because: format!(
                "by then {nodes} node(s) that are kept for it are expected to be free"
            ),
        };
    }
    let size = live.gang.map_or(1, |gang| usize::from(gang.size));
    let places = line.before.saturating_add(line.beside).saturating_add(size);
    let known = cache
        .tempo
        .start(&live.session.project, places as u64, state.now());
    match line.before {
        MAX_PLACE.. => Start::unknown(known.because),
        _ => known,
    }
}

fn finished_reply(finished: &FinishedTask) -> v1::ExplainReply {
    let summary = match (&finished.node, finished.exit.message.is_empty()) {
        (Some(_), _) => format!(
            "attempt {} ran {:.3} s on {} in {} for {}{} and {}",
            finished.attempt,
            finished.ended.saturating_sub(finished.started).0 as f64 / 1000.0,
            finished.node_name,
            finished.region,
            finished.cost,
            across(finished),
            grams(finished.emitted),
        ),
        (None, false) => finished.exit.message.clone(),
        (None, true) => "it never ran".to_owned(),
    };
    let mut reply = v1::ExplainReply {
        phase: "finished".into(),
        summary,
        node_name: finished.node_name.clone(),
        ..Default::default()
    };
    of_then(&mut reply, Quote::from_bytes(&finished.quote));
    reply
}

/// For people: what of the cost was for bytes between regions; empty where none moved.
fn across(finished: &FinishedTask) -> String {
    let bytes = finished.moved.there.saturating_add(finished.moved.back);
    match bytes == ByteCount::ZERO {
        true => String::new(),
        false => format!(
            " ({} of it for {bytes} between regions)",
            finished.egress.picos()
        ),
    }
}

/// For people: what was emitted.
fn grams(emitted: Option<NanoGramsCo2>) -> String {
    match emitted {
        Some(known) => format!("{known} of CO2e"),
        None => "an unknown weight of CO2e".to_owned(),
    }
}

/// Puts the terms of then in the place of those of now.
fn of_then(reply: &mut v1::ExplainReply, quote: Option<Quote>) {
    let Some(quote) = quote else { return };
    let terms = quote.terms.iter().map(|(kind, cost)| v1::ScoreTerm {
        name: kind.name().to_owned(),
        usd_picos: cost.0,
        detail: quote.detail(*kind, *cost),
    });
    reply.terms = terms.collect();
    reply.policy = quote.prices.words();
    reply.runner_up = quote.runner_up.map(|other| v1::RunnerUp {
        node_name: other.node_name,
        region: other.region,
        usd_picos: other.cost.0,
    });
}

fn reply(phase: &str, fleet: &Fleet, group: &Group, explained: Explanation) -> v1::ExplainReply {
    let name = |node: &NodeId| {
        let spec = fleet.spec(node);
        spec.map(|spec| spec.name.clone()).unwrap_or_default()
    };
    let picos = |usd_micros: f64| (usd_micros * 1e6).round() as u64;
    let (node_name, terms) = match &explained.best {
        Some((node, terms)) => {
            let terms = terms.iter().map(|t| v1::ScoreTerm {
                name: t.kind.name().to_owned(),
                usd_picos: picos(t.usd_micros),
                detail: t.detail.clone(),
            });
            (name(node), terms.collect())
        }
        None => (String::new(), Vec::new()),
    };
    let class = |c: ClassReason| v1::NodeClassReason {
        class: c.class,
        nodes: c.nodes,
        reasons: c.lacks.iter().map(with_change).collect(),
    };
    let runner_up = explained.runner_up.map(|(node, cost)| v1::RunnerUp {
        node_name: name(&node),
        region: fleet
            .region(&node)
            .map(ToString::to_string)
            .unwrap_or_default(),
        usd_picos: picos(cost),
    });
    v1::ExplainReply {
        phase: phase.to_owned(),
        summary: explained.summary,
        classes: explained.classes.into_iter().map(class).collect(),
        terms,
        node_name,
        policy: group.policy.prices().words(),
        runner_up,
        ..Default::default()
    }
}

/// What a class lacks, and the smallest change to the request that would make do.
fn with_change(lack: &farlane_plan::Lack) -> String {
    match lack.change() {
        Some(change) => format!("{lack}; smallest change: {change}"),
        None => lack.to_string(),
    }
}
