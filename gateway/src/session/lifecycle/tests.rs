#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic
)]
use proptest::prelude::*;

use super::*;

const SECOND: Duration = Duration::from_secs(1);

fn at(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000 + seconds)
}

fn times() -> Times {
    Times {
        ttl: Some(60 * SECOND),
        idle_timeout: Some(30 * SECOND),
        max_lifetime: Some(600 * SECOND),
        on_expiry: OnExpiry::Reset,
        on_pause: OnPause::Close,
        token_ttl: None,
    }
}

/// A session in each state, started (where it was) at 0 and paused at 10.
fn in_state(state: State) -> Lease {
    let idle = Lease::new(times());
    let go = |lease: &Lease, action, seconds| step(lease, action, at(seconds)).unwrap().0;
    let running = go(&idle, Action::Start, 0);
    match state {
        State::Idle => idle,
        State::Running => running,
        State::Paused => go(&running, Action::Pause, 10),
        State::Stopped => go(&running, Action::Stop, 10),
    }
}

/// The table of docs/admin-api.md, cell by cell: the state after, or `None` for 409.
#[test]
fn every_cell_of_the_table() {
    use State::{Idle, Paused, Running, Stopped};
    let table: &[(Action, [Option<State>; 4])] = &[
        (
            Action::Start,
            [Some(Running), Some(Running), Some(Paused), None],
        ),
        (Action::Pause, [None, Some(Paused), Some(Paused), None]),
        (Action::Resume, [None, Some(Running), Some(Running), None]),
        (Action::Keepalive(SECOND), [None, Some(Running), None, None]),
        (Action::Reset, [None, Some(Idle), Some(Idle), None]),
        (
            Action::Stop,
            [Some(Stopped), Some(Stopped), Some(Stopped), Some(Stopped)],
        ),
        (
            Action::Expire(Expiry::Ttl),
            [None, Some(Idle), Some(Idle), None],
        ),
        (
            Action::Gone,
            [Some(Idle), Some(Idle), Some(Idle), Some(Stopped)],
        ),
    ];
    for (action, row) in table {
        for (state, expected) in State::ALL.into_iter().zip(row) {
            let result = step(&in_state(state), *action, at(20));
            match (result, expected) {
                (Ok((after, _)), Some(expected)) => {
                    assert_eq!(after.state, *expected, "{action:?} in {state:?}")
                }
                (Err(impossible), None) => {
                    assert_eq!(
                        impossible,
                        Impossible {
                            action: *action,
                            state
                        }
                    );
                }
                (result, expected) => {
                    panic!("{action:?} in {state:?}: {result:?}, expected {expected:?}")
                }
            }
        }
    }
}

#[test]
fn start_begins_a_generation_and_again_only_gives_a_credential() {
    let (running, effects) = step(&in_state(State::Idle), Action::Start, at(0)).unwrap();
    assert_eq!(running.generation, 1);
    assert_eq!(effects.change, Some(Change::Begin));
    assert!(effects.credential);
    for state in [State::Running, State::Paused] {
        let before = in_state(state);
        let (after, effects) = step(&before, Action::Start, at(20)).unwrap();
        assert_eq!(after, before, "unchanged");
        assert_eq!(
            effects,
            Effects {
                change: None,
                credential: true,
                event: None
            }
        );
    }
    let (idle, _) = step(&running, Action::Reset, at(1)).unwrap();
    assert_eq!(step(&idle, Action::Start, at(2)).unwrap().0.generation, 2);
}

#[test]
fn a_pause_burns_neither_window_nor_life() {
    let paused = in_state(State::Paused);
    assert_eq!(next_expiry(&paused, at(0), false), None);
    let (resumed, effects) = step(&paused, Action::Resume, at(1010)).unwrap();
    assert_eq!(
        resumed.generation, paused.generation,
        "the same credentials"
    );
    assert_eq!(effects.change, Some(Change::Live));
    assert_eq!(resumed.expires_at, Some(at(1070)), "a fresh window");
    assert_eq!(
        resumed.ends_at,
        Some(at(1600)),
        "the life moved by the 1,000 s paused"
    );
}

