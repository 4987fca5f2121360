//! What ten thousand sessions cost beside a hundred and a thousand: creating and starting them one after another, a page of the
//! list, a sweep; what as many cost that wait for one place; and the commit that is in all of it. Not criterion's: each create
//! changes what the next one meets, and how the cost grows is the question.
//!
//! `cargo bench --bench sessions -- 10000`

use std::{
    collections::BTreeMap,
    error::Error,
    io::Write,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use sluicegate::{
    auth::Keys,
    session::{
        CreateRequest, ProviderConfig, Quota, Registry, RegistryConfig, Scopes, SessionKey, Wanted,
        lifecycle::{Action, Times},
    },
    store::{Batch, EmbeddedStore, NewEvent, Store, verify_file},
};

type Outcome<T> = Result<T, Box<dyn Error>>;

/// Bounds that count, and do not bind: what they cost is part of a create. Those of `narrow` bind.
fn config() -> RegistryConfig {
    let provider = |concurrency, queue| ProviderConfig {
        times: Times {
            idle_timeout: Some(Duration::from_secs(600)),
            max_lifetime: Some(Duration::from_secs(86_400)),
            ..Times::default()
        },
        scopes: Some(Scopes { concurrency, queue }),
        ..ProviderConfig::default()
    };
    let quota = Quota {
        sessions: Some(1_000_000),
        ..Quota::default()
    };
    RegistryConfig {
        providers: BTreeMap::from([
            ("local".to_owned(), provider(1_000_000, 0)),
            ("narrow".to_owned(), provider(1, 1_000_000)),
        ]),
        default_provider: "local".into(),
        namespace_quota: quota,
        owner_quota: quota,
        ..RegistryConfig::default()
    }
}

/// The provider all of them are of.
fn of_local() -> Wanted<'static> {
    Wanted {
        provider: Some("local"),
        ..Wanted::default()
    }
}

fn asked(n: usize) -> Outcome<CreateRequest> {
    let text = format!(
        "{{id: s{n}, owner: o{}, scope: c{}, allow: ['api.example.com', '*.example.org']}}",
        n % 50,
        n % 500
    );
    CreateRequest::read(&text).map_err(|faults| faults.to_string().into())
}

fn milliseconds(of: Duration) -> f64 {
    of.as_secs_f64() * 1000.0
}

/// Median and worst of several goes.
fn several(goes: usize, mut go: impl FnMut() -> usize) -> (f64, f64, usize) {
    let mut took = Vec::new();
    let mut seen = 0;
    for _ in 0..goes {
        let begun = Instant::now();
        seen = go();
        took.push(milliseconds(begun.elapsed()));
    }
    took.sort_by(f64::total_cmp);
    let at = |index: usize| took.get(index).copied().unwrap_or_default();
    (at(goes / 2), at(goes - 1), seen)
}

fn open(directory: &std::path::Path) -> Outcome<Arc<Registry>> {
    let store = EmbeddedStore::open(&directory.join("sluicegate.redb"))?;
    let keys = Keys::load_or_create(&directory.join("keys"))?;
    Ok(Registry::open(
        Arc::new(store),
        Arc::new(keys),
        config(),
        SystemTime::now(),
    )?)
}

/// A hundredth, a tenth, and all of them, each in a store of its own.
fn sizes(wanted: usize, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let columns = "create and start, milliseconds each | worst | page of 1000, median | page of 100, median | sweep, nothing due, median | sweep, all due | open the store";
    println!("| sessions | {columns} |");
    println!("|---|---|---|---|---|---|---|---|");
    let everybody = |_: &str, _: Option<&str>| true;
    for size in [wanted / 100, wanted / 10, wanted] {
        let directory = tempfile::tempdir()?;
        let registry = open(directory.path())?;
        let (begun, mut worst) = (Instant::now(), Duration::ZERO);
        for n in 0..size {
            let one = Instant::now();
            runtime.block_on(registry.create("local".into(), asked(n)?))?;
            worst = worst.max(one.elapsed());
        }
        let each = milliseconds(begun.elapsed()) / size.max(1) as f64;
        let page = |limit: usize| {
            let (median, _, _) = several(20, || {
                let (views, _) = registry.page(of_local(), &everybody, None, limit);
                std::hint::black_box(serde_json::to_vec(&views).unwrap_or_default());
                views.len()
            });
            median
        };
        let (large, small) = (page(1000), page(100));
        let now = SystemTime::now();
        let (sweep, _, _) = several(50, || usize::from(registry.sweep_once(now).is_some()));
        let due = Instant::now();
        registry.sweep_once(now + Duration::from_secs(90_000));
        let due = milliseconds(due.elapsed());
        drop(registry);
        let again = Instant::now();
        drop(open(directory.path())?);
        let again = milliseconds(again.elapsed());
        let worst = milliseconds(worst);
        println!(
            "| {size} | {each:.2} | {worst:.1} | {large:.2} | {small:.2} | {sweep:.2} | {due:.0} | {again:.0} |"
        );
    }
    Ok(())
}

