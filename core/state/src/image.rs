//! The state as plain ordered data: for comparing replicas and for tests.

use std::collections::BTreeMap;

use bytes::Bytes;
use farlane_model::Digest;
use serde::Serialize;

use crate::row::keys;
use crate::{ProjectRow, State, Table};

/// Every loaded row that the state stands for, without what is sealed.
pub(crate) type Image = BTreeMap<(Table, Vec<u8>), Vec<u8>>;

impl State {
    /// A digest of all that replicas must agree on. Walks everything: for checks, not for the path of a call.
    pub fn fingerprint(&self) -> Digest {
        let mut hasher = blake3::Hasher::new();
        for ((table, key), value) in self.image() {
            hasher.update(&[table as u8]);
            hasher.update(&(key.len() as u64).to_le_bytes());
            hasher.update(&key);
            hasher.update(&(value.len() as u64).to_le_bytes());
            hasher.update(&value);
        }
        Digest(*hasher.finalize().as_bytes())
    }

    pub(crate) fn image(&self) -> Image {
        let mut out = Image::new();
        if let Some(cluster) = &self.cluster {
            put(&mut out, Table::Cluster, keys::CLUSTER, cluster);
        }
        self.image_nodes(&mut out);
        self.image_sessions(&mut out);
        self.image_tasks(&mut out);
        for ((project, key), value) in &self.idempotency {
            put(
                &mut out,
                Table::Idempotency,
                &keys::idempotency(*project, *key),
                value,
            );
        }
        for ((session, first), size) in self.gangs.iter() {
            let first = self.sessions[*session].task_id(*first);
            put(&mut out, Table::Gangs, &keys::task(first), size);
        }
        for (until, project, key) in &self.idempotency_ends {
            let mut name = b"ends".to_vec();
            name.extend_from_slice(&keys::idempotency(*project, *key));
            put(&mut out, Table::Idempotency, &name, until);
        }
        for (id, granter) in &self.granters {
            let standing = self
                .standing
                .get(&granter.project)
                .is_some_and(|s| s.contains(id));
            put(
                &mut out,
                Table::Granters,
                &keys::session(*id),
                &(granter, standing),
            );
        }
        for (id, load) in &self.projects {
            if load.row != ProjectRow::default() {
                put(&mut out, Table::Projects, &keys::project(*id), &load.row);
            }
        }
        for key in &self.revoked_keys {
            put(&mut out, Table::RevokedKeys, &keys::key(*key), &());
        }
        for (provider, row) in &self.revocations {
            put(
                &mut out,
                Table::RevokedKeys,
                &keys::revocations(*provider),
                row,
            );
        }
        for run in &self.outbox {
            let from = crate::OutboxKey {
                index: run.index,
                ordinal: run.ordinal,
                n: run.from,
            };
            put(&mut out, Table::Outbox, &keys::outbox(from), &run.to);
        }
        put(&mut out, Table::Outbox, b"length", &self.outbox_len);
        for (sink, mark) in &self.sinks {
            put(&mut out, Table::Sinks, &keys::sink(*sink), mark);
        }
        out
    }

    fn image_nodes(&self, out: &mut Image) {
        for node in self.nodes() {
            put(out, Table::Nodes, &keys::node(node.id), &node.row());
            for (n, prekey) in &node.one_time {
                put(out, Table::Prekeys, &keys::prekey(node.id, *n), prekey);
            }
            for (granter, c) in &node.contexts {
                let value = (c.index, c.at, c.kind, &c.prekey);
                put(
                    out,
                    Table::Contexts,
                    &keys::context(node.id, *granter),
                    &value,
                );
            }
            let leased: Vec<_> = self.desired(&node.id).map(|t| t.id).collect();
            let backlog: Vec<_> = node.backlog.iter().collect();
            let free = (node.free_cpus(), node.free_memory(), node.free_scratch());
            let name = [&node.id.0[..], b"held"].concat();
            let more = node.capacity.image();
            put(out, Table::Nodes, &name, &(leased, backlog, free, more));
        }
    }

    fn image_sessions(&self, out: &mut Image) {
        for session in self.sessions() {
            let key = keys::session(session.id);
            put(out, Table::Sessions, &key, &session.row());
            put(out, Table::Marks, &key, &(session.marks(), session.live));
            for (seq, verdict) in &session.verdicts {
                put(
                    out,
                    Table::Verdicts,
                    &keys::task(session.task_id(*seq)),
                    verdict,
                );
            }
            for spec in &session.specs {
                let digest = self.specs.slab[*spec].digest;
                put(
                    out,
                    Table::SessionSpecs,
                    &keys::session_spec(session.id, digest),
                    &(),
                );
            }
        }
        for spec in self.specs.iter() {
            put(
                out,
                Table::Specs,
                &keys::spec(spec.digest),
                &(&spec.bytes, spec.sessions),
            );
        }
        for (project, load) in self.projects.iter().filter(|(_, l)| l.live + l.kept > 0) {
            put(
                out,
                Table::Cluster,
                &project.to_bytes(),
                &(load.live, load.kept, load.held),
            );
        }
    }

    fn image_tasks(&self, out: &mut Image) {
        for handle in self.sessions().flat_map(|s| s.live_handles()) {
            let task = &self.tasks[handle];
            let id = self.sessions[task.session].task_id(task.seq);
            let spec = self.specs.slab[task.spec].digest;
            let mut row = Vec::new();
            task.row().write(&mut row);
            let value = (
                task.submitted,
                spec,
                Bytes::copy_from_slice(&task.wrapped_key),
                row,
            );
            put(out, Table::Tasks, &keys::task(id), &value);
        }
        for queue in self.waiting() {
            for id in queue.heads() {
                put(
                    out,
                    Table::Attempts,
                    &keys::task(id),
                    &(queue.spec.digest, "queued"),
                );
            }
        }
        for (at, id) in &self.yielding {
            let name = [&keys::task(*id)[..], b"yields"].concat();
            put(out, Table::Attempts, &name, at);
        }
        for (at, id) in &self.deadlines {
            let name = [&keys::task(*id)[..], b"ends"].concat();
            put(out, Table::Attempts, &name, at);
        }
        put(
            out,
            Table::Attempts,
            b"placed",
            &(self.placed, self.queues.len(), self.tasks.len()),
        );
    }
}

fn put<T: Serialize>(out: &mut Image, table: Table, key: &[u8], value: &T) {
    let value =
        postcard::to_stdvec(value).expect("postcard into a Vec cannot fail for these types");
    out.insert((table, key.to_vec()), value);
}