#[test]
fn keepalive_extends_up_to_the_life_and_never_shortens() {
    let running = in_state(State::Running);
    let extend = |seconds, now| {
        step(&running, Action::Keepalive(seconds * SECOND), at(now))
            .unwrap()
            .0
            .expires_at
    };
    assert_eq!(extend(300, 20), Some(at(320)));
    assert_eq!(extend(5, 20), Some(at(60)), "not shortened");
    assert_eq!(extend(3600, 20), Some(at(600)), "capped by maxLifetime");
    let endless = Lease {
        expires_at: None,
        ..running
    };
    assert_eq!(
        step(&endless, Action::Keepalive(SECOND), at(20))
            .unwrap()
            .0
            .expires_at,
        None
    );
}

#[test]
fn reset_and_expiry_give_their_own_reason() {
    let running = in_state(State::Running);
    let reason = |action| step(&running, action, at(20)).unwrap().1.change;
    assert_eq!(
        reason(Action::Reset),
        Some(Change::End(Denial::SessionRevoked))
    );
    assert_eq!(
        reason(Action::Stop),
        Some(Change::End(Denial::SessionRevoked))
    );
    assert_eq!(
        reason(Action::Expire(Expiry::Ttl)),
        Some(Change::End(Denial::SessionExpired))
    );
}

#[test]
fn on_expiry_decides_where_it_goes() {
    let with = |on_expiry| Lease {
        times: Times {
            on_expiry,
            ..times()
        },
        ..in_state(State::Running)
    };
    let after = |on_expiry, which| {
        step(&with(on_expiry), Action::Expire(which), at(70))
            .unwrap()
            .0
            .state
    };
    assert_eq!(after(OnExpiry::Reset, Expiry::Ttl), State::Idle);
    assert_eq!(after(OnExpiry::Stop, Expiry::IdleTimeout), State::Stopped);
    assert_eq!(after(OnExpiry::Pause, Expiry::Ttl), State::Paused);
    assert_eq!(
        after(OnExpiry::Pause, Expiry::MaxLifetime),
        State::Idle,
        "the life is over all the same"
    );
}

#[test]
fn a_pause_holds_tunnels_only_by_choice() {
    let hold = Lease {
        times: Times {
            on_pause: OnPause::Hold,
            ..times()
        },
        ..in_state(State::Running)
    };
    assert_eq!(
        step(&hold, Action::Pause, at(1)).unwrap().1.change,
        Some(Change::Pause { hold: true })
    );
    let close = in_state(State::Running);
    assert_eq!(
        step(&close, Action::Pause, at(1)).unwrap().1.change,
        Some(Change::Pause { hold: false })
    );
}

#[test]
fn the_first_clock_to_run_out_decides() {
    let running = in_state(State::Running);
    assert_eq!(
        next_expiry(&running, at(0), false),
        Some((at(30), Expiry::IdleTimeout))
    );
    assert_eq!(
        next_expiry(&running, at(50), false),
        Some((at(60), Expiry::Ttl))
    );
    assert_eq!(
        next_expiry(&running, at(0), true),
        Some((at(60), Expiry::Ttl)),
        "an open tunnel holds the idle clock"
    );
    let long = Lease {
        expires_at: None,
        ..running.clone()
    };
    assert_eq!(
        next_expiry(&long, at(599), false),
        Some((at(600), Expiry::MaxLifetime))
    );
    let never = Lease {
        times: Times::default(),
        expires_at: None,
        ends_at: None,
        ..running
    };
    assert_eq!(next_expiry(&never, at(0), false), None);
}

fn any_action() -> impl Strategy<Value = Action> {
    prop_oneof![
        Just(Action::Start),
        Just(Action::Pause),
        Just(Action::Resume),
        (0u64..1000).prop_map(|s| Action::Keepalive(Duration::from_secs(s))),
        Just(Action::Reset),
        Just(Action::Stop),
        Just(Action::Gone),
        prop_oneof![
            Just(Expiry::Ttl),
            Just(Expiry::IdleTimeout),
            Just(Expiry::MaxLifetime)
        ]
        .prop_map(Action::Expire),
    ]
}