/// What one commit costs, which is durable when it returns: it syncs twice, once for what is written and once for the header
/// that makes it count (two phases). Beside it stands what one sync costs here.
fn commits() -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let store = EmbeddedStore::open(&directory.path().join("sluicegate.redb"))?;
    let mut row = 0_usize;
    let mut batch = |rows: usize, events: usize, namespaces: usize| {
        let key = |n: usize| (format!("default/local/s{n}"), vec![b'x'; 1024]);
        let event = |n: usize| NewEvent {
            of: format!("n{}", n % namespaces.max(1)),
            body: vec![b'e'; 256],
        };
        let first = row;
        row += rows.max(events);
        Batch {
            put: (first..first + rows).map(key).collect(),
            events: (first..first + events).map(event).collect(),
            keep_events: Some(10_000),
            ..Batch::default()
        }
    };
    println!("\n| a commit | milliseconds, median | worst |");
    println!("|---|---|---|");
    let mut failed = None;
    let mut measure = |what: &str, batch: &mut dyn FnMut() -> Batch| {
        let mut all: Vec<Batch> = (0..50).map(|_| batch()).collect();
        let (median, worst, _) = several(50, || {
            let batch = all.pop().unwrap_or_default();
            failed = store.commit(&batch).err().or(failed.take());
            batch.put.len()
        });
        println!("| {what} | {median:.2} | {worst:.1} |");
    };
    measure("of nothing", &mut || batch(0, 0, 1));
    measure("of a session and its event", &mut || batch(1, 1, 1));
    measure("of 1,024 sessions and events", &mut || batch(1024, 1024, 1));
    measure(
        "of a session and its event, 10,000 events kept of one namespace",
        &mut || batch(1, 1, 1),
    );
    measure(
        "of 1,024 sessions and events of 1,000 namespaces",
        &mut || batch(1024, 1024, 1000),
    );
    measure(
        "of a session and its event, 10,000 events kept of 1,000 namespaces",
        &mut || batch(1, 1, 1000),
    );
    if let Some(error) = failed {
        return Err(error.into());
    }
    let mut file = std::fs::File::create(directory.path().join("beside"))?;
    let (median, worst, _) = several(50, || {
        let written = file.write_all(&[0; 4096]).and_then(|()| file.sync_data());
        usize::from(written.is_ok())
    });
    println!("| 4 KiB written to a file beside it, and synced once | {median:.2} | {worst:.1} |");
    Ok(())
}

/// Sessions that wait in one scope: what a sweep costs, and a place that becomes free.
fn queue(wanted: usize, runtime: &tokio::runtime::Runtime) -> Outcome<()> {
    let directory = tempfile::tempdir()?;
    let registry = open(directory.path())?;
    let columns = "create, milliseconds each | sweep, median | worst | stop and start the next, median | worst";
    println!("\n| wait for one place | {columns} |");
    println!("|---|---|---|---|---|---|");
    let key = |n: usize| SessionKey {
        namespace: "default".into(),
        provider: "narrow".into(),
        id: format!("q{n}").into(),
    };
    let (step, now) = ((wanted / 5).max(1), SystemTime::now());
    let (mut made, mut first) = (0, 0);
    for waiting in (step..=wanted).step_by(step) {
        let (begun, before) = (Instant::now(), made);
        while made <= waiting + first {
            let text = format!("{{id: q{made}, scope: one}}");
            let request = CreateRequest::read(&text).map_err(|faults| faults.to_string())?;
            runtime.block_on(registry.create("narrow".into(), request))?;
            made += 1;
        }
        let each = milliseconds(begun.elapsed()) / (made - before) as f64;
        let (sweep, worst, _) = several(20, || usize::from(registry.sweep_once(now).is_some()));
        let (place, worst_place, _) = several(20, || {
            let stopped = runtime.block_on(registry.act(key(first), Action::Stop, None));
            registry.sweep_once(now);
            first += 1;
            usize::from(stopped.is_ok())
        });
        println!(
            "| {waiting} | {each:.2} | {sweep:.2} | {worst:.2} | {place:.2} | {worst_place:.2} |"
        );
    }
    Ok(())
}

