//! What a control plane that lies, or is mistaken, asks of granters.

use super::*;

impl Mock {
    /// Asks the granters of other sessions for an attempt of `task`; `spec` is as on the wire.
    pub fn ask_standing(&self, task: TaskId, attempt: u32, spec: Bytes) {
        let mut world = self.world.lock();
        for (session, link) in self.links.lock().iter() {
            if *session == task.session() {
                continue;
            }
            let mut request = grant_request(&mut world, *session, vec![task]);
            let envelope = &world.tasks[&task].envelope;
            let wanted = &mut request.tasks[0];
            if let Some(wanted) = &mut wanted.attempt {
                wanted.attempt = attempt;
            }
            wanted.spec = spec.clone();
            wanted.payload_digest = envelope.payload_digest.clone();
            wanted.wrapped_key = envelope.wrapped_key.clone();
            wanted.wrapped_session_key = world.sessions[&task.session()].wrapped_key.clone();
            let _ = link.send(Ok(frame(Out::GrantsWanted(request))));
        }
    }

    /// Asks the task's own session under a new context, with what its provider is said to have revoked.
    pub fn ask_with(&self, task: TaskId, revocations: Bytes) {
        let mut world = self.world.lock();
        if let Some(state) = world.sessions.get_mut(&task.session()) {
            state.context = None;
        }
        let mut request = grant_request(&mut world, task.session(), vec![task]);
        request.revocations_bytes = revocations;
        if let Some(link) = self.links.lock().get(&task.session()) {
            let _ = link.send(Ok(frame(Out::GrantsWanted(request))));
        }
    }

    /// The provider's list of revoked nodes, its one node or none, as of so long after the first one,
    /// which came with the network and named nobody.
    pub fn revoked(&self, after: Duration, with_node: bool) -> Bytes {
        let node = self.world.lock().node.record.node();
        let nodes = if with_node { vec![node] } else { Vec::new() };
        let issued = self.begun.saturating_add(Millis(after.as_millis() as u64));
        let list = RevocationList::sign(&self.provider, issued, nodes);
        list.unwrap().to_bytes()
    }

    /// From now on new contexts come with this list, and with none where it is empty.
    pub fn show_revocations(&self, list: Bytes) {
        self.world.lock().revocations = list;
    }

    /// Moves cluster time on, and cuts all streams: clients read the time when they open one.
    pub fn pass(&self, time: Duration) {
        self.world.lock().ahead += time.as_millis() as u64;
        self.cut();
    }

    /// Says to the task's own session that it has ended, which is not so, and asks for one more attempt.
    pub fn claim_finished_and_ask(&self, task: TaskId, attempt: u32) {
        let mut world = self.world.lock();
        let mut request = grant_request(&mut world, task.session(), vec![task]);
        if let Some(wanted) = &mut request.tasks[0].attempt {
            wanted.attempt = attempt;
        }
        if let Some(link) = self.links.lock().get(&task.session()) {
            let _ = link.send(Ok(frame(Out::Results(decided(task, Answer::Infeasible)))));
            let _ = link.send(Ok(frame(Out::GrantsWanted(request))));
        }
    }

    /// Says to the granters of other sessions that `task` has ended, which is not so.
    pub fn claim_finished(&self, task: TaskId) {
        for (session, link) in self.links.lock().iter() {
            if *session != task.session() {
                let _ = link.send(Ok(frame(Out::Results(decided(task, Answer::Infeasible)))));
            }
        }
    }
}