proptest! {
    /// Whatever happens: generations only rise, stopped is final, a window never outlives the life, and a dead
    /// generation is always announced.
    #[test]
    fn any_sequence_keeps_the_invariants(actions in proptest::collection::vec((any_action(), 0u64..100), 0..40)) {
        let mut lease = Lease::new(times());
        let mut now = 0;
        for (action, pause) in actions {
            now += pause;
            let Ok((after, effects)) = step(&lease, action, at(now)) else { continue };
            prop_assert!(after.generation >= lease.generation);
            prop_assert_eq!(after.generation > lease.generation, effects.change == Some(Change::Begin));
            if lease.state == State::Stopped {
                prop_assert_eq!(&after, &lease);
            }
            let lived = matches!(lease.state, State::Running | State::Paused);
            let lives = matches!(after.state, State::Running | State::Paused);
            prop_assert_eq!(lived && !lives, matches!(effects.change, Some(Change::End(_))));
            if let (Some(window), Some(end)) = (after.expires_at, after.ends_at) {
                prop_assert!(window <= end);
            }
            prop_assert!(after == lease || effects.event.is_some(), "every transition is an event");
            lease = after;
        }
    }
}

/// The table told a second time, in seconds and without the code's own types: what the code must agree with.
#[derive(Clone, Debug, Default, PartialEq)]
struct Model {
    /// `i`dle, `r`unning, `p`aused, `s`topped.
    state: char,
    generation: u64,
    /// Seconds of window and of life that are left while it runs; both stand still while it is paused.
    window: Option<u64>,
    life: Option<u64>,
}

const MODEL_TTL: u64 = 60;
const MODEL_LIFE: u64 = 600;

impl Model {
    fn new() -> Self {
        Self {
            state: 'i',
            ..Self::default()
        }
    }

    /// Time goes by. Nobody expires it here: the sweep would say so by an action of its own.
    fn wait(&mut self, seconds: u64) {
        if self.state == 'r' {
            self.window = self.window.map(|left| left.saturating_sub(seconds));
            self.life = self.life.map(|left| left.saturating_sub(seconds));
        }
    }

    fn dead(&mut self, state: char) {
        (self.state, self.window, self.life) = (state, None, None);
    }

    /// `false` = 409.
    fn act(&mut self, action: Action) -> bool {
        match (action, self.state) {
            (Action::Start, 'i') => {
                self.state = 'r';
                self.generation += 1;
                (self.window, self.life) = (Some(MODEL_TTL), Some(MODEL_LIFE));
            }
            (Action::Pause, 'r') => self.state = 'p',
            (Action::Resume, 'p') => {
                self.state = 'r';
                self.window = self.life.map(|life| life.min(MODEL_TTL));
            }
            (Action::Keepalive(more), 'r') => {
                let most = self.life.unwrap_or(u64::MAX);
                self.window = self.window.map(|left| left.max(more.as_secs()).min(most));
            }
            (Action::Reset, 'r' | 'p') | (Action::Expire(_), 'r' | 'p') => self.dead('i'),
            (Action::Gone, 'r' | 'p') => self.dead('i'),
            (Action::Stop, 'i' | 'r' | 'p') => self.dead('s'),
            (Action::Start | Action::Resume, 'r')
            | (Action::Start | Action::Pause, 'p')
            | (Action::Gone, 'i' | 's')
            | (Action::Stop, 's') => {}
            _ => return false,
        }
        true
    }
}

proptest! {
    #[test]
    fn any_sequence_goes_as_the_model_goes(steps in proptest::collection::vec((any_action(), 0u64..50), 0..60)) {
        let (mut lease, mut model, mut now) = (Lease::new(times()), Model::new(), 0);
        for (action, pause) in steps {
            now += pause;
            model.wait(pause);
            let stepped = step(&lease, action, at(now));
            prop_assert_eq!(stepped.is_ok(), model.act(action), "{:?} in {:?}", action, lease.state);
            if let Ok((after, _)) = stepped {
                lease = after;
            }
            prop_assert!(lease.state.as_str().starts_with(model.state), "{:?} {:?}", lease, model);
            prop_assert_eq!(lease.generation, model.generation);
            if lease.state == State::Running {
                // What is over stays over until somebody says so.
                let left = |until: Option<SystemTime>| {
                    until.map(|until| until.duration_since(at(now)).unwrap_or_default().as_secs())
                };
                prop_assert_eq!(left(lease.expires_at), model.window);
                prop_assert_eq!(left(lease.ends_at), model.life);
            }
        }
    }
}
