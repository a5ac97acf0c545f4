//! What calls ask, as a submission brings it: each spec once for its session.

use bytes::Bytes;
use farlane_model::{Digest, TaskSpec};

use crate::Refusal;
use crate::apply::Ctx;
use crate::row::{OutboxEvent, keys};
use crate::rows::Table;

/// Most specs a session may use. Source: 64 k × 1 KiB is 64 MiB, and no program decorates so many.
const MAX_SPECS: usize = 65_536;

/// Specs of one batch: those that were refused, and the last one looked up.
#[derive(Default)]
pub(super) struct Known {
    bad: Vec<(Digest, Refusal)>,
    last: Option<(Digest, u32)>,
}

impl Known {
    /// Interns what the session brings. A spec that cannot be taken refuses the tasks that use it.
    pub(super) fn learn(&mut self, ctx: &mut Ctx, session: u32, specs: &[Bytes]) {
        for bytes in specs {
            let digest = Digest::of(bytes);
            if let Err(refusal) = learn_one(ctx, session, digest, bytes) {
                self.bad.push((digest, refusal));
            }
        }
    }

    /// How many calls of this spec make a gang; `None` where each is on its own, or the spec is not known.
    pub(super) fn gang(&mut self, ctx: &Ctx, session: u32, digest: &Digest) -> Option<u16> {
        let handle = self.find(ctx, session, digest).ok()?;
        Some(ctx.state.specs.slab[handle].task.gang?.size)
    }

    pub(super) fn find(
        &mut self,
        ctx: &Ctx,
        session: u32,
        digest: &Digest,
    ) -> Result<u32, Refusal> {
        if let Some((last, handle)) = self.last
            && last == *digest
        {
            return Ok(handle);
        }
        let handle = ctx.state.specs.find(digest);
        let handle = handle.filter(|h| ctx.state.sessions[session].specs.contains(h));
        match handle {
            Some(handle) => {
                self.last = Some((*digest, handle));
                Ok(handle)
            }
            None => Err(match self.bad.iter().find(|(bad, _)| bad == digest) {
                Some((_, refusal)) => refusal.clone(),
                None => Refusal::SpecUnknown,
            }),
        }
    }
}

fn learn_one(ctx: &mut Ctx, session: u32, digest: Digest, bytes: &Bytes) -> Result<(), Refusal> {
    let owner = &ctx.state.sessions[session];
    let (id, project) = (owner.id, owner.project);
    let handle = match ctx.state.specs.find(&digest) {
        Some(handle) if owner.specs.contains(&handle) => return Ok(()),
        _ if owner.specs.len() >= MAX_SPECS => {
            return Err(Refusal::TooManySpecs {
                most: MAX_SPECS as u32,
            });
        }
        Some(handle) if ctx.state.specs.slab[handle].task.project != project => {
            return Err(Refusal::WrongProject);
        }
        Some(handle) => handle,
        None => {
            let task = TaskSpec::from_canonical(bytes)
                .map_err(|e| Refusal::SpecInvalid { why: e.to_string() })?;
            if task.project != project {
                return Err(Refusal::WrongProject);
            }
            ctx.writes.put(Table::Specs, &keys::spec(digest), |out| {
                out.extend_from_slice(bytes)
            });
            // A copy, so that the spec does not keep the whole batch in memory.
            let spec = Bytes::copy_from_slice(bytes);
            ctx.event(&OutboxEvent::Spec {
                digest,
                spec: spec.clone(),
            });
            ctx.state.specs.insert(digest, task, spec)
        }
    };
    ctx.writes
        .put(Table::SessionSpecs, &keys::session_spec(id, digest), |_| {});
    ctx.state.specs.slab[handle].sessions += 1;
    ctx.state.sessions[session].specs.insert(handle);
    Ok(())
}
