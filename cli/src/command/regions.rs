//! `farlane regions`.

use farlane::v1;
use farlane_ledger::date;
use farlane_units::{ByteRate, Millis, UsdMicros};
use serde_json::{Value, json};

use crate::connect::{Target, block_on};
use crate::problem::Problem;
use crate::show::{self, Form, Table};

/// List the network's regions: machines, prices, carbon now, and how far they are, from the server and each other.
///
/// RTT and bandwidth of a region are its machines' medians, as the server measured them. Between two regions they are
/// measured where a server stands in one of them (`--region`), and else estimated.
#[derive(Debug, clap::Args)]
#[command(after_help = "Example:  farlane regions\n          farlane regions --json")]
pub struct Args {
    #[command(flatten)]
    form: Form,
    #[command(flatten)]
    target: Target,
}

pub fn run(args: Args) -> Result<(), Problem> {
    block_on(list(args.target, args.form))
}

async fn list(target: Target, form: Form) -> Result<(), Problem> {
    let network = target.connect().await?;
    let reply = network.list_regions(v1::ListRegionsRequest {}).await?;
    if form.json {
        return show::json(&json!({
            "regions": reply.regions.iter().map(as_json).collect::<Vec<_>>(),
            "carbon_feed": reply.feed.as_ref().map(feed_json),
        }));
    }
    let mut table = Table::new(&[
        "REGION",
        "ONLINE",
        "CORE-HOUR",
        "G CO2E/KWH",
        "FROM",
        "WATTS",
        "RTT",
        "BANDWIDTH",
    ]);
    for region in &reply.regions {
        let (grams, from) = carbon(region.carbon.as_ref());
        table.row([
            show::name(&region.region),
            format!("{} of {}", region.online, region.nodes),
            price(region.core_hour.as_ref()),
            grams,
            from,
            region.power.as_ref().map_or_else(
                || "unknown".to_owned(),
                |p| {
                    format!(
                        "{} to {}",
                        p.idle_milliwatts / 1000,
                        p.full_milliwatts / 1000
                    )
                },
            ),
            millis(region.round_trip_micros),
            rate(region.bandwidth_bytes_s),
        ]);
    }
    table.print("no machine has joined yet, so there is no region")?;
    show::line("")?;
    pairs(&reply.regions).print("what lies between regions is not measured yet")?;
    match reply.feed.as_ref().map(feed_words) {
        Some(words) => show::line(&words),
        None => Ok(()),
    }
}

fn price(of: Option<&v1::RegionPrice>) -> String {
    let Some(of) = of else { return String::new() };
    let (least, most) = (
        UsdMicros(of.least_usd_micros),
        UsdMicros(of.most_usd_micros),
    );
    match least == most {
        true => show::money(least),
        false => format!("{} to {}", show::money(least), show::money(most)),
    }
}

/// Grams, and who says so.
fn carbon(of: Option<&v1::RegionCarbon>) -> (String, String) {
    let Some(of) = of else {
        return ("unknown".to_owned(), String::new());
    };
    let from = match of.origin.as_str() {
        "feed" => "the feed".to_owned(),
        "earlier" => format!("the feed, hour of {}", date(Millis(of.hour_ms))),
        pattern => format!("yearly mean of {}", show::name(pattern)),
    };
    (
        format!("{}.{}", of.mg_kwh / 1000, of.mg_kwh % 1000 / 100),
        from,
    )
}

fn feed_words(feed: &v1::CarbonFeed) -> String {
    let source = show::plain(&feed.source);
    let kept = match feed.readings {
        0 => "nothing was read yet".to_owned(),
        n => format!("{n} readings, read {} ago", show::span(feed.age_ms)),
    };
    match feed.problem.as_str() {
        "" => format!("carbon from {source}: {kept}"),
        why => format!(
            "carbon from {source} cannot be read now ({}): {kept}",
            show::plain(why)
        ),
    }
}

