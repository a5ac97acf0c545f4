//! From lines to a trace that holds together.

use std::collections::HashMap;
use std::io::{BufRead, Read};

use crate::check::{attempts, check, within};
use crate::{
    Attempt, BadTrace, Fault, Header, Kind, Line, MAX_ATTEMPTS, MAX_KINDS, MAX_LINE, MAX_NODES,
    MAX_PROJECTS, MAX_REGIONS, MAX_SPAN_MS, MAX_TASKS, Node, Outcome, Project, Region, VERSION,
};

/// A trace that holds together: every name that stands in it is known, and every figure is in its bounds.
#[derive(Debug, Clone, PartialEq)]
pub struct Trace {
    /// The first line.
    pub header: Header,
    /// As they came.
    pub projects: Vec<Project>,
    /// As they came.
    pub regions: Vec<Region>,
    /// As they came.
    pub nodes: Vec<Node>,
    /// As they came.
    pub kinds: Vec<Kind>,
    /// By submission; the members of a gang follow each other by rank.
    pub calls: Vec<Call>,
    /// Of all calls; each names its own by place.
    pub runs: Vec<Run>,
    /// Tasks that ended and are not in it.
    pub left_out: u64,
}

/// One task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Call {
    /// Place in [`Trace::kinds`].
    pub kind: u32,
    /// Milliseconds.
    pub submitted: u64,
    /// Place of its first attempt in [`Trace::runs`].
    pub first: u32,
    /// How many; at least one.
    pub attempts: u32,
}

/// One attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Place in [`Trace::nodes`].
    pub node: u32,
    /// Milliseconds.
    pub started: u64,
    /// Milliseconds.
    pub ended: u64,
    /// How it ended.
    pub outcome: Outcome,
    /// Charged.
    pub usd_nanos: u64,
    /// `None` where nobody knew.
    pub co2e_ng: Option<u64>,
}

impl Trace {
    /// Reads a trace, to its last line.
    ///
    /// *Errors*: the first line with a fault, and what it is.
    pub fn read(mut input: impl BufRead) -> Result<Self, BadTrace> {
        let (mut at, mut text) = (0, Vec::new());
        let mut reader: Option<Reader> = None;
        loop {
            at += 1;
            let bad = |fault: Fault| BadTrace { line: at, fault };
            let more = next_line(&mut input, &mut text).map_err(bad)?;
            if !more {
                let whole = reader.filter(|r| r.ended).ok_or(Fault::Cut);
                return whole.map(|r| r.trace).map_err(bad);
            }
            if text.trim_ascii().is_empty() {
                continue;
            }
            match &mut reader {
                None => reader = Some(Reader::begin(&text).map_err(bad)?),
                Some(reader) => reader.take(&text).map_err(bad)?,
            }
        }
    }

    /// A call's attempts, in their order.
    pub fn attempts(&self, call: &Call) -> &[Run] {
        let first = call.first as usize;
        &self.runs[first..first + call.attempts as usize]
    }
}

/// The next line, without its end. False at the end of the file.
fn next_line(input: &mut impl BufRead, text: &mut Vec<u8>) -> Result<bool, Fault> {
    text.clear();
    let got = input
        .by_ref()
        .take(MAX_LINE as u64 + 1)
        .read_until(b'\n', text)?;
    match got {
        0 => Ok(false),
        got if got > MAX_LINE => Err(Fault::Long),
        _ => Ok(true),
    }
}

struct Reader {
    trace: Trace,
    projects: HashMap<String, u32>,
    regions: HashMap<String, u32>,
    nodes: HashMap<String, u32>,
    kinds: HashMap<String, u32>,
    ended: bool,
}

impl Reader {
    fn begin(text: &[u8]) -> Result<Self, Fault> {
        // Another version may have other keys: its number is looked at first.
        let first: serde_json::Value = serde_json::from_slice(text).map_err(|_| Fault::NoHeader)?;
        let version = first["trace"]["version"].as_u64();
        match version {
            None => return Err(Fault::NoHeader),
            Some(found) if found != u64::from(VERSION) => return Err(Fault::Version { found }),
            Some(_) => {}
        }
        let Line::Trace(header) = serde_json::from_slice(text)? else {
            return Err(Fault::NoHeader);
        };
        within(
            (1..=MAX_SPAN_MS).contains(&header.ms),
            "ms",
            "between 1 and 3600000000, a thousand hours",
        )?;
        Ok(Self {
            trace: Trace {
                header,
                projects: Vec::new(),
                regions: Vec::new(),
                nodes: Vec::new(),
                kinds: Vec::new(),
                calls: Vec::new(),
                runs: Vec::new(),
                left_out: 0,
            },
            projects: HashMap::new(),
            regions: HashMap::new(),
            nodes: HashMap::new(),
            kinds: HashMap::new(),
            ended: false,
        })
    }

