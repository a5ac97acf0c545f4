//! `farlane prices`.

use std::io::{BufRead, IsTerminal, Read, Write};
use std::path::{Path, PathBuf};

use farlane::{Identity, Network, v1};
use farlane_ledger::{Draft, LIFE_HOURS, Ownership, PriceBook, Rate, date, decimal, derive};
use farlane_model::Digest;
use farlane_units::{MilliWatts, Millis, Ppm, UsdMicros};
use serde_json::{Value, json};

use crate::connect::{Target, block_on};
use crate::owner::{self, hex};
use crate::price_file::{self, MAX_FILE};
use crate::problem::{Exit, Problem, reading};
use crate::show::{self, Form, Table};

/// Hours of a year, as a machine's life is counted.
const YEAR_HOURS: u64 = 365 * 24;

/// Show and set what providers ask for their machines.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    action: Action,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// Show price books: what holds, what is to come, what was.
    #[command(
        after_help = "Example:  farlane prices show\n          farlane prices show --provider lab --json"
    )]
    Show {
        /// Only this provider's: its name in `farlane trust list`, or the first digits that `prices show` prints.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        target: Target,
    },
    /// Replace a provider's price book by a file; shows what changes, and asks.
    ///
    /// What was in force before now is kept: attempts were charged by it. Prices without a date hold from now on.
    #[command(
        after_help = "Example:  farlane prices set prices.toml\n          farlane prices set prices.toml --provider lab --yes"
    )]
    Set {
        /// The file; `-` for standard input.
        file: PathBuf,
        /// Whose: its name in `farlane trust list`, or its fingerprint; one's own machines without it.
        #[arg(long, value_name = "NAME")]
        provider: Option<String>,
        /// Do not ask.
        #[arg(long)]
        yes: bool,
        #[command(flatten)]
        form: Form,
        #[command(flatten)]
        target: Target,
    },
    /// Name every fault of a price book's file, with its line; asks no server.
    ///
    /// The exit code is 2 where there is one.
    #[command(after_help = "Example:  farlane prices check prices.toml")]
    Check {
        /// The file; `-` for standard input.
        file: PathBuf,
    },
    Derive(Box<Derive>),
}

/// Reckon what a machine's hour must cost: purchase over its life, power, network.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Example:  farlane prices derive --purchase 10950 --tdp 500 --tariff 0.15 --cores 64"
)]
struct Derive {
    /// Dollars for the whole machine.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    purchase: UsdMicros,
    /// Watts at full load.
    #[arg(long, value_name = "WATTS", value_parser = thousandths)]
    tdp: u64,
    /// Dollars for a kilowatt-hour.
    #[arg(long, value_name = "USD", value_parser = dollars)]
    tariff: UsdMicros,
    /// Years of its life.
    #[arg(long, value_name = "YEARS", default_value_t = LIFE_HOURS / YEAR_HOURS, value_parser = clap::value_parser!(u64).range(1..=50))]
    life: u64,
    /// Share of its full power that it draws.
    #[arg(long, default_value = "0.85", value_parser = share)]
    load: Ppm,
    /// Watts that its site takes for each watt of it.
    #[arg(long, default_value = "1.56", value_parser = pue)]
    pue: Ppm,
    /// Dollars for a gigabyte that leaves its region.
    #[arg(long, value_name = "USD", default_value = "0.05", value_parser = dollars)]
    egress: UsdMicros,
    /// Gigabytes that leave its region in an hour.
    #[arg(long, value_name = "GB", default_value = "0", value_parser = thousandths)]
    egress_gb: u64,
    /// Cores over which its price is spread.
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u64).range(1..=100_000))]
    cores: u64,
    #[command(flatten)]
    form: Form,
}