fn main() -> Outcome<()> {
    let wanted = std::env::args().filter_map(|text| text.parse().ok()).next();
    let wanted: usize = wanted.unwrap_or(10_000);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()?;
    sizes(wanted, &runtime)?;
    commits()?;
    println!("\n| create and start | milliseconds each | worst |");
    println!("|---|---|---|");
    let directory = tempfile::tempdir()?;
    let registry = open(directory.path())?;
    let step = (wanted / 10).max(1);
    for first in (0..wanted).step_by(step) {
        let mut worst = Duration::ZERO;
        let begun = Instant::now();
        let last = (first + step).min(wanted);
        for n in first..last {
            let one = Instant::now();
            runtime.block_on(registry.create("local".into(), asked(n)?))?;
            worst = worst.max(one.elapsed());
        }
        let each = milliseconds(begun.elapsed()) / (last - first) as f64;
        println!(
            "| {} to {last} | {each:.2} | {:.1} |",
            first + 1,
            milliseconds(worst)
        );
    }
    println!("\n| with {wanted} sessions | milliseconds, median | worst | sessions |");
    println!("|---|---|---|---|");
    let everybody = |_: &str, _: Option<&str>| true;
    let one_owner = |_: &str, owner: Option<&str>| owner == Some("o7");
    let middle = SessionKey {
        namespace: "default".into(),
        provider: "local".into(),
        id: "s5".into(),
    };
    let page = |limit, after, seen: &dyn Fn(&str, Option<&str>) -> bool| {
        let (views, _) = registry.page(of_local(), seen, after, limit);
        let text = serde_json::to_vec(&views).unwrap_or_default();
        std::hint::black_box(text);
        views.len()
    };
    let row = |what: &str, (median, worst, seen): (f64, f64, usize)| {
        println!("| {what} | {median:.2} | {worst:.2} | {seen} |");
    };
    row(
        "first page of 1000",
        several(20, || page(1000, None, &everybody)),
    );
    row(
        "first page of 100",
        several(20, || page(100, None, &everybody)),
    );
    row(
        "page of 100 from the middle",
        several(20, || page(100, Some(&middle), &everybody)),
    );
    row(
        "page of 100 of one owner in 50",
        several(20, || page(100, None, &one_owner)),
    );
    let now = SystemTime::now();
    row(
        "sweep, nothing due",
        several(50, || usize::from(registry.sweep_once(now).is_some())),
    );
    row(
        "owners in use, page of 1000",
        several(20, || registry.owners(None, &everybody, None, 1000).len()),
    );
    let mut tokens = Vec::new();
    for _ in 0..20 {
        let started = registry.act(middle.clone(), Action::Start, None);
        let bundle = runtime.block_on(started)?.bundle.ok_or("no bundle")?;
        let name = "SLUICEGATE_PROXY_TOKEN";
        let token = bundle.env.into_iter().find(|(key, _)| key == name);
        tokens.push(token.ok_or("no token")?.1);
    }
    let mut ids = (0..20).map(|n| format!("{n:02}{}", "A".repeat(20)));
    let revoke = |credential: Option<String>| {
        let credential = credential.unwrap_or_default();
        let revoked = runtime.block_on(registry.revoke_credential(credential));
        usize::from(revoked.is_ok_and(|known| known))
    };
    row(
        "revoke a token (a commit)",
        several(20, || revoke(tokens.pop())),
    );
    row(
        "revoke an id alone (a commit)",
        several(20, || revoke(ids.next())),
    );
    let file = directory.path().join("sluicegate.redb");
    let verified = || verify_file(&file).map_or(0, |found| found.sessions as usize);
    row("verify the store", several(5, verified));
    let begun = Instant::now();
    registry.sweep_once(now + Duration::from_secs(90_000));
    let due = milliseconds(begun.elapsed());
    println!("| sweep, all due (1,024 to a commit) | {due:.0} | - | {wanted} |");
    drop(registry);
    let begun = Instant::now();
    let registry = open(directory.path())?;
    println!(
        "| open the store | {:.0} | - | {} |",
        milliseconds(begun.elapsed()),
        registry.list(None, None).len()
    );
    queue(wanted, &runtime)
}
