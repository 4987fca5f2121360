//! The close matrix over sockets and over capsules: what one end does is what the other sees.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::time::Duration;

use super::{super::testing::*, How, Side, Timers, pump};
use crate::flow::{SocketFlow, TlsFlow};

const EVERY: [(&str, Carrier); 6] = [
    ("tcp", Carrier::Tcp),
    ("unix", Carrier::Unix),
    ("capsules", Carrier::Capsules),
    ("upgraded", Carrier::Upgraded),
    ("stream", Carrier::Stream),
    ("quic", Carrier::Quic),
];
/// Longer than any test takes: a hang is a failure, not a wait.
const PATIENCE: Duration = Duration::from_secs(60);

async fn within<T>(what: &str, work: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, work)
        .await
        .unwrap_or_else(|_| panic!("{what}: nothing within {PATIENCE:?}"))
}

/// The two ends of a joined way, the one that acts first.
fn ends(joined: &Joined, from_program: bool) -> (Shared, Shared) {
    let (program, service) = (joined.program.clone(), joined.service.clone());
    if from_program {
        (program, service)
    } else {
        (service, program)
    }
}

use crate::flow::Shared;

async fn hows(mut joined: Joined) -> Vec<How> {
    let mut hows = Vec::new();
    while let Some(ending) = within("pumps", joined.pumps.join_next()).await {
        hows.push(ending.unwrap().how);
    }
    hows
}

#[tokio::test]
async fn fin_is_fin_and_the_other_half_goes_on() {
    for (name, carrier) in EVERY {
        for from_program in [true, false] {
            let joined = join(&carrier).await;
            let (first, second) = ends(&joined, from_program);
            write(&first, b"question").await;
            first.shutdown().unwrap();
            let (heard, end) = within(name, read_all(&second)).await;
            assert_eq!(
                (heard.as_slice(), end.is_ok()),
                (&b"question"[..], true),
                "{name} {from_program}"
            );
            // Only now does the other half speak, for longer than any buffer.
            let answer = noise(3 << 20, 7);
            let (sent, heard) = tokio::join!(
                async {
                    write(&second, &answer).await;
                    second.shutdown().unwrap();
                },
                within(name, read_all(&first))
            );
            let () = sent;
            drop((first, second));
            let hows = hows(joined).await;
            assert!(
                heard.0 == answer && heard.1.is_ok(),
                "{name} {from_program}: {} bytes, {:?}, {hows:?}",
                heard.0.len(),
                heard.1
            );
            assert!(
                hows.iter().all(|how| *how == How::Completed),
                "{name} {from_program}: {hows:?}"
            );
        }
    }
}
#[tokio::test]
async fn a_reset_is_a_reset_in_either_direction() {
    for (name, carrier) in EVERY {
        for from_program in [true, false] {
            let joined = join(&carrier).await;
            let (first, second) = ends(&joined, from_program);
            // A unix peer can be reset only once it has written something.
            write(&first, b"hello").await;
            assert_eq!(within(name, read_exactly(&second, 5)).await, b"hello");
            write(&second, b"there").await;
            if name != "unix" {
                assert_eq!(within(name, read_exactly(&first, 5)).await, b"there");
            }
            let Joined {
                program,
                service,
                pumps,
                drivers,
            } = joined;
            drop((program, service));
            abort(first);
            let (_, end) = within(name, read_all(&second)).await;
            assert_reset(end, &format!("{name}, program first: {from_program}"));
            drop((pumps, drivers));
        }
    }
}

#[tokio::test]
async fn a_reset_after_the_fin_is_still_a_reset() {
    for (name, carrier) in EVERY.into_iter().filter(|(name, _)| *name != "unix") {
        for from_program in [true, false] {
            let joined = join(&carrier).await;
            let (first, second) = ends(&joined, from_program);
            write(&first, b"last words").await;
            first.shutdown().unwrap();
            let (heard, end) = within(name, read_all(&second)).await;
            assert!(heard == b"last words" && end.is_ok());
            let Joined {
                program,
                service,
                pumps,
                drivers,
            } = joined;
            drop((program, service));
            abort(first);
            // Nothing more is read by the one that is left: the reset shows in its writes.
            let broken = within(name, async {
                loop {
                    if let Err(error) = second.ready(tokio::io::Interest::ERROR).await {
                        return error.kind();
                    }
                    if let Ok(Some(error)) = taken_error(&second) {
                        return error.kind();
                    }
                }
            });
            let kind = broken.await;
            assert!(
                matches!(
                    kind,
                    std::io::ErrorKind::ConnectionReset | std::io::ErrorKind::BrokenPipe
                ),
                "{name} {from_program}: {kind:?}"
            );
            drop((pumps, drivers));
        }
    }
}

