//! A trace of what the network did, for simulations.
//!
//! Owns the use case: who ran what when, by accounts, with every name hashed before it leaves. Leaves the format to
//! `farlane-trace`, and replaying to `farlane-sim`.
//!
//! ```text
//! nodes, books, grids ─▶ places ─┐
//! usage rows, by submission ─▶ calls ─▶ lines ─▶ a chunk at a time, as the reader takes them
//! specs, projects ─▶ (each before its first task) ┘
//! ```

mod calls;
mod places;

use std::collections::VecDeque;
use std::sync::Arc;

use farlane_ledger::{Usage, date};
use farlane_model::{Digest, TaskSpec};
use farlane_runtime::{Entropy, SystemEntropy};
use farlane_store::Span;
use farlane_trace::{Header, Line, MAX_SPAN_MS, MAX_TASKS, Salt, VERSION};
use farlane_units::Millis;
use farlane_wire::v1;

use crate::{Caller, ControlError, Controller};
use calls::Calls;

/// A trace on its way. Holds one page of rows at a time.
pub struct TraceExport {
    controller: Arc<Controller>,
    caller: Caller,
    span: Span,
    /// Lines that do not depend on tasks.
    places: VecDeque<String>,
    calls: Calls,
    last: Option<Usage>,
    done: bool,
    all: u64,
}

impl Controller {
    /// Begins a trace of the tasks that were submitted in a span of time and have ended.
    ///
    /// *Errors*: a span that is none, is longer than a trace's, or has more tasks than one; no such project; accounts
    /// are away.
    pub async fn export_trace(
        self: &Arc<Self>,
        caller: Caller,
        request: &v1::ExportTraceRequest,
    ) -> Result<TraceExport, ControlError> {
        let span = self.span(request).await?;
        let all = self
            .store
            .usage()
            .ended(&span, MAX_TASKS as u64 + 1)
            .await?;
        if all > MAX_TASKS as u64 {
            return Err(ControlError::invalid(format!(
                "a trace has at most {MAX_TASKS} tasks, and more ended of what came in that time; take a shorter one \
                 (--since, --until), or one project (--project)"
            )));
        }
        let mut random = [0; 32];
        SystemEntropy.fill(&mut random);
        let salt = Salt::new(random);
        let header = Line::Trace(Header {
            version: VERSION,
            begins_ms: span.from.0,
            ms: span.to.0 - span.from.0,
        });
        let (mut places, nodes) = self.places(&span, &salt).await?;
        places.push_front(header.to_json());
        let who = caller.key.to_string();
        let what = format!("{} to {}, {all} tasks", date(span.from), date(span.to));
        let project = span.project.map(|id| id.to_string()).unwrap_or_default();
        self.audit(&who, "trace.export", &project, &what).await;
        Ok(TraceExport {
            controller: self.clone(),
            caller,
            calls: Calls::new(salt, span.from, nodes),
            span,
            places,
            last: None,
            done: false,
            all,
        })
    }

    async fn span(&self, request: &v1::ExportTraceRequest) -> Result<Span, ControlError> {
        let now = self.now();
        let until = request.until_ms.map_or(now, Millis).min(now);
        let from = Millis(request.since_ms);
        if from >= until {
            return Err(ControlError::invalid(
                "a trace begins in the past, and before its end: set --since earlier, or --until later",
            ));
        }
        if until.0 - from.0 > MAX_SPAN_MS {
            return Err(ControlError::invalid(
                "a trace spans at most a thousand hours; take a shorter time (--since, --until)",
            ));
        }
        let project = match request.project.as_str() {
            "" => None,
            name => {
                let all = self.store.projects().list().await?;
                let named = all.into_iter().find(|project| project.name == name);
                Some(named.ok_or(ControlError::UnknownProject)?.id)
            }
        };
        Ok(Span {
            from,
            to: until,
            project,
        })
    }
}

impl TraceExport {
    /// The next lines; `None` after the last.
    ///
    /// *Errors*: the caller's key has ended, or accounts are away: what came so far is no whole trace.
    pub async fn next(&mut self) -> Result<Option<v1::TraceChunk>, ControlError> {
        self.controller.check_key(&self.caller)?;
        let mut lines = self.places.pop_front().unwrap_or_default();
        while lines.is_empty() && !self.done {
            self.page().await?;
            lines = self.calls.lines();
        }
        Ok((!lines.is_empty()).then(|| v1::TraceChunk {
            lines: lines.into(),
            tasks: self.calls.ended(),
            all_tasks: self.all,
        }))
    }

    async fn page(&mut self) -> Result<(), ControlError> {
        let rows = self.controller.store.usage();
        let page = rows.submitted(&self.span, self.last.as_ref()).await?;
        if page.is_empty() {
            self.calls.finish();
            self.done = true;
            return Ok(());
        }
        for usage in &page {
            if !self.calls.knows(&usage.spec) {
                self.learn(usage.spec).await?;
            }
        }
        self.last = page.last().cloned();
        page.into_iter().for_each(|usage| self.calls.take(usage));
        Ok(())
    }

    async fn learn(&mut self, digest: Digest) -> Result<(), ControlError> {
        let bytes = self.controller.store.specs().get(digest).await?;
        let spec = bytes.and_then(|bytes| TaskSpec::from_canonical(&bytes).ok());
        let set = spec.as_ref().map(|spec| {
            self.controller.consensus.read(|state| {
                let project = state.project(&spec.project);
                (project.weight(), project.own_policy())
            })
        });
        self.calls.learn(digest, spec.as_ref().zip(set));
        Ok(())
    }
}
