//! `farlane projects`.

use farlane::{Network, v1};
use farlane_ledger::decimal;
use farlane_model::{PolicyName, PolicyPrices, UnknownPolicy};
use farlane_units::{Ppm, UsdMicros};
use serde_json::{Value, json};

use crate::connect::{Target, block_on};
use crate::owner::hex;
use crate::parse;
use crate::problem::{Exit, Problem};
use crate::show::{self, Form, Table};

/// List projects, and set what each is due and what it may hold.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane projects\n          farlane projects set default --weight 2000 --max-tasks 64"
)]
pub struct Args {
    #[command(subcommand)]
    action: Option<Action>,
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

/// The flags are the command's own: given before one of these or after, they mean the same.
#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the projects (what `farlane projects` alone does); one's own where the key is not the network's.
    #[command(after_help = "Example:  farlane projects list --json")]
    List,
    /// Show one project: its weight, each bound of its quota, and what it holds of it.
    #[command(after_help = "Example:  farlane projects show default")]
    Show {
        /// Its name.
        project: String,
    },
    /// Make a project. Needs a key with the scope `network`; `farlane keys create --project` makes its first key.
    #[command(
        after_help = "Example:  farlane projects create ml-lab\n          farlane keys create ml-lab --project ml-lab --identity-out ml-lab.json"
    )]
    Create {
        /// Unique in the network.
        #[arg(value_parser = parse::name)]
        project: String,
    },
    /// Set a project's weight and quota; what is not named stays. Needs a key with the scope `network`.
    ///
    /// A bound holds for every placement from then on: what runs by then goes on.
    #[command(
        after_help = "Example:  farlane projects set default --weight 3000\n          farlane projects set default --max-cpus 16 --budget 250\n          farlane projects set default --max-cpus none"
    )]
    Set(Set),
}

#[derive(Debug, clap::Args)]
struct Set {
    /// Its name.
    project: String,
    /// Against other projects' when there is less than all want; 1000 unless set.
    #[arg(long, value_name = "W", value_parser = clap::value_parser!(u32).range(1..=1_000_000))]
    weight: Option<u32>,
    /// Tasks at once, running or waiting on a machine; `none` for no bound.
    #[arg(long, value_name = "N", value_parser = whole)]
    max_tasks: Option<Bound>,
    /// Cores that they hold; `none` for no bound.
    #[arg(long, value_name = "C", value_parser = thousandths)]
    max_cpus: Option<Bound>,
    /// GPUs that they hold; `none` for no bound.
    #[arg(long, value_name = "G", value_parser = thousandths)]
    max_gpus: Option<Bound>,
    /// Units of compute that their cores count for, by what each machine was measured to be; `none` for no bound.
    #[arg(long, value_name = "U", value_parser = thousandths)]
    max_ucu: Option<Bound>,
    /// Dollars a calendar month, in UTC; `none` for no bound.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    budget: Option<Bound>,
    /// What placing its calls minimises where they name no policy: balanced, fast, cheap or green; `none` is balanced.
    #[arg(long, value_name = "NAME", value_parser = policy)]
    policy: Option<NamedPolicy>,
    /// Dollars that an hour of waiting is worth, in a policy of the project's own.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    hour_usd: Option<Bound>,
    /// Dollars that a tonne of CO2e is worth, in a policy of the project's own.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    tonne_usd: Option<Bound>,
    /// Of a lost attempt's cost, how much its chance counts; 1 is all of it.
    #[arg(long, value_name = "TIMES", value_parser = times)]
    risk: Option<Bound>,
}

/// A policy as a flag names it, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct NamedPolicy(Option<PolicyName>);

fn policy(name: &str) -> Result<NamedPolicy, String> {
    if name == "none" {
        return Ok(NamedPolicy(None));
    }
    let policy: PolicyName = name
        .parse()
        .map_err(|error: UnknownPolicy| error.to_string())?;
    Ok(NamedPolicy(Some(policy)))
}

fn times(text: &str) -> Result<Bound, String> {
    bound(text, 6)
}

