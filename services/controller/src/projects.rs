//! Projects, as those who run the network look at them and set what each is due.
//!
//! Owns these use cases. What is in force lies in the replicated state alone; accounts keep names and tenants, and
//! the audit of who set what. Leaves quotas' arithmetic to `farlane-state`.

use farlane_model::PolicyPrices;
use farlane_state::{ProjectSettings, Quota, SetProject, State};
use farlane_store::{MAX_PAGE, Project, Scope};
use farlane_units::{Millis, Month, Ppm, UsdMicros};
use farlane_wire::{id, v1};

use crate::{Caller, ControlError, Controller};

impl Controller {
    /// Every project; the caller's own where its key is not the network's.
    ///
    /// *Errors*: accounts are away.
    pub async fn list_projects(
        &self,
        caller: &Caller,
    ) -> Result<v1::ListProjectsReply, ControlError> {
        let projects = match caller.scopes.contains(Scope::Network) {
            true => self.store.projects().list().await?,
            false => Vec::from_iter(self.store.projects().get(caller.project).await?),
        };
        let now = self.now();
        let views = self.consensus.read(|state| {
            let view = |project| view(state, project, now);
            projects.iter().map(view).collect()
        });
        Ok(v1::ListProjectsReply {
            projects: views,
            now_ms: now.0,
        })
    }

    /// Makes a project. It is nobody's until the first session of a tenant in it.
    ///
    /// *Errors*: the name is taken, or none; there are as many as a network has; accounts are away.
    pub async fn create_project(
        &self,
        caller: &Caller,
        request: &v1::CreateProjectRequest,
    ) -> Result<v1::CreateProjectReply, ControlError> {
        let projects = self.store.projects();
        if projects.list().await?.len() >= MAX_PAGE as usize {
            let what = format!("a network has at most {MAX_PAGE} projects");
            return Err(ControlError::invalid(what));
        }
        let made = projects.create(&request.name, self.wall()).await?;
        let taken = || {
            let name = &request.name;
            ControlError::invalid(format!("there is a project {name:?} already"))
        };
        let made = made.ok_or_else(taken)?;
        let who = caller.key.to_string();
        self.audit(&who, "project.create", &made.id.to_string(), &made.name)
            .await;
        let now = self.now();
        Ok(v1::CreateProjectReply {
            project: Some(self.consensus.read(|s| view(s, &made, now))),
        })
    }

    /// Sets a project's weight and quota, in force with its log entry.
    ///
    /// *Errors*: no such project, settings out of their bounds, somebody else set them meanwhile, another server
    /// leads, or accounts are away.
    pub async fn set_project(
        &self,
        caller: &Caller,
        request: &v1::SetProjectRequest,
    ) -> Result<v1::SetProjectReply, ControlError> {
        self.check_leads()?;
        let project = id::project(&request.project)?;
        let wanted = request.settings.as_ref();
        let wanted = wanted.ok_or_else(|| ControlError::invalid("settings are missing"))?;
        let settings = ProjectSettings {
            weight: wanted.weight,
            quota: Quota {
                tasks: wanted.max_tasks,
                cpus: wanted.max_milli_cpus,
                gpus: wanted.max_milli_gpus,
                ucu: wanted.max_milli_ucu,
                budget: wanted.budget_usd_micros.map(UsdMicros),
            },
            policy: wanted.policy.map(prices).transpose()?,
        };
        let named = self.store.projects().get(project).await?;
        let named = named.ok_or(ControlError::UnknownProject)?;
        let before = self.consensus.read(|s| told(s, &named));
        let order = SetProject {
            project,
            after: request.after,
            settings,
            by: caller.key,
        };
        self.order(vec![order.into()]).await?;
        let now = self.now();
        let (view, after) = self
            .consensus
            .read(|s| (view(s, &named, now), told(s, &named)));
        let detail = format!("{before} -> {after}");
        self.audit(&caller.key.to_string(), "project.set", &named.name, &detail)
            .await;
        self.planner_wake.notify_one();
        Ok(v1::SetProjectReply {
            project: Some(view),
        })
    }
}

/// A policy's prices from the wire.
fn prices(policy: v1::PolicyPrices) -> Result<PolicyPrices, ControlError> {
    let prices = PolicyPrices {
        hour: UsdMicros(policy.hour_usd_micros),
        tonne: UsdMicros(policy.tonne_usd_micros),
        risk: Ppm(policy.risk_ppm),
    };
    let checked = prices.check();
    checked.map_err(|bad| ControlError::invalid(bad.to_string()))?;
    Ok(prices)
}

/// What is in force, in words for the audit.
fn told(state: &State, project: &Project) -> String {
    let known = state.project(&project.id);
    let quota = known.quota();
    let bound = |of: Option<u64>| of.map_or_else(|| "none".to_owned(), |n| n.to_string());
    let budget = quota
        .budget
        .map_or_else(|| "none".to_owned(), |b| b.to_string());
    let policy = known.own_policy();
    let policy = policy.map_or_else(|| "none".to_owned(), |p| p.words());
    format!(
        "weight {}, tasks {}, milli-cores {}, milli-gpus {}, milli-ucu {}, budget {budget}, policy {policy}",
        known.weight(),
        bound(quota.tasks),
        bound(quota.cpus),
        bound(quota.gpus),
        bound(quota.ucu),
    )
}

fn view(state: &State, project: &Project, now: Millis) -> v1::ProjectView {
    let known = state.project(&project.id);
    let (quota, held, set) = (known.quota(), known.held(), known.set());
    let tenant = project.tenant.as_ref();
    v1::ProjectView {
        project: id::project_bytes(&project.id),
        name: project.name.clone(),
        tenant: tenant.map(id::tenant_bytes).unwrap_or_default(),
        settings: Some(v1::ProjectSettings {
            weight: known.weight(),
            max_tasks: quota.tasks,
            max_milli_cpus: quota.cpus,
            max_milli_gpus: quota.gpus,
            max_milli_ucu: quota.ucu,
            budget_usd_micros: quota.budget.map(|b| b.0),
            policy: known.own_policy().map(|prices| v1::PolicyPrices {
                hour_usd_micros: prices.hour.0,
                tonne_usd_micros: prices.tonne.0,
                risk_ppm: prices.risk.0,
            }),
        }),
        revision: set.map_or(0, |s| s.revision),
        changed_ms: set.map_or(0, |s| s.at.0),
        changed_by: set.map(|s| s.by.to_string()).unwrap_or_default(),
        tasks: held.tasks,
        milli_cpus: held.cpus,
        milli_gpus: held.gpus,
        milli_ucu: held.units(),
        month_usd_micros: known.spent(now).0,
        month: Month::of(now).to_string(),
        queued: state.project_live(&project.id).saturating_sub(held.tasks),
    }
}
