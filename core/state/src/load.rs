//! Loading the state from rows alone: after a restart, and from a snapshot.

use bytes::Bytes;
use farlane_model::{Digest, KeyId, NodeId, ProjectId, SessionId, TaskId, TaskSpec};
use farlane_units::{Millis, NanoGramsCo2};
use serde::de::DeserializeOwned;

use crate::capacity::Need;
use crate::node::{Context, Held, Node};
use crate::row::{
    AttemptRow, ContextRow, MarksRow, NodeRow, OutboxKey, SessionRow, TaskEnvelopeRow, keys,
};
use crate::state::OutboxRun;
use crate::task::Task;
use crate::{Session, State, Table, Verdict};

/// Rows that are no state: the file is damaged, or of another build.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// Tables must come in their order.
    #[error("rows of table {after} came after rows of a later table")]
    OutOfOrder {
        /// The table that came late.
        after: &'static str,
    },
    /// A key or value cannot be read, or names what is not there.
    #[error(
        "a row of table {table} cannot be read (key {key}); the state file is damaged, or newer than this build"
    )]
    BadRow {
        /// Where.
        table: &'static str,
        /// Hex.
        key: String,
    },
}

impl State {
    /// From rows, in the order of [`Table::LOADED`] and of keys within; other tables are passed over.
    ///
    /// *Errors*: the file is damaged; restore it from another server.
    pub fn load(rows: impl Iterator<Item = (Table, Bytes, Bytes)>) -> Result<State, LoadError> {
        let mut state = State::empty();
        let mut pending: Option<Pending> = None;
        let mut last = Table::Cluster;
        for (table, key, value) in rows {
            if table < last {
                return Err(LoadError::OutOfOrder {
                    after: table.name(),
                });
            }
            if table > Table::Attempts && last <= Table::Attempts {
                state.settle(pending.take())?;
            }
            last = table;
            if state.load_row(&mut pending, table, &key, value).is_none() {
                return Err(bad(table, &key));
            }
        }
        state.settle(pending)?;
        Ok(state)
    }

    fn load_row(
        &mut self,
        pending: &mut Option<Pending>,
        table: Table,
        key: &[u8],
        value: Bytes,
    ) -> Option<()> {
        match table {
            Table::Cluster => self.cluster = Some(read(&value)?),
            Table::Nodes => self.load_node(key, &value)?,
            Table::Prekeys | Table::Contexts => self.load_prekey(table, key, &value)?,
            Table::Sessions => self.load_session(key, &value)?,
            Table::Marks => self.load_marks(key, &value)?,
            Table::Specs => {
                let digest = Digest::from_slice(key).ok()?;
                let task = TaskSpec::from_canonical(&value).ok()?;
                self.specs.insert(digest, task, copy(&value));
            }
            Table::SessionSpecs => {
                let id = SessionId::from_slice(key.get(..16)?).ok()?;
                let handle = *self.session_ids.get(&id)?;
                let spec = self.specs.find(&Digest::from_slice(key.get(16..)?).ok()?)?;
                self.specs.slab[spec].sessions += 1;
                self.sessions[handle].specs.insert(spec);
            }
            Table::Verdicts => {
                let id = TaskId::from_slice(key).ok()?;
                let handle = *self.session_ids.get(&id.session())?;
                let verdict: Verdict = read(&value)?;
                self.sessions[handle].verdicts.insert(id.seq(), verdict);
            }
            Table::Tasks => {
                let tasks = &mut pending.get_or_insert_default().tasks;
                tasks.push(self.read_task(key, value)?);
            }
            Table::Attempts => pending.as_mut()?.load_attempt(key, value)?,
            Table::Idempotency => {
                let project = ProjectId::from_slice(key.get(..16)?).ok()?;
                let digest = Digest::from_slice(key.get(16..)?).ok()?;
                let (task, until): (TaskId, Millis) = read(&value)?;
                self.idempotency.insert((project, digest), (task, until));
                self.idempotency_ends.insert((until, project, digest));
            }
            Table::Granters => self.add_granter(SessionId::from_slice(key).ok()?, read(&value)?),
            Table::RevokedKeys if key.len() == 32 => {
                let provider = Digest::from_slice(key).ok()?;
                self.revocations.insert(provider, read(&value)?);
            }
            Table::RevokedKeys => {
                self.revoked_keys.insert(KeyId::from_slice(key).ok()?);
            }
            Table::Outbox => self.load_event(keys::read_outbox(key)?),
            Table::Sinks => {
                let mark: OutboxKey = read(&value)?;
                self.sinks.insert(*key.first()?, mark);
            }
            Table::Projects => {
                let id = ProjectId::from_slice(key).ok()?;
                self.projects.entry(id).or_default().row = read(&value)?;
            }
            Table::Gangs => self.load_gang(TaskId::from_slice(key).ok()?, read(&value)?)?,
            Table::Finished | Table::Results | Table::Batches | Table::Records => {}
        }
        Some(())
    }

    fn load_prekey(&mut self, table: Table, key: &[u8], value: &Bytes) -> Option<()> {
        let node = self.loaded_node(key)?;
        if table == Table::Prekeys {
            let n = u64::from_be_bytes(key.get(32..)?.try_into().ok()?);
            node.one_time.push_back((n, copy(value)));
            return Some(());
        }
        let granter = SessionId::from_slice(key.get(32..)?).ok()?;
        let row: ContextRow = read(value)?;
        let context = Context {
            index: row.index,
            at: row.at,
            kind: row.kind,
            prekey: row.prekey,
        };
        node.contexts.insert(granter, context);
        Some(())
    }