    fn take(&mut self, text: &[u8]) -> Result<(), Fault> {
        let line: Line = serde_json::from_slice(text)?;
        if self.ended {
            return Err(Fault::Beyond);
        }
        check(&line)?;
        match line {
            Line::Trace(_) => Err(Fault::Beyond),
            Line::Project(of) => {
                enter(&mut self.projects, "project", &of.name, MAX_PROJECTS)?;
                self.trace.projects.push(of);
                Ok(())
            }
            Line::Region(of) => {
                enter(&mut self.regions, "region", &of.name, MAX_REGIONS)?;
                self.trace.regions.push(of);
                Ok(())
            }
            Line::Node(of) => {
                find(&self.regions, "region", &of.region)?;
                enter(&mut self.nodes, "node", &of.name, MAX_NODES)?;
                self.trace.nodes.push(*of);
                Ok(())
            }
            Line::Kind(of) => {
                find(&self.projects, "project", &of.project)?;
                enter(&mut self.kinds, "kind", &of.name, MAX_KINDS)?;
                self.trace.kinds.push(*of);
                Ok(())
            }
            Line::Task(task) => self.calls(&task.kind, task.submitted_ms, &[task.attempts], false),
            Line::Gang(gang) => self.calls(&gang.kind, gang.submitted_ms, &gang.members, true),
            Line::End(end) => {
                let found = self.trace.calls.len() as u64;
                if end.tasks != found {
                    return Err(Fault::Count {
                        said: end.tasks,
                        found,
                    });
                }
                self.trace.left_out = end.left_out;
                self.ended = true;
                Ok(())
            }
        }
    }

    fn calls(
        &mut self,
        name: &str,
        submitted: u64,
        members: &[Vec<Attempt>],
        together: bool,
    ) -> Result<(), Fault> {
        let kind = find(&self.kinds, "kind", name)?;
        let size = self.trace.kinds[kind as usize].gang;
        if members.len() != usize::from(size) || together != (size > 1) {
            return Err(Fault::GangSize {
                kind: name.to_owned(),
                size,
                found: members.len(),
            });
        }
        let before = self.trace.calls.last().map_or(0, |call| call.submitted);
        if submitted < before {
            return Err(Fault::Order {
                at: submitted,
                before,
            });
        }
        within(
            submitted <= self.trace.header.ms,
            "submitted_ms",
            "within the trace: at most the first line's ms",
        )?;
        if self.trace.calls.len() + members.len() > MAX_TASKS {
            return Err(Fault::TooMany {
                what: "tasks",
                most: MAX_TASKS,
            });
        }
        for of in members {
            attempts(of, submitted)?;
            let first = self.trace.runs.len();
            if first + of.len() > MAX_ATTEMPTS {
                return Err(Fault::TooMany {
                    what: "attempts",
                    most: MAX_ATTEMPTS,
                });
            }
            for attempt in of {
                let run = self.run(attempt)?;
                self.trace.runs.push(run);
            }
            self.trace.calls.push(Call {
                kind,
                submitted,
                first: first as u32,
                attempts: of.len() as u32,
            });
        }
        Ok(())
    }

    fn run(&self, attempt: &Attempt) -> Result<Run, Fault> {
        Ok(Run {
            node: find(&self.nodes, "node", &attempt.node)?,
            started: attempt.started_ms,
            ended: attempt.ended_ms,
            outcome: attempt.outcome,
            usd_nanos: attempt.usd_nanos,
            co2e_ng: attempt.co2e_ng,
        })
    }
}

fn find(known: &HashMap<String, u32>, what: &'static str, name: &str) -> Result<u32, Fault> {
    let unknown = || Fault::Unknown {
        what,
        name: name.to_owned(),
    };
    known.get(name).copied().ok_or_else(unknown)
}

fn enter(
    known: &mut HashMap<String, u32>,
    what: &'static str,
    name: &str,
    most: usize,
) -> Result<(), Fault> {
    if known.len() >= most {
        let what = match what {
            "project" => "projects",
            "region" => "regions",
            "node" => "nodes",
            _ => "kinds",
        };
        return Err(Fault::TooMany { what, most });
    }
    let number = known.len() as u32;
    match known.insert(name.to_owned(), number) {
        None => Ok(()),
        Some(_) => Err(Fault::Twice {
            what,
            name: name.to_owned(),
        }),
    }
}