/// What holds of the policy with these flags: the named one, with what is named of its prices.
fn own_policy(held: Option<v1::PolicyPrices>, args: &Set) -> Option<v1::PolicyPrices> {
    let on_wire = |name: PolicyName| {
        let prices = name.prices();
        v1::PolicyPrices {
            hour_usd_micros: prices.hour.0,
            tonne_usd_micros: prices.tonne.0,
            risk_ppm: prices.risk.0,
        }
    };
    let base = match args.policy {
        Some(NamedPolicy(name)) => name.map(on_wire),
        None => held,
    };
    let of = |flag: Option<Bound>| flag.and_then(|bound| bound.0);
    let (hour, tonne, risk) = (of(args.hour_usd), of(args.tonne_usd), of(args.risk));
    if hour.is_none() && tonne.is_none() && risk.is_none() {
        return base;
    }
    let base = base.unwrap_or_else(|| on_wire(PolicyName::Balanced));
    let signed = |n: u64| i64::try_from(n).unwrap_or(i64::MAX);
    Some(v1::PolicyPrices {
        hour_usd_micros: hour.map_or(base.hour_usd_micros, signed),
        tonne_usd_micros: tonne.map_or(base.tonne_usd_micros, signed),
        risk_ppm: risk.map_or(base.risk_ppm, |n| u32::try_from(n).unwrap_or(u32::MAX)),
    })
}

/// For people.
fn policy_words(policy: Option<v1::PolicyPrices>) -> String {
    let prices = |p: v1::PolicyPrices| PolicyPrices {
        hour: UsdMicros(p.hour_usd_micros),
        tonne: UsdMicros(p.tonne_usd_micros),
        risk: Ppm(p.risk_ppm),
    };
    policy.map_or_else(|| "balanced".to_owned(), |p| prices(p).words())
}

/// A bound as a flag names it: a number in the smallest unit, or none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bound(Option<u64>);

fn bound(text: &str, places: u32) -> Result<Bound, String> {
    if text == "none" {
        return Ok(Bound(None));
    }
    let read = decimal(text, places).map_err(|why| format!("{why}, or `none`"))?;
    // What fits a signed number is more than any network has.
    match i64::try_from(read) {
        Ok(_) => Ok(Bound(Some(read))),
        Err(_) => Err(format!("{text} is too large")),
    }
}
fn whole(text: &str) -> Result<Bound, String> {
    bound(text, 0)
}
fn thousandths(text: &str) -> Result<Bound, String> {
    bound(text, 3)
}
fn dollars(text: &str) -> Result<Bound, String> {
    bound(text.trim_start_matches('$'), 6)
}

pub fn run(args: Args) -> Result<(), Problem> {
    let Args {
        action,
        form,
        target,
    } = args;
    match action {
        None | Some(Action::List) => block_on(list(target, form)),
        Some(Action::Show { project }) => block_on(one(target, form, project)),
        Some(Action::Create { project }) => block_on(create(target, form, project)),
        Some(Action::Set(args)) => block_on(set(target, form, args)),
    }
}

/// The project of this name, as far as the key sees it.
///
/// *Errors*: there is none.
pub async fn find(network: &Network, name: &str) -> Result<v1::ProjectView, Problem> {
    let projects = network.list_projects(v1::ListProjectsRequest {}).await?;
    let mut projects = projects.projects.into_iter();
    projects.find(|p| p.name == name).ok_or_else(|| {
        let what = format!("there is no project {name:?} that this key may see");
        Problem::new(Exit::NotFound, what).next("`farlane projects` lists them")
    })
}

async fn list(target: Target, form: Form) -> Result<(), Problem> {
    let network = target.connect().await?;
    let reply = network.list_projects(v1::ListProjectsRequest {}).await?;
    if form.json {
        return show::json(&reply.projects.iter().map(as_json).collect::<Vec<_>>());
    }
    let mut table = Table::new(&[
        "PROJECT", "WEIGHT", "TASKS", "CORES", "GPUS", "UCU", "MONTH", "QUEUED",
    ]);
    for project in &reply.projects {
        let set = project.settings.unwrap_or_default();
        table.row([
            show::name(&project.name),
            set.weight.to_string(),
            of(project.tasks, set.max_tasks, &|n| n.to_string()),
            of(project.milli_cpus, set.max_milli_cpus, &milli),
            of(project.milli_gpus, set.max_milli_gpus, &milli),
            of(project.milli_ucu, set.max_milli_ucu, &milli),
            month(project, &set),
            project.queued.to_string(),
        ]);
    }
    table.print("there is no project yet")
}