fn feed_json(feed: &v1::CarbonFeed) -> Value {
    json!({
        "source": feed.source,
        "age_ms": (feed.readings > 0).then_some(feed.age_ms),
        "problem": (!feed.problem.is_empty()).then_some(&feed.problem),
        "readings": feed.readings,
    })
}

fn known(figure: u64) -> Option<u64> {
    (figure > 0).then_some(figure)
}

fn basis(link: &v1::RegionLink) -> &'static str {
    match link.measured {
        true => "measured",
        false => "estimated",
    }
}

fn millis(micros: u64) -> String {
    match micros {
        0 => String::new(),
        micros => format!("{}.{} ms", micros / 1000, micros % 1000 / 100),
    }
}

fn rate(bytes_s: u64) -> String {
    match bytes_s {
        0 => String::new(),
        known => ByteRate(known).to_string(),
    }
}

/// What lies between each two regions, once a pair, and within each.
fn pairs(regions: &[v1::RegionView]) -> Table {
    let mut table = Table::new(&["FROM", "TO", "RTT", "BANDWIDTH", "", "EGRESS A GB"]);
    for region in regions {
        let known = region.links.iter().filter(|l| l.round_trip_micros > 0);
        for link in known.filter(|l| l.to >= region.region) {
            table.row([
                show::name(&region.region),
                show::name(&link.to),
                millis(link.round_trip_micros),
                rate(link.bandwidth_bytes_s),
                basis(link).to_owned(),
                show::money(UsdMicros(link.egress_usd_micros_gb)),
            ]);
        }
    }
    table
}

fn as_json(region: &v1::RegionView) -> Value {
    let link = |l: &v1::RegionLink| {
        json!({
            "to": l.to,
            "egress_usd_micros_gb": l.egress_usd_micros_gb,
            "round_trip_micros": known(l.round_trip_micros),
            "bandwidth_bytes_s": known(l.bandwidth_bytes_s),
            "basis": (l.round_trip_micros > 0).then_some(basis(l)),
        })
    };
    json!({
        "region": region.region,
        "nodes": region.nodes,
        "online": region.online,
        "core_hour_usd_micros": region.core_hour.as_ref().map(|p| json!({
            "least": p.least_usd_micros,
            "most": p.most_usd_micros,
        })),
        "carbon": region.carbon.as_ref().map(|c| json!({
            "mg_kwh": c.mg_kwh,
            "origin": c.origin,
            "hour_ms": (c.hour_ms > 0).then_some(c.hour_ms),
        })),
        "power": region.power.as_ref().map(|p| json!({
            "idle_milliwatts": p.idle_milliwatts,
            "full_milliwatts": p.full_milliwatts,
            "pue_ppm": p.pue_ppm,
        })),
        "round_trip_micros": known(region.round_trip_micros),
        "bandwidth_bytes_s": known(region.bandwidth_bytes_s),
        "links": region.links.iter().map(link).collect::<Vec<_>>(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_unknown_is_never_zero() {
        assert_eq!(carbon(None).0, "unknown");
        let of = |origin: &str, hour_ms| v1::RegionCarbon {
            mg_kwh: 213_400,
            origin: origin.to_owned(),
            hour_ms,
        };
        let said = |of: &v1::RegionCarbon| carbon(Some(of));
        assert_eq!(
            said(&of("feed", 0)),
            ("213.4".to_owned(), "the feed".to_owned())
        );
        assert_eq!(said(&of("eu-*", 0)).1, "yearly mean of eu-*");
        assert_eq!(
            said(&of("earlier", 1_796_130_000_000)).1,
            "the feed, hour of 2026-12-01T13:00:00Z"
        );
        let feed = v1::CarbonFeed {
            source: "x.csv".to_owned(),
            problem: "it is away".to_owned(),
            ..Default::default()
        };
        assert!(
            feed_words(&feed).contains("nothing was read yet")
                && feed_json(&feed)["age_ms"].is_null()
        );
    }
}
