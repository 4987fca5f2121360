#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::panic)]

use std::{
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{Barrier, atomic::AtomicU64, mpsc},
    thread,
};

use super::*;
use crate::session::lifecycle::Action;
use crate::session::testing::{Fixture, generation, request};

async fn create(f: &Fixture, source: &str) {
    let created = f.registry.create("local".into(), request(source)).await;
    created.unwrap();
}

fn who(f: &Fixture, source: &str, namespaces: &[&str]) -> Result<String, Denial> {
    let namespaces: Vec<Arc<str>> = namespaces.iter().map(|name| (*name).into()).collect();
    let live =
        f.registry
            .index()
            .source(source.parse().unwrap(), &namespaces, SystemTime::now())?;
    Ok(live.session.key().id.to_string())
}

#[tokio::test]
async fn a_source_is_one_sessions_or_nobodys() {
    let f = Fixture::new();
    create(&f, "{id: one, sources: [\"192.0.2.1\", \"2001:db8::/64\"]}").await;
    create(
        &f,
        "{id: two, sources: [\"192.0.2.0/30\", \"198.51.100.0/24\"]}",
    )
    .await;
    create(&f, "{id: anywhere}").await;
    create(&f, "{id: idle, sources: [\"203.0.113.1\"], start: false}").await;
    let default = |source| who(&f, source, &["default"]);
    assert_eq!(default("198.51.100.7").as_deref(), Ok("two"));
    assert_eq!(default("192.0.2.2").as_deref(), Ok("two"));
    assert_eq!(default("::ffff:198.51.100.7").as_deref(), Ok("two"));
    assert_eq!(default("2001:db8::7").as_deref(), Ok("one"));
    // The narrower one is not preferred: whose it is must be certain.
    assert_eq!(default("192.0.2.1"), Err(Denial::SourceAmbiguous));
    for nobody in ["203.0.113.1", "192.0.2.4", "2001:db8:0:1::7", "::1"] {
        assert_eq!(default(nobody), Err(Denial::SourceUnknown), "{nobody}");
    }
    assert_eq!(
        who(&f, "198.51.100.7", &["other"]),
        Err(Denial::SourceUnknown)
    );
}

#[tokio::test]
async fn namespaces_do_not_see_each_other() {
    let f = Fixture::new();
    create(&f, "{id: mine, namespace: a, sources: [\"192.0.2.1\"]}").await;
    create(
        &f,
        "{id: theirs, namespace: b, sources: [\"192.0.2.0/24\"]}",
    )
    .await;
    assert_eq!(who(&f, "192.0.2.1", &["a"]).as_deref(), Ok("mine"));
    assert_eq!(who(&f, "192.0.2.1", &["b"]).as_deref(), Ok("theirs"));
    assert_eq!(
        who(&f, "192.0.2.1", &["a", "b"]),
        Err(Denial::SourceAmbiguous)
    );
}

#[tokio::test]
async fn what_has_ended_has_no_sources() {
    let f = Fixture::new();
    create(&f, "{id: one, sources: [\"192.0.2.1\"]}").await;
    f.registry
        .act(f.key("one"), Action::Stop, None)
        .await
        .unwrap();
    assert_eq!(
        who(&f, "192.0.2.1", &["default"]),
        Err(Denial::SourceUnknown)
    );
    assert!(f.registry.index().read().sources.is_empty());
}

#[tokio::test]
async fn an_id_of_one_namespace_makes_nobody_look_in_another() {
    let f = Fixture::new();
    let index = f.registry.index();
    let mut watched = Vec::new();
    for namespace in ["a", "b"] {
        create(&f, &format!("{{id: one, namespace: {namespace}}}")).await;
        let key = SessionKey {
            namespace: namespace.into(),
            provider: "local".into(),
            id: "one".into(),
        };
        watched.push(index.session(&key).unwrap().session.subscribe());
    }
    let looked = |watched: &mut Vec<tokio::sync::watch::Receiver<Authority>>| {
        let each = watched.iter_mut();
        each.map(|one| {
            let looked = one.has_changed().unwrap();
            one.mark_unchanged();
            looked
        })
        .collect::<Vec<_>>()
    };
    index.revoke(within("a", "nightly"), None);
    assert_eq!(looked(&mut watched), [true, false]);
    // What is of no namespace may be anybody's.
    index.revoke("nightly".into(), None);
    assert_eq!(looked(&mut watched), [true, true]);
}