fn taken_error(socket: &Shared) -> std::io::Result<Option<std::io::Error>> {
    match socket {
        Shared::Tcp(stream) => stream.take_error(),
        Shared::Unix(stream) => stream.take_error(),
    }
}

#[tokio::test]
async fn a_path_that_dies_resets_both_ends() {
    for carrier in [Carrier::Capsules, Carrier::Quic] {
        let joined = join(&carrier).await;
        write(&joined.program, b"hello").await;
        assert_eq!(read_exactly(&joined.service, 5).await, b"hello");
        let Joined {
            program,
            service,
            pumps,
            drivers,
        } = joined;
        drop(drivers);
        assert_reset(within("program", read_all(&program)).await.1, "program");
        assert_reset(within("service", read_all(&service)).await.1, "service");
        drop(pumps);
    }
}

#[tokio::test]
async fn a_pump_that_is_dropped_resets_both_ends() {
    for (name, carrier) in EVERY {
        let joined = join(&carrier).await;
        write(&joined.program, b"hello").await;
        assert_eq!(
            within(name, read_exactly(&joined.service, 5)).await,
            b"hello"
        );
        write(&joined.service, b"there").await;
        assert_eq!(
            within(name, read_exactly(&joined.program, 5)).await,
            b"there"
        );
        let Joined {
            program,
            service,
            pumps,
            drivers: _drivers,
        } = joined;
        drop(pumps);
        assert_reset(within(name, read_all(&program)).await.1, name);
        assert_reset(within(name, read_all(&service)).await.1, name);
    }
}

