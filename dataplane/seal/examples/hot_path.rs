//! What sealing costs per task: `cargo run --release -p farlane-seal --example hot_path`.
//!
//! Bars (docs/design/spine.md): seal a small payload ≤ 4 µs, open ≤ 3 µs, a batch of 512 grants ≤ 300 µs.

use std::hint::black_box;
use std::time::Instant;

use farlane_model::{AttemptRef, BootId, Digest, ExitKind, SessionId, TenantId, Tier};
use farlane_seal::grant::{Grant, GranterContext, OpenContext};
use farlane_seal::prekey::PrekeyStock;
use farlane_seal::record::{
    DeviceRecord, DeviceTerms, EnrolmentCert, EnrolmentTerms, Manifest, ManifestTerms, NodeRecord,
    ProviderPin, RevocationPolicy, SignedPrekey,
};
use farlane_seal::{
    DeviceKey, EnrolmentSeed, NodeIdentity, ProviderRoot, SessionKey, StreamContext, TaskKey,
    TenantRoot, batch, random, stream, wrap,
};
use farlane_units::Millis;

/// Best of five runs, in microseconds for one call.
fn measure(name: &str, calls: u32, mut call: impl FnMut()) {
    let best = (0..5)
        .map(|_| {
            let begun = Instant::now();
            (0..calls).for_each(|_| call());
            begun.elapsed().as_secs_f64() * 1e6 / f64::from(calls)
        })
        .fold(f64::INFINITY, f64::min);
    println!("{name:<34} {best:>9.3} µs");
}

fn streams() -> Result<(), Box<dyn std::error::Error>> {
    let (key, session) = (TaskKey::generate(), SessionKey::generate());
    let task = SessionId::new(1, [1; 5]).task(1);
    let context = StreamContext::payload(TenantId([1; 32]), task);
    measure("draw 32 random bytes", 100_000, || {
        black_box(random::bytes::<32>());
    });
    for len in [64usize, 200, 8_000, 1 << 20] {
        let plain = vec![7; len];
        let calls = (200_000_000 / (len as u32 + 20_000)).min(20_000);
        let sealed = stream::seal_padded(&key, &context, &plain);
        measure(&format!("seal {len} B, padded"), calls, || {
            black_box(stream::seal_padded(&key, &context, black_box(&plain)));
        });
        measure(&format!("open {len} B, padded"), calls, || {
            let opened = stream::open_padded(&key, &context, black_box(&sealed), 1 << 24);
            black_box(opened.is_ok());
        });
    }
    let mut seq = 0;
    measure("wrap a task key", 50_000, || {
        seq += 1;
        black_box(wrap::wrap_task_key(&session, seq, &key));
    });
    let wrapped = wrap::wrap_task_key(&session, 0, &key);
    measure("unwrap a task key", 50_000, || {
        black_box(wrap::unwrap_task_key(&session, 0, &wrapped).is_ok());
    });
    Ok(())
}

fn grants() -> Result<(), Box<dyn std::error::Error>> {
    let (now, end) = (Millis(1_000_000), Millis(u64::MAX / 2));
    let (provider, seed) = (ProviderRoot::generate(), EnrolmentSeed::generate());
    let identity = NodeIdentity::generate();
    let terms = EnrolmentTerms {
        enrolment: seed.public(),
        provider: provider.public(),
        region: "eu".into(),
        tier: Tier::Namespaces,
        labels: vec![],
        price_usd_micros_core_hour: None,
        not_after: end,
    };
    let record = NodeRecord::make(
        &identity,
        &seed,
        &EnrolmentCert::sign(&provider, terms)?,
        "host",
    )?;
    let (tenant, device) = (TenantRoot::generate(), DeviceKey::generate());
    let terms = DeviceTerms {
        tenant_root: tenant.public(),
        device: device.public(),
        name: "d".into(),
        may_grant: true,
        not_after: end,
    };
    let device_record = DeviceRecord::sign(&tenant, terms)?;
    let pin = ProviderPin {
        root: provider.public(),
        name: "own".into(),
        own: true,
    };
    let terms = ManifestTerms {
        tenant_root: tenant.public(),
        version: 1,
        not_after: end,
        providers: vec![pin],
        devices: vec![device.public()],
        granters: vec![device.public()],
    };
    let manifest = Manifest::sign(&tenant, terms)?;
    let mut stock = PrekeyStock::new(identity.clone(), record.clone(), BootId([1; 16]));
    measure("make a one-time prekey", 100, || {
        drop(stock.one_time(1, now))
    });
    let granter = SessionId::new(1, [1; 5]);
    let prekey = SignedPrekey::from_bytes(&stock.one_time(1, now)[0], &record)?;
    let order = OpenContext {
        record: &record,
        prekey: &prekey,
        revocations: None,
        revocation_policy: RevocationPolicy::WhenGiven,
        manifest: &manifest,
        network: b"network",
        granter,
        device: &device,
        device_record: &device_record,
        now,
    };
    measure("open a grant context", 500, || {
        drop(black_box(GranterContext::open(&order)))
    });
    let (mut context, opening) = GranterContext::open(&order)?;
    let mut node = stock.accept(&opening, b"network", now)?;
    let all: Vec<_> = (1..=512)
        .map(|seq| Grant {
            attempt: AttemptRef {
                task: granter.task(seq),
                attempt: 1,
                epoch: 1,
            },
            open_by: now,
            spec_digest: Digest::of(b"spec"),
            payload_digest: Digest::of(b"payload"),
            key: TaskKey::generate(),
        })
        .collect();
    let mut sealed = Vec::new();
    measure("seal 512 grants", 500, || sealed.extend(context.seal(&all)));
    let mut batches = sealed.into_iter();
    measure("open 512 grants", 500, || {
        let (counter, bytes) = batches.next().unwrap_or_default();
        black_box(node.open(counter, &bytes, now).is_ok());
    });
    let digest = Digest::of(b"sealed");
    let leaves: Vec<_> = all
        .iter()
        .map(|g| batch::leaf(&g.attempt, ExitKind::Returned, Some(&digest)))
        .collect();
    measure("make 512 leaves", 200, || {
        let leaf = |g: &Grant| batch::leaf(&g.attempt, ExitKind::Returned, Some(&digest));
        all.iter().for_each(|g| _ = black_box(leaf(g)));
    });
    let (leaves, id) = (batch::join_leaves(&leaves), batch::id(BootId([1; 16]), 1));
    measure("sign a batch", 1000, || {
        black_box(batch::sign(&identity, record.node(), granter, &id, &leaves));
    });
    let signature = batch::sign(&identity, record.node(), granter, &id, &leaves);
    measure("verify a batch", 1000, || {
        black_box(batch::verify(&record, granter, &id, &leaves, &signature).is_ok());
    });
    Ok(())
}

fn main() -> Result<(), Box<dyn std::error::Error>> {
    streams()?;
    grants()
}