fn dollars(text: &str) -> Result<UsdMicros, String> {
    let micros = decimal(text.trim_start_matches('$'), 6).map_err(|why| why.to_string())?;
    // A million million dollars is no machine's price.
    let fits = i64::try_from(micros)
        .ok()
        .filter(|m| *m <= 1_000_000_000_000_000_000);
    fits.map(UsdMicros)
        .ok_or_else(|| format!("{text} is too large"))
}
fn thousandths(text: &str) -> Result<u64, String> {
    decimal(text, 3).map_err(|why| why.to_string())
}
fn millionths(text: &str, least: u64, most: u64, wanted: &str) -> Result<Ppm, String> {
    let read = decimal(text, 6).map_err(|why| why.to_string())?;
    let fits = Some(read).filter(|n| (least..=most).contains(n));
    let fits = fits.and_then(|n| u32::try_from(n).ok());
    fits.map(Ppm).ok_or_else(|| wanted.to_owned())
}
fn share(text: &str) -> Result<Ppm, String> {
    millionths(text, 0, 1_000_000, "it must be from 0 to 1, like 0.85")
}
fn pue(text: &str) -> Result<Ppm, String> {
    millionths(
        text,
        1_000_000,
        10_000_000,
        "it must be from 1 to 10, like 1.56",
    )
}

pub fn run(args: Args) -> Result<(), Problem> {
    match args.action {
        Action::Show {
            provider,
            form,
            target,
        } => block_on(show(target, form, provider)),
        Action::Set {
            file,
            provider,
            yes,
            form,
            target,
        } => block_on(set(target, form, &file, provider, yes)),
        Action::Check { file } => {
            let entries = drafts(&file)?.len();
            show::line(&format!("{}: {entries} prices, no fault", file.display()))
        }
        Action::Derive(args) => derived(&args),
    }
}

/// The prices of a file.
///
/// *Errors*: it cannot be read, or every fault with its line.
fn drafts(path: &Path) -> Result<Vec<Draft>, Problem> {
    let mut text = String::new();
    match path.as_os_str() == "-" {
        true => std::io::stdin()
            .take(MAX_FILE + 1)
            .read_to_string(&mut text)?,
        false => {
            let file = std::fs::File::open(path).map_err(reading(path))?;
            let mut file = file.take(MAX_FILE + 1);
            file.read_to_string(&mut text).map_err(reading(path))?
        }
    };
    if text.len() as u64 > MAX_FILE {
        let what = format!("{} is larger than {MAX_FILE} bytes", path.display());
        return Err(Problem::new(Exit::Usage, what));
    }
    price_file::read(&text).map_err(|faults| {
        let line = |f: &price_file::Fault| format!("{}:{}: {}", path.display(), f.line, f.what);
        let lines: Vec<String> = faults.iter().map(line).collect();
        let what = format!(
            "the price book has {} faults\n{}",
            faults.len(),
            lines.join("\n")
        );
        Problem::new(Exit::Usage, what)
    })
}

/// Every book of the network.
async fn books(network: &Network) -> Result<(Vec<v1::PriceBook>, Millis), Problem> {
    let mut books: Vec<v1::PriceBook> = Vec::new();
    loop {
        let after = books.last().map(|b| b.provider.clone()).unwrap_or_default();
        let request = v1::ListPricesRequest {
            after,
            ..Default::default()
        };
        let page = network.list_prices(request).await?;
        let now = Millis(page.now_ms);
        if page.books.is_empty() {
            return Ok((books, now));
        }
        books.extend(page.books);
    }
}

/// A provider's name by this identity, else the first digits of its fingerprint.
fn named(identity: &Identity, provider: &[u8]) -> String {
    let pins = &identity.manifest.providers;
    let pin = pins
        .iter()
        .find(|pin| pin.root.fingerprint().0[..] == *provider);
    pin.map_or_else(
        || hex(&provider[..provider.len().min(6)]),
        |pin| pin.name.clone(),
    )
}

fn ledger(book: &v1::PriceBook) -> Result<PriceBook, Problem> {
    farlane_wire::price::book(book).map_err(Problem::failed)
}