#[test]
fn who_changes_keys_says_last_what_is_last() {
    let index = Index::default();
    let [kept, gone] = ["kept", "gone"].map(str::to_owned);
    let credential = |key: &str| Credential::Token {
        namespace: "default".into(),
        id: "id".into(),
        family: None,
        key: key.into(),
    };
    let withdrawn = || [&kept, &gone].map(|key| index.is_withdrawn(&credential(key)));
    index.keys_changed(vec![kept.clone(), gone.clone()], || {
        // Nobody else says meanwhile what was before.
        assert!(index.writer.try_lock().is_err());
        vec![kept.clone()]
    });
    assert_eq!(withdrawn(), [false, true]);
    index.keys_changed(vec![kept.clone()], || vec![kept.clone(), gone.clone()]);
    assert_eq!(withdrawn(), [false, false]);
}

#[test]
fn whatever_is_tied_to_a_token_ends_with_it() {
    let index = Index::default();
    let ended = |session: &Session| {
        let authority = session.authority();
        matches!(authority, Authority::Ended(Denial::SessionRevoked))
    };
    // Two tokens that say one id are two sessions, of which both may have something open.
    let tied: [_; 3] = std::array::from_fn(|_| generation());
    let [first, second, other] = &tied;
    index.tie("one", first);
    index.tie("one", second);
    index.tie("other", other);
    index.revoke("one".into(), None);
    assert_eq!(tied.each_ref().map(|one| ended(one)), [true, true, false]);
    let late = generation();
    index.tie("one", &late);
    assert!(ended(&late));
}

/// A generation of one session, as it lives.
fn living(number: u64, sources: &[&str]) -> Live {
    let one = generation();
    let session = Session::new(one.key().clone(), number, one.policy().unwrap(), None);
    let sources: Vec<IpNet> = sources.iter().map(|range| range.parse().unwrap()).collect();
    Live {
        session: session.into(),
        sources: sources.into(),
        token_ttl: None,
        key: None,
        since: SystemTime::UNIX_EPOCH,
    }
}

fn handle(number: u64) -> HandleHash {
    HandleHash::from_hex(&format!("{number:064x}")).unwrap()
}

fn token(number: u64) -> Credential {
    Credential::Token {
        namespace: "default".into(),
        id: number.to_string().into(),
        family: None,
        key: "key".into(),
    }
}

#[test]
fn what_is_there_at_the_start_shows_in_one_go() {
    let index = Index::default();
    let one = living(1, &["192.0.2.1/32"]);
    let key = one.session.key().clone();
    let revoked = [within("default", "1"), within("other", "2"), "3".to_owned()];
    let ids = revoked.iter().map(String::as_str);
    index.begin(ids, [(one, vec![handle(1), handle(2)])]);
    assert!(index.session(&key).is_some());
    assert!([1, 2].iter().all(|n| index.handle(&handle(*n)).is_some()));
    let own = [key.namespace.clone()];
    let source = "192.0.2.1".parse().unwrap();
    assert!(index.source(source, &own, SystemTime::now()).is_ok());
    let withdrawn = [1, 2, 3].map(|n| index.is_withdrawn(&token(n)));
    assert_eq!(withdrawn, [true, false, true]);
}

#[test]
fn a_look_waits_for_nobody_who_changes() {
    let index = Arc::<Index>::default();
    let live = living(1, &["192.0.2.1/32"]);
    let key = live.session.key().clone();
    index.live(live, &[handle(1)]);
    let looking = index.clone();
    index.keys_changed(Vec::new(), || {
        let (seen, found) = mpsc::channel();
        thread::spawn(move || {
            let source = "192.0.2.1".parse().unwrap();
            let own = [key.namespace.clone()];
            let all = [
                looking.session(&key).is_some(),
                looking.handle(&handle(1)).is_some(),
                looking.visit(&handle(1)).is_some(),
                looking.source(source, &own, SystemTime::now()).is_ok(),
                !looking.is_withdrawn(&token(1)),
                looking.len() == 1,
            ];
            seen.send(all).unwrap();
        });
        // Only one that waits for this to end is so long about it.
        let found = found.recv_timeout(Duration::from_secs(60));
        assert_eq!(found.unwrap(), [true; 6]);
        Vec::new()
    });
}