/// What is held, and of how much it may be.
fn of(held: u64, most: Option<u64>, unit: &dyn Fn(u64) -> String) -> String {
    most.map_or_else(
        || unit(held),
        |most| format!("{} of {}", unit(held), unit(most)),
    )
}

fn milli(n: u64) -> String {
    match n % 1000 {
        0 => (n / 1000).to_string(),
        part => format!("{}.{part:03}", n / 1000),
    }
}

fn month(project: &v1::ProjectView, set: &v1::ProjectSettings) -> String {
    let spent = show::money(UsdMicros(project.month_usd_micros));
    match set.budget_usd_micros {
        Some(budget) => format!("{spent} of {}", show::money(UsdMicros(budget))),
        None => spent,
    }
}

async fn one(target: Target, form: Form, name: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    let project = find(&network, &name).await?;
    if form.json {
        return show::json(&as_json(&project));
    }
    print(&project)
}

fn print(project: &v1::ProjectView) -> Result<(), Problem> {
    let set = project.settings.unwrap_or_default();
    let now = show::now_ms();
    show::line(&format!(
        "{}  weight {}, {}",
        show::name(&project.name),
        set.weight,
        match project.revision {
            0 => "nothing was set".to_owned(),
            _ => format!(
                "set {} by key {}",
                show::relative(project.changed_ms, now),
                show::name(&project.changed_by)
            ),
        }
    ))?;
    let mut table = Table::new(&["QUOTA", "HELD", "AT MOST"]);
    let most = |bound: Option<u64>, unit: &dyn Fn(u64) -> String| {
        bound.map_or_else(|| "no bound".to_owned(), unit)
    };
    let whole = |n: u64| n.to_string();
    table.row([
        "tasks at once".to_owned(),
        whole(project.tasks),
        most(set.max_tasks, &whole),
    ]);
    table.row([
        "cores at once".to_owned(),
        milli(project.milli_cpus),
        most(set.max_milli_cpus, &milli),
    ]);
    table.row([
        "GPUs at once".to_owned(),
        milli(project.milli_gpus),
        most(set.max_milli_gpus, &milli),
    ]);
    table.row([
        "UCU at once (measured, fp32)".to_owned(),
        milli(project.milli_ucu),
        most(set.max_milli_ucu, &milli),
    ]);
    let budget = set.budget_usd_micros;
    table.row([
        format!("charges of {}, UTC", project.month),
        show::money(UsdMicros(project.month_usd_micros)),
        budget.map_or_else(|| "no bound".to_owned(), |b| show::money(UsdMicros(b))),
    ]);
    table.print("")?;
    show::line(&format!(
        "calls that name no policy are placed by {}",
        policy_words(set.policy)
    ))?;
    show::line(&format!("{} tasks wait", project.queued))
}

async fn create(target: Target, form: Form, name: String) -> Result<(), Problem> {
    let network = target.connect().await?;
    let request = v1::CreateProjectRequest { name };
    let made = network.create_project(request).await?.project;
    let made = made.unwrap_or_default();
    if form.json {
        return show::json(&as_json(&made));
    }
    let name = show::name(&made.name);
    show::line(&format!(
        "made project {name}; its first key: `farlane keys create NAME --project {name} --identity-out FILE`"
    ))
}

/// What holds with these flags.
fn changed(held: v1::ProjectSettings, args: &Set) -> v1::ProjectSettings {
    let or = |flag: Option<Bound>, held: Option<u64>| flag.map_or(held, |bound| bound.0);
    let budget = args.budget.map(|b| b.0.and_then(|n| i64::try_from(n).ok()));
    v1::ProjectSettings {
        weight: args.weight.unwrap_or(held.weight),
        max_tasks: or(args.max_tasks, held.max_tasks),
        max_milli_cpus: or(args.max_cpus, held.max_milli_cpus),
        max_milli_gpus: or(args.max_gpus, held.max_milli_gpus),
        max_milli_ucu: or(args.max_ucu, held.max_milli_ucu),
        budget_usd_micros: budget.unwrap_or(held.budget_usd_micros),
        policy: own_policy(held.policy, args),
    }
}