#[tokio::test]
async fn what_is_not_taken_is_not_read() {
    for (name, carrier) in EVERY {
        let joined = join(&carrier).await;
        let flood = noise(64 << 10, 3);
        let mut sent = 0usize;
        // The service reads nothing: at some point the program's socket takes nothing either.
        while let Ok(()) =
            tokio::time::timeout(Duration::from_millis(300), write(&joined.program, &flood)).await
        {
            sent += flood.len();
            assert!(sent < 64 << 20, "{name}: no backpressure");
        }
        let (program, service) = (joined.program.clone(), joined.service.clone());
        let Joined {
            pumps: _pumps,
            drivers: _drivers,
            ..
        } = joined;
        drop(program);
        let heard = within(name, read_exactly(&service, sent)).await;
        assert!(
            heard.chunks(flood.len()).all(|part| part == flood),
            "{name}: what was taken arrives"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn silence_ends_in_a_cut_and_half_close_has_its_own_patience() {
    let (long, short) = (Duration::from_secs(60), Duration::from_secs(5));
    for (half_closed, idle, half_close, limit) in [
        (false, Some(long), Some(short), long),
        (true, Some(long), Some(short), short),
        // A longer one takes nothing from the other.
        (true, Some(short), Some(long), short),
        (true, Some(short), None, short),
        (true, None, Some(short), short),
    ] {
        let timers = Timers { idle, half_close };
        let ((program, near), (far, _service)) = (pair(false).await, pair(false).await);
        if half_closed {
            program.shutdown().unwrap();
        }
        let start = tokio::time::Instant::now();
        let (mut a, mut b) = (SocketFlow::new(near), SocketFlow::new(far));
        let ending = pump(&mut a, &mut b, timers, &()).await;
        assert_eq!((ending.how, ending.by), (How::Idle, None));
        assert!(
            start.elapsed() >= limit && start.elapsed() < limit * 2,
            "{:?}",
            start.elapsed()
        );
        drop((a, b));
        assert_reset(read_all(&program).await.1, "idle");
    }
}

/// The answer to a request that ends in FIN may take as long as it takes, while it comes.
#[tokio::test(start_paused = true)]
async fn a_half_close_bounds_silence_and_not_an_answer() {
    let ((program, near), (far, service)) = (pair(false).await, pair(false).await);
    program.shutdown().unwrap();
    let answering = async {
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(2)).await;
            write(&service, b"x").await;
        }
        service.shutdown().unwrap();
    };
    let (mut a, mut b) = (SocketFlow::new(near), SocketFlow::new(far));
    let timers = Timers {
        idle: None,
        half_close: Some(Duration::from_secs(5)),
    };
    let (ending, ()) = tokio::join!(pump(&mut a, &mut b, timers, &()), answering);
    assert_eq!(ending.how, How::Completed);
    drop((a, b));
    assert_eq!(read_all(&program).await.0, b"xxxxxxxxxx");
}

struct Allowance(std::sync::atomic::AtomicUsize);

impl super::Meter for Allowance {
    fn moved(&self, from: Side, bytes: usize) -> bool {
        assert_eq!(from, Side::A);
        let left = self.0.load(std::sync::atomic::Ordering::Relaxed);
        self.0.store(
            left.saturating_sub(bytes),
            std::sync::atomic::Ordering::Relaxed,
        );
        left >= bytes
    }
}

#[tokio::test]
async fn a_meter_can_stop_it() {
    let ((program, near), (far, service)) = (pair(false).await, pair(false).await);
    write(&program, &[0; 100]).await;
    let (mut a, mut b) = (SocketFlow::new(near), SocketFlow::new(far));
    let ending = pump(&mut a, &mut b, Timers::default(), &Allowance(50.into())).await;
    assert_eq!(ending.how, How::Stopped);
    drop((a, b));
    assert_reset(read_all(&service).await.1, "stopped");
}

/// Lets a hundred bytes of either side go every second.
struct Slow;

impl super::Meter for Slow {
    fn moved(&self, _: Side, _: usize) -> bool {
        true
    }

    fn pace(&self, _: Side, bytes: usize) -> Option<super::Pacing> {
        Some(super::Pacing::new(async move {
            tokio::time::sleep(Duration::from_secs(1)).await;
            bytes.min(100)
        }))
    }
}

#[tokio::test(start_paused = true)]
async fn a_pace_is_kept_from_the_first_byte_and_waiting_is_no_silence() {
    let ((program, near), (far, service)) = (pair(false).await, pair(false).await);
    for end in [&program, &service] {
        write(end, &[7; 1000]).await;
        end.shutdown().unwrap();
    }
    let (mut a, mut b) = (SocketFlow::new(near), SocketFlow::new(far));
    let timers = Timers {
        idle: Some(Duration::from_millis(500)),
        half_close: None,
    };
    let start = tokio::time::Instant::now();
    let ending = pump(&mut a, &mut b, timers, &Slow).await;
    assert_eq!(ending.how, How::Completed);
    let took = start.elapsed();
    assert!(took >= Duration::from_secs(10), "{took:?}");
    for end in [&program, &service] {
        assert_eq!(read_all(end).await.0, vec![7; 1000]);
    }
}

/// There is no limit while bytes wait, and the whole of it when they have gone.
#[tokio::test(start_paused = true)]
async fn silence_is_counted_from_when_the_last_waiting_byte_went() {
    let (mut a, mut b) = (Watched::default(), Watched::default());
    a.gives.push_back(bytes::Bytes::from_static(&[7; 200]));
    let taken = b.taken.clone();
    let timers = Timers {
        idle: Some(Duration::from_secs(5)),
        half_close: None,
    };
    let start = tokio::time::Instant::now();
    let pumped = pump(&mut a, &mut b, timers, &Slow);
    let ending = tokio::time::timeout(Duration::from_secs(3600), pumped).await;
    assert_eq!(ending.unwrap().how, How::Idle);
    // A second for each hundred.
    assert_eq!(start.elapsed().as_secs(), 7);
    assert_eq!(*taken.lock().unwrap(), [[7_u8; 100].as_slice(); 2]);
}

/// Of a flow that keeps within a bandwidth by itself.
struct Inside;

impl super::Meter for Inside {
    fn moved(&self, _: Side, _: usize) -> bool {
        true
    }

    fn waits(&self) -> bool {
        true
    }
}

#[tokio::test(start_paused = true)]
async fn what_waits_inside_a_flow_is_not_silent_either() {
    let ((_program, near), (far, _service)) = (pair(false).await, pair(false).await);
    let (mut a, mut b) = (SocketFlow::new(near), SocketFlow::new(far));
    let timers = Timers {
        idle: Some(Duration::from_secs(1)),
        half_close: None,
    };
    let pumped = pump(&mut a, &mut b, timers, &Inside);
    let hour = Duration::from_secs(3600);
    assert!(tokio::time::timeout(hour, pumped).await.is_err());
}

#[test]
fn flows_are_small_when_idle() {
    assert!(
        size_of::<SocketFlow>() <= 160,
        "{}",
        size_of::<SocketFlow>()
    );
    assert!(
        size_of::<crate::flow::CapsuleFlow>() <= 320,
        "{}",
        size_of::<crate::flow::CapsuleFlow>()
    );
    // Nearly all of it is rustls'.
    assert!(size_of::<TlsFlow>() <= 2048, "{}", size_of::<TlsFlow>());
}