#[test]
fn who_begins_to_watch_sees_a_revocation_or_is_told() {
    const ROUNDS: u64 = 400;
    let index = Index::default();
    let one = living(1, &[]);
    let session = one.session.clone();
    index.live(one, &[]);
    let turn = Barrier::new(2);
    let mut missed = Vec::new();
    thread::scope(|scope| {
        scope.spawn(|| {
            for number in 0..ROUNDS {
                turn.wait();
                index.revoke(number.to_string(), None);
                turn.wait();
            }
        });
        for number in 0..ROUNDS {
            turn.wait();
            // As an open does: nobody watched before.
            let watch = session.subscribe();
            let seen = index.is_withdrawn(&token(number));
            turn.wait();
            if !seen && !watch.has_changed().unwrap() {
                missed.push(number);
            }
        }
    });
    assert!(missed.is_empty(), "{missed:?}");
}

#[test]
fn a_change_that_breaks_off_takes_nothing_back_and_bars_no_other() {
    let index = Index::default();
    index.revoke("1".into(), None);
    let change = || index.keys_changed(Vec::new(), || panic!("the keys cannot be told"));
    assert!(catch_unwind(AssertUnwindSafe(change)).is_err());
    index.revoke("2".into(), None);
    assert!([1, 2].iter().all(|n| index.is_withdrawn(&token(*n))));
}

/// A look begins after the end of a generation was told, or is by a handle of the one or the other.
#[test]
fn no_look_finds_what_had_ended_before_it() {
    const LAST: u64 = 400;
    let index = Index::default();
    let key = generation().key().clone();
    // Of this one it is told that it has ended, and so have those before.
    let ended = AtomicU64::new(0);
    let look = || {
        loop {
            let over = ended.load(Ordering::Acquire);
            if over > 0 {
                assert!(index.handle(&handle(over)).is_none());
                assert!(index.is_withdrawn(&token(over)));
                let live = index.session(&key);
                assert!(live.is_none_or(|live| live.session.generation() > over));
            }
            // It may end meanwhile, and another one begin under its key.
            let next = index.handle(&handle(over + 1));
            assert!(next.is_none_or(|live| live.session.generation() == over + 1));
            if over == LAST {
                return;
            }
        }
    };
    // Judged afterwards: those who look go on until the last.
    let mut faults = Vec::new();
    thread::scope(|scope| {
        let looks = [scope.spawn(look), scope.spawn(look)];
        for number in 1..=LAST {
            index.live(living(number, &[]), &[handle(number)]);
            let mut good = index.handle(&handle(number)).is_some();
            // Half of them lose their handle alone, before they end.
            if number % 2 == 0 {
                index.remove_handle(&handle(number));
                good &= index.is_withdrawn(&Credential::Handle(handle(number)));
            }
            if !good {
                faults.push(number);
            }
            index.revoke(number.to_string(), None);
            index.end(&key, &[handle(number)]);
            ended.store(number, Ordering::Release);
        }
        for look in looks {
            look.join().unwrap();
        }
    });
    assert!(faults.is_empty(), "{faults:?}");
    assert!(!index.is_withdrawn(&Credential::Handle(handle(LAST))));
    let tables = index.read();
    assert!(tables.handles.is_empty() && tables.withdrawn.is_empty());
    assert!(index.writer.lock().unwrap().is_empty());
}

#[test]
fn a_source_that_moves_from_one_range_to_another_is_somebodys_all_the_while() {
    let index = Index::default();
    let ranges = ["192.0.2.1/32", "192.0.2.0/24"];
    index.live(living(1, &ranges[..1]), &[]);
    let done = AtomicBool::new(false);
    let own = [generation().key().namespace.clone()];
    let look = || {
        while !done.load(Ordering::Acquire) {
            let source = "192.0.2.1".parse().unwrap();
            index.source(source, &own, SystemTime::now()).unwrap();
        }
    };
    thread::scope(|scope| {
        let looking = scope.spawn(look);
        for number in 0..400 {
            let range = ranges[number % 2];
            index.live(living(1, &[range]), &[]);
        }
        done.store(true, Ordering::Release);
        looking.join().unwrap();
    });
}