async fn set(target: Target, form: Form, args: Set) -> Result<(), Problem> {
    let network = target.connect().await?;
    let held = find(&network, &args.project).await?;
    let before = held.settings.unwrap_or_default();
    let settings = changed(before, &args);
    if settings == before {
        return match form.json {
            true => show::json(&as_json(&held)),
            false => show::line("these are its settings already; nothing changes"),
        };
    }
    let request = v1::SetProjectRequest {
        project: held.project,
        after: held.revision,
        settings: Some(settings),
    };
    let set = network.set_project(request).await?.project;
    let set = set.unwrap_or_default();
    match form.json {
        true => show::json(&as_json(&set)),
        false => print(&set),
    }
}

fn as_json(project: &v1::ProjectView) -> Value {
    let set = project.settings.unwrap_or_default();
    json!({
        "project": project.name,
        "id": farlane_wire::id::project(&project.project).ok().map(|id| id.to_string()),
        "tenant": (!project.tenant.is_empty()).then(|| hex(&project.tenant)),
        "weight": set.weight,
        "quota": {
            "tasks": set.max_tasks,
            "milli_cpus": set.max_milli_cpus,
            "milli_gpus": set.max_milli_gpus,
            "milli_ucu": set.max_milli_ucu,
            "budget_usd_micros": set.budget_usd_micros,
        },
        "policy": policy_words(set.policy),
        "held": {
            "tasks": project.tasks,
            "milli_cpus": project.milli_cpus,
            "milli_gpus": project.milli_gpus,
            "milli_ucu": project.milli_ucu,
        },
        "month": project.month,
        "month_usd_micros": project.month_usd_micros,
        "queued": project.queued,
        "revision": project.revision,
        "changed_ms": (project.revision > 0).then_some(project.changed_ms),
        "changed_by": (project.revision > 0).then_some(&project.changed_by),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bounds_are_exact_and_can_be_lifted() {
        assert_eq!(whole("64"), Ok(Bound(Some(64))));
        assert_eq!(thousandths("2.5"), Ok(Bound(Some(2500))));
        assert_eq!(dollars("$250"), Ok(Bound(Some(250_000_000))));
        assert_eq!(dollars("none"), Ok(Bound(None)));
        for bad in ["-1", "nan", "1e9", "99999999999999999999", ""] {
            assert!(whole(bad).is_err() && dollars(bad).is_err(), "{bad}");
        }
        assert!(whole("1.5").is_err());
    }

    #[test]
    fn what_is_not_named_stays() {
        let held = v1::ProjectSettings {
            weight: 2000,
            max_tasks: Some(4),
            budget_usd_micros: Some(7),
            ..Default::default()
        };
        let mut args = Set {
            project: "p".into(),
            weight: None,
            max_tasks: None,
            max_cpus: Some(Bound(Some(1500))),
            max_gpus: None,
            max_ucu: Some(Bound(Some(40_000))),
            budget: None,
            policy: None,
            hour_usd: None,
            tonne_usd: None,
            risk: None,
        };
        let with = v1::ProjectSettings {
            max_milli_cpus: Some(1500),
            max_milli_ucu: Some(40_000),
            ..held
        };
        assert_eq!(changed(held, &args), with);
        args.max_tasks = Some(Bound(None));
        args.budget = Some(Bound(None));
        let lifted = v1::ProjectSettings {
            max_tasks: None,
            budget_usd_micros: None,
            ..with
        };
        assert_eq!(changed(held, &args), lifted);
        // A policy by name, one price of it changed, and none again.
        assert!(
            policy("gren")
                .expect_err("it is none")
                .contains("did you mean \"green\"?")
        );
        args.policy = Some(policy("green").expect("it is one"));
        args.hour_usd = Some(Bound(Some(7)));
        let own = own_policy(None, &args).expect("it is set");
        assert_eq!(
            (own.hour_usd_micros, own.tonne_usd_micros),
            (7, 100_000_000_000)
        );
        assert_eq!(
            own_policy(
                Some(own),
                &Set {
                    policy: None,
                    hour_usd: None,
                    ..args
                }
            ),
            Some(own)
        );
        assert_eq!(of(1500, Some(4000), &milli), "1.500 of 4");
    }
}
