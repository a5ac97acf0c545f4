//! Following a task that this client did not submit: its keys come out of the project's vault.

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use farlane_model::{AttemptRef, Digest, TaskId, TaskSpec};
use farlane_seal::{TaskKey, vault, wrap};
use farlane_wire::v1;

use crate::Error;
use crate::network::Network;
use crate::session::Shared;
use crate::session::driver::failed;
use crate::session::intake::Work;
use crate::session::live::{Holder, Live, Phase};
use crate::session::queue::Ask;

/// The key of any task of the project.
///
/// *Errors*: the vault of this identity does not open the task's session.
pub(crate) fn task_key(
    network: &Network,
    task: TaskId,
    view: &v1::TaskView,
) -> Result<TaskKey, Error> {
    let session = task.session();
    let foreign = |_| Error::Integrity(format!("this identity's vault does not open task {task}"));
    let session_key = vault::open_session(
        &network.identity().vault,
        session,
        &view.wrapped_session_key,
    )
    .map_err(foreign)?;
    wrap::unwrap_task_key(&session_key, task.seq(), &view.wrapped_key).map_err(foreign)
}

/// Makes a task's result come to the sink under `token`, now or when it ends.
///
/// *Errors*: no such task, or no key for it.
pub(crate) async fn attach(
    shared: &Arc<Shared>,
    intake: &Sender<Work>,
    task: TaskId,
    token: u64,
) -> Result<Option<TaskSpec>, Error> {
    let view = shared.network.task(task).await?;
    let key = task_key(&shared.network, task, &view)?;
    let spec = TaskSpec::from_canonical(&view.spec_bytes).ok();
    let live = Live {
        key,
        holder: Holder::default(),
        spec: Digest::of(&view.spec_bytes),
        payload_digest: Digest::default(),
        grants: 0,
        place: None,
        token,
        phase: phase(&view),
        attempt: view.attempt,
        node: farlane_model::NodeId::from_slice(&view.node).ok(),
    };
    match shared.live.lock().entry(task) {
        // One of this session's own: it must stay grantable.
        Entry::Occupied(mut own) => own.get_mut().token = token,
        Entry::Vacant(vacant) => drop(vacant.insert(live)),
    }
    match view.result {
        Some(result) => {
            let batch = v1::ResultBatch {
                cursor: None,
                node: view.node,
                signature: view.signature,
                results: vec![result],
                record_bytes: view.record_bytes,
            };
            // The thread has ended: the client was closed meanwhile.
            let _ = intake.send(Work::Batch(batch));
        }
        None => {
            shared.watched.lock().push(task);
            shared.queue.ask(Ask::Watch(task));
        }
    }
    Ok(spec)
}

/// As [`attach`], with failures delivered under `token`.
pub(crate) async fn follow(shared: Arc<Shared>, intake: Sender<Work>, task: TaskId, token: u64) {
    if let Err(error) = attach(&shared, &intake, task, token).await {
        let epoch = AttemptRef {
            task,
            attempt: 0,
            epoch: 0,
        }
        .epoch;
        let _ = intake.send(Work::Local(vec![failed(token, task, epoch, error)]));
    }
}

fn phase(view: &v1::TaskView) -> Phase {
    match view.phase() {
        v1::TaskPhase::Placed => Phase::Placed,
        v1::TaskPhase::Running => Phase::Running,
        v1::TaskPhase::Finished | v1::TaskPhase::Cancelled => Phase::Finished,
        v1::TaskPhase::Queued | v1::TaskPhase::Unspecified => Phase::Queued,
    }
}
