//! Time and tasks: every wait has a deadline, every task an owner.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::task::{JoinError, JoinSet};
use tokio::time::{Instant, MissedTickBehavior};

/// The longest a test waits for something that should come at once. Generous: two cores may be busy, and no test waits for its end.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// How long a test watches for something that must *not* happen.
pub const QUIET: Duration = Duration::from_millis(300);

/// Tasks that end with their owner.
#[derive(Default)]
pub struct Tasks(Mutex<Running>);

#[derive(Default)]
struct Running {
    set: JoinSet<()>,
    /// The first of those that panicked, for whoever waits for them.
    panicked: Option<JoinError>,
}

impl Running {
    fn keep(&mut self, ended: Result<(), JoinError>) {
        if let Err(error) = ended
            && error.is_panic()
        {
            self.panicked.get_or_insert(error);
        }
    }
}

impl Tasks {
    /// Runs `task` until it ends or this set is dropped.
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        let mut running = self.0.lock().expect("no task panics while holding the set");
        while let Some(ended) = running.set.try_join_next() {
            running.keep(ended);
        }
        running.set.spawn(task);
    }

    /// Waits for every task spawned so far. Where one of them has panicked, so does this, once all have ended.
    pub async fn finish(&self) {
        let mut running = std::mem::take(&mut *self.0.lock().expect("as above"));
        while let Some(ended) = running.set.join_next().await {
            running.keep(ended);
        }
        if let Some(panicked) = running.panicked {
            std::panic::resume_unwind(panicked.into_panic());
        }
    }
}

/// Awaits `future`, panicking with `what` after [`PATIENCE`].
pub async fn within<T>(what: &str, future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future)
        .await
        .unwrap_or_else(|_| panic!("not within {PATIENCE:?}: {what}"))
}

/// Awaits `future`, and answers how long it took: in time that this process had. While the machine has no time for us it has none
/// for others either, and a promise is not broken by that.
pub async fn timed<T>(future: impl Future<Output = T>) -> (T, Duration) {
    const STEP: Duration = Duration::from_millis(10);
    let mut tick = tokio::time::interval_at(Instant::now() + STEP, STEP);
    // One after the other: what was missed is not made up for.
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut future = pin!(future);
    let mut passed = Duration::ZERO;
    loop {
        tokio::select! {
            biased;
            done = &mut future => return (done, passed),
            _ = tick.tick() => passed += STEP,
        }
    }
}

/// Polls `probe`, for facts that live in another process and announce themselves to nobody.
pub async fn until<T>(what: &str, probe: impl FnMut() -> Option<T>) -> T {
    until_for(PATIENCE, what, probe).await
}

/// As [`until`], with a deadline of its own.
pub async fn until_for<T>(patience: Duration, what: &str, probe: impl FnMut() -> Option<T>) -> T {
    let found = until_within(patience, probe).await;
    found.unwrap_or_else(|| panic!("not within {patience:?}: {what}"))
}

/// As [`until_for`], for whoever can say more of what is missing.
pub(crate) async fn until_within<T>(
    patience: Duration,
    mut probe: impl FnMut() -> Option<T>,
) -> Option<T> {
    let deadline = Instant::now() + patience;
    let mut tick = tokio::time::interval(Duration::from_millis(10));
    loop {
        let found = probe();
        if found.is_some() || Instant::now() >= deadline {
            return found;
        }
        tick.tick().await;
    }
}

/// As [`until`], where looking takes a wait itself.
pub async fn until_told<T>(what: &str, mut probe: impl AsyncFnMut() -> Option<T>) -> T {
    within(what, async {
        let mut tick = tokio::time::interval(Duration::from_millis(20));
        loop {
            if let Some(found) = probe().await {
                return found;
            }
            tick.tick().await;
        }
    })
    .await
}

/// Waits until something listens on `address`.
pub async fn listening(what: &str, address: SocketAddr) {
    let deadline = Instant::now() + PATIENCE;
    let mut tick = tokio::time::interval(Duration::from_millis(20));
    while TcpStream::connect(address).await.is_err() {
        assert!(
            Instant::now() < deadline,
            "{what} never listened on {address}"
        );
        tick.tick().await;
    }
}

/// A loopback port that was free a moment ago, for programs that take a number. Below the range the kernel gives to
/// connections, and never the same twice in one process: nobody takes it in between by chance.
pub async fn free_port() -> u16 {
    const FIRST: u32 = 10_240;
    const COUNT: u32 = 20_000;
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Test binaries that run at the same time begin in different places.
    let start = std::process::id().wrapping_mul(997);
    loop {
        let step = NEXT.fetch_add(1, Ordering::Relaxed);
        let port = u16::try_from(FIRST + start.wrapping_add(step) % COUNT).unwrap();
        if TcpListener::bind(("127.0.0.1", port)).await.is_ok() {
            return port;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Tasks;

    #[tokio::test]
    #[should_panic(expected = "of a task")]
    async fn a_panic_of_a_task_is_whoevers_waits_for_it() {
        let tasks = Tasks::default();
        tasks.spawn(async { panic!("of a task") });
        // Forgotten it is not, whenever it is noticed.
        tokio::task::yield_now().await;
        tasks.spawn(async {});
        tasks.finish().await;
    }
}