async fn show(target: Target, form: Form, provider: Option<String>) -> Result<(), Problem> {
    let network = target.connect().await?;
    let (books, now) = books(&network).await?;
    let identity = network.identity();
    let asked = |book: &&v1::PriceBook| {
        provider.as_ref().is_none_or(|word| {
            named(identity, &book.provider) == *word || hex(&book.provider).starts_with(word)
        })
    };
    let books: Vec<_> = books.iter().filter(asked).collect();
    if let (Some(word), true) = (&provider, books.is_empty()) {
        let what = format!("there is no price book of a provider {word:?}");
        return Err(Problem::new(Exit::NotFound, what).next("`farlane prices show` lists them all"));
    }
    if form.json {
        let all: Result<Vec<Value>, Problem> = books
            .iter()
            .map(|book| as_json(identity, book, now))
            .collect();
        return show::json(&all?);
    }
    let mut table = Table::new(&[
        "PROVIDER", "PRICE OF", "REGION", "FOR", "USD", "FROM", "UNTIL", "",
    ]);
    for book in books {
        for entry in ledger(book)?.entries() {
            table.row([
                show::name(&named(identity, &book.provider)),
                entry.scope.rate.as_str().to_owned(),
                entry.scope.region.as_str().to_owned(),
                match entry.scope.rate {
                    Rate::EgressGb => format!("to {}", entry.scope.target.as_str()),
                    _ => entry.scope.target.as_str().to_owned(),
                },
                show::money(entry.price),
                date(entry.since),
                entry.until.map(date).unwrap_or_default(),
                standing(entry.since, entry.until, now).to_owned(),
            ]);
        }
    }
    table.print("no provider has a price book; machines cost what their join files or agents say")
}

/// Where an entry stands in time.
fn standing(since: Millis, until: Option<Millis>, now: Millis) -> &'static str {
    match until.is_some_and(|until| until <= now) {
        true => "was",
        false if since > now => "to come",
        false => "",
    }
}

fn as_json(identity: &Identity, book: &v1::PriceBook, now: Millis) -> Result<Value, Problem> {
    let entry = |e: &farlane_ledger::Entry| {
        json!({
            "rate": e.scope.rate.as_str(),
            "region": e.scope.region.as_str(),
            "target": e.scope.target.as_str(),
            "usd_micros": e.price.0,
            "since_ms": e.since.0,
            "until_ms": e.until.map(|at| at.0),
            "in_force": e.in_force(now),
        })
    };
    Ok(json!({
        "provider": hex(&book.provider),
        "name": named(identity, &book.provider),
        "revision": book.revision,
        "changed_ms": book.changed_ms,
        "changed_by": book.changed_by,
        "entries": ledger(book)?.entries().iter().map(entry).collect::<Vec<_>>(),
    }))
}

/// The fingerprint by which nodes name their provider.
fn provider_of(identity: &Identity, word: Option<&str>) -> Result<Digest, Problem> {
    let pins = &identity.manifest.providers;
    let pin = match word {
        Some(word) => pins.iter().find(|pin| pin.name == word),
        None => pins.iter().find(|pin| pin.own),
    };
    match (pin, word) {
        (Some(pin), _) => Ok(pin.root.fingerprint()),
        (None, Some(word)) => owner::fingerprint(word)
            .map(|root| root.fingerprint())
            .map_err(|_| {
                let what =
                    format!("{word:?} is no provider that this tenant trusts, and no fingerprint");
                Problem::new(Exit::Usage, what)
                    .next("`farlane trust list` shows names and fingerprints")
            }),
        (None, None) => Err(
            Problem::new(Exit::Usage, "this tenant has no machines of its own")
                .next("name the provider: --provider NAME"),
        ),
    }
}

async fn set(
    target: Target,
    form: Form,
    file: &Path,
    provider: Option<String>,
    yes: bool,
) -> Result<(), Problem> {
    let drafts = drafts(file)?;
    let network = target.connect().await?;
    let provider = provider_of(network.identity(), provider.as_deref())?;
    let bytes = v1::ListPricesRequest {
        provider: provider.0.to_vec().into(),
        ..Default::default()
    };
    let held = network
        .list_prices(bytes.clone())
        .await?
        .books
        .pop()
        .unwrap_or_default();
    let mut request = v1::SetPricesRequest {
        provider: bytes.provider,
        after: held.revision,
        entries: drafts.iter().map(Into::into).collect(),
        dry_run: true,
    };
    let book = network
        .set_prices(request.clone())
        .await?
        .book
        .unwrap_or_default();
    let (old, new) = (ledger(&held)?, ledger(&book)?);
    let gone = old.beyond(&new).map(|e| format!("- {e}"));
    let lines: Vec<String> = gone
        .chain(new.beyond(&old).map(|e| format!("+ {e}")))
        .collect();
    let whose = named(network.identity(), &provider.0);
    if lines.is_empty() {
        return match form.json {
            true => show::json(&json!({"changed": [], "revision": held.revision})),
            false => show::line(&format!(
                "the prices of {whose} are these already; nothing changes"
            )),
        };
    }
    if !form.json {
        lines.iter().try_for_each(|line| show::line(line))?;
    }
    if !yes && !agreed(&format!("Change the prices of {whose}?"), file)? {
        return Err(Problem::failed("nothing was changed"));
    }
    request.dry_run = false;
    let book = network.set_prices(request).await?.book.unwrap_or_default();
    match form.json {
        true => show::json(&json!({"changed": lines, "revision": book.revision})),
        false => show::line(&format!(
            "set; this is revision {} of the book",
            book.revision
        )),
    }
}