    fn load_session(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let id = SessionId::from_slice(key).ok()?;
        let row: SessionRow = read(value)?;
        let marks = MarksRow {
            next_seq: 1,
            kept: 0,
            active: row.opened,
            acks: Vec::new(),
        };
        let handle = self.sessions.insert(Session::from_rows(id, row, marks));
        self.session_ids.insert(id, handle);
        Some(())
    }

    fn load_node(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let id = NodeId::from_slice(key).ok()?;
        let row: NodeRow = read(value)?;
        let number = row.number as usize;
        // Numbers are given by the cluster row, so a larger one is damage, not a reason to allocate.
        if number >= self.cluster.as_ref()?.next_node as usize {
            return None;
        }
        if self.by_number.len() <= number {
            self.by_number.resize_with(number + 1, || None);
        }
        self.nodes.insert(id, row.number);
        self.by_number[number] = Some(Box::new(Node::from_row(id, row, &mut self.alike)?));
        Some(())
    }

    fn loaded_node(&mut self, key: &[u8]) -> Option<&mut Node> {
        let id = NodeId::from_slice(key.get(..32)?).ok()?;
        let number = *self.nodes.get(&id)?;
        self.node_mut(number)
    }

    fn load_marks(&mut self, key: &[u8], value: &[u8]) -> Option<()> {
        let handle = *self.session_ids.get(&SessionId::from_slice(key).ok()?)?;
        let marks: MarksRow = read(value)?;
        let session = &mut self.sessions[handle];
        session.next_seq = marks.next_seq;
        session.kept = marks.kept;
        session.active = marks.active;
        session.acks = marks.acks;
        if session.kept > 0 {
            let (project, kept) = (session.project, session.kept);
            self.projects.entry(project).or_default().kept += kept;
        }
        Some(())
    }

    fn read_task(&self, key: &[u8], value: Bytes) -> Option<(TaskId, Task)> {
        let id = TaskId::from_slice(key).ok()?;
        let row = TaskEnvelopeRow::from_bytes(value)?;
        let task = Task {
            seq: id.seq(),
            submitted: row.submitted,
            spent: farlane_units::UsdMicros::ZERO,
            emitted: NanoGramsCo2::ZERO,
            lease: None,
            session: *self.session_ids.get(&id.session())?,
            spec: self.specs.find(&row.spec)?,
            attempt: 0,
            lost: 0,
            raised: 0,
            preempted: 0,
            wrapped_key: row.wrapped_key.as_ref().try_into().ok()?,
        };
        Some((id, task))
    }

    /// Tasks join the indexes once their attempts are known.
    fn settle(&mut self, pending: Option<Pending>) -> Result<(), LoadError> {
        let Some(Pending { tasks }) = pending else {
            return Ok(());
        };
        for (id, task) in tasks {
            let lease = task.lease.as_deref().cloned();
            let spec = self.specs.slab[task.spec].task.clone();
            let tenant = self.sessions[task.session].tenant;
            let handle = self.admit(task);
            let Some(lease) = lease else { continue };
            let held = Held {
                task: handle,
                backlog: lease.backlog,
                devices: lease.devices,
            };
            let need = Need {
                task: &spec,
                tenant,
            };
            match self.node_mut(lease.node) {
                Some(node) => node.lease(lease.number, held, &need),
                None => return Err(bad(Table::Attempts, &keys::task(id))),
            }
            if lease.yields > Millis::ZERO {
                self.yielding.insert((lease.yields, id));
            }
            self.placed += 1;
            let spec_row = &self.specs.slab[self.tasks[handle].spec];
            self.companies.add(spec_row, lease.node);
            let project = self.sessions[self.tasks[handle].session].project;
            self.projects
                .entry(project)
                .or_default()
                .held
                .add(&spec.resources, lease.ucu);
        }
        Ok(())
    }

    fn load_event(&mut self, key: OutboxKey) {
        self.outbox_len += 1;
        match self.outbox.back_mut() {
            Some(run) if (run.index, run.ordinal, run.to) == (key.index, key.ordinal, key.n) => {
                run.to += 1
            }
            _ => self.outbox.push_back(OutboxRun {
                index: key.index,
                ordinal: key.ordinal,
                from: key.n,
                to: key.n + 1,
            }),
        }
    }
}

/// Tasks whose attempts are still to come, by id.
#[derive(Default)]
struct Pending {
    tasks: Vec<(TaskId, Task)>,
}

impl Pending {
    fn load_attempt(&mut self, key: &[u8], value: Bytes) -> Option<()> {
        let id = TaskId::from_slice(key).ok()?;
        let at = self.tasks.binary_search_by_key(&id, |(id, _)| *id).ok()?;
        let row = AttemptRow::from_bytes(value)?;
        let task = &mut self.tasks[at].1;
        task.attempt = row.attempt;
        task.lost = row.lost;
        task.raised = row.raised;
        task.preempted = row.preempted;
        task.spent = row.spent;
        task.emitted = row.emitted;
        task.lease = row.lease.map(Box::new);
        Some(())
    }
}

fn read<T: DeserializeOwned>(value: &[u8]) -> Option<T> {
    let (value, left) = postcard::take_from_bytes(value).ok()?;
    left.is_empty().then_some(value)
}

/// A copy, so that a small value does not keep the page it came in.
fn copy(value: &Bytes) -> Bytes {
    Bytes::copy_from_slice(value)
}

fn bad(table: Table, key: &[u8]) -> LoadError {
    let key = key.iter().map(|b| format!("{b:02x}")).collect();
    LoadError::BadRow {
        table: table.name(),
        key,
    }
}