/// Asks whoever sits there.
fn agreed(question: &str, file: &Path) -> Result<bool, Problem> {
    if !std::io::stdin().is_terminal() || file.as_os_str() == "-" {
        let what = "nobody is there to be asked";
        return Err(Problem::new(Exit::Usage, what).next("look at what changes, then give --yes"));
    }
    eprint!("{question} [y/N] ");
    std::io::stderr().flush()?;
    let mut answer = String::new();
    std::io::stdin().lock().read_line(&mut answer)?;
    Ok(matches!(answer.trim(), "y" | "Y" | "yes"))
}

fn derived(args: &Derive) -> Result<(), Problem> {
    let owned = Ownership {
        purchase: args.purchase,
        life_hours: args.life * YEAR_HOURS,
        tdp: MilliWatts(args.tdp),
        load: args.load,
        pue: args.pue,
        tariff: args.tariff,
        egress_gb: args.egress,
        milli_gb_hour: args.egress_gb,
        cores: args.cores,
    };
    let parts = derive(&owned);
    if args.form.json {
        return show::json(&json!({
            "purchase_usd_micros_hour": parts.purchase.0,
            "power_usd_micros_hour": parts.power.0,
            "network_usd_micros_hour": parts.network.0,
            "usd_micros_hour": parts.hour.0,
            "usd_micros_core_hour": parts.core_hour.0,
        }));
    }
    let mut table = Table::new(&["PART", "USD/H", "OF"]);
    let share = |ppm: Ppm| format!("{}.{:02}", ppm.0 / 1_000_000, ppm.0 % 1_000_000 / 10_000);
    let thousandth = |n: u64| format!("{}.{:03}", n / 1000, n % 1000);
    let life = format!("{} over {} years", args.purchase, args.life);
    let power = format!(
        "{} W × load {} × PUE {} × {} a kWh",
        thousandth(args.tdp),
        share(args.load),
        share(args.pue),
        args.tariff
    );
    let out = format!("{} GB out × {}", thousandth(args.egress_gb), args.egress);
    for (part, price, of) in [
        ("purchase", parts.purchase, life),
        ("power", parts.power, power),
        ("network", parts.network, out),
        ("machine", parts.hour, "all of it".to_owned()),
        (
            "core",
            parts.core_hour,
            format!("spread over {}", args.cores),
        ),
    ] {
        table.row([part.to_owned(), price.to_string(), of]);
    }
    table.print("")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_of_flags_are_exact_and_bounded() {
        assert_eq!(dollars("$0.15"), Ok(UsdMicros(150_000)));
        assert_eq!(
            (thousandths("500"), share("0.85"), pue("1.2")),
            (Ok(500_000), Ok(Ppm(850_000)), Ok(Ppm(1_200_000)))
        );
        for bad in ["nan", "-1", "1e3", "99999999999999999999"] {
            assert!(dollars(bad).is_err() && thousandths(bad).is_err(), "{bad}");
        }
        assert!(share("1.1").is_err() && pue("0.9").is_err() && pue("11").is_err());
    }

    #[test]
    fn entries_stand_in_time() {
        let at = |since, until: Option<u64>| standing(Millis(since), until.map(Millis), Millis(10));
        assert_eq!(
            (at(5, None), at(11, None), at(5, Some(10)), at(5, Some(11))),
            ("", "to come", "was", "")
        );
    }
}
