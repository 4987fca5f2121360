//! Going down in order: refuse new work, ask the old to end, cut what is left.

use std::{
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::sync::watch;
use tokio_util::task::{TaskTracker, task_tracker::TaskTrackerToken};

/// How far the way down has gone.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Stage {
    /// Everything is served.
    Serving,
    /// Unready: new connections and new requests are refused.
    Refusing,
    /// Connections are told (GOAWAY, `Connection: close`); tunnels go on until the deadline.
    Draining,
    /// The deadline has passed: everything ends now.
    Forced,
}

/// The owner's end: sets the stage and waits for the tasks.
#[derive(Debug)]
pub struct Drain {
    stage: watch::Sender<Stage>,
    tasks: TaskTracker,
    services: TaskTracker,
}

/// A task's end: sees the stage, and spawns more tasks that the drain waits for.
#[derive(Clone, Debug)]
pub struct DrainWatch {
    stage: watch::Receiver<Stage>,
    tasks: TaskTracker,
    services: TaskTracker,
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            stage: watch::Sender::new(Stage::Serving),
            tasks: TaskTracker::new(),
            services: TaskTracker::new(),
        }
    }
}

impl Drain {
    /// A watch on the stage.
    pub fn watch(&self) -> DrainWatch {
        DrainWatch {
            stage: self.stage.subscribe(),
            tasks: self.tasks.clone(),
            services: self.services.clone(),
        }
    }

    /// Go down. `settle` passes between being unready and asking connections to end, so that balancers notice; then at
    /// most `deadline` for the tasks; then force. Returns how many tasks had to be cut.
    pub async fn run(&self, settle: Duration, deadline: Duration) -> usize {
        self.stage.send_replace(Stage::Refusing);
        self.tasks.close();
        self.services.close();
        if !self.tasks.is_empty() {
            tokio::time::sleep(settle).await;
        }
        self.stage.send_replace(Stage::Draining);
        let cut = match tokio::time::timeout(deadline, self.tasks.wait()).await {
            Ok(()) => 0,
            Err(_) => self.tasks.len(),
        };
        self.stage.send_replace(Stage::Forced);
        // Forced tasks only have to drop what they hold; a task stuck in a system call must not hold the process.
        let ended = async { tokio::join!(self.tasks.wait(), self.services.wait()) };
        let _ = tokio::time::timeout(Duration::from_secs(2), ended).await;
        cut
    }
}

impl DrainWatch {
    /// The stage now.
    pub fn stage(&self) -> Stage {
        *self.stage.borrow()
    }

    /// Is new work refused?
    pub fn refusing(&self) -> bool {
        self.stage() >= Stage::Refusing
    }

    /// Wait until at least `stage`. Never returns early; a dropped owner counts as forced.
    pub async fn reached(&mut self, stage: Stage) {
        let _ = self.stage.wait_for(|now| *now >= stage).await;
    }

    /// The drain waits for as long as this is held, as it does for a task.
    pub fn hold(&self) -> TaskTrackerToken {
        self.tasks.token()
    }

    /// Spawn work that the drain waits for; it is dropped at [`Stage::Forced`].
    pub fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(self.forced(task));
    }

    /// Spawn what serves the work until it is over: the drain does not wait for it. It is dropped at
    /// [`Stage::Forced`], so that sessions can still be revoked, and expire, while tunnels end.
    pub fn spawn_service(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.services.spawn(self.forced(task));
    }

    fn forced<T: Future<Output = ()> + Send + 'static>(
        &self,
        task: T,
    ) -> impl Future<Output = ()> + Send + 'static {
        let mut stage = self.stage.clone();
        Forced {
            task,
            stage: stage.clone(),
            armed: false,
            force: async move {
                let _ = stage.wait_for(|now| *now >= Stage::Forced).await;
            },
        }
    }
}

pin_project_lite::pin_project! {
    /// A task until it is forced to end. By hand, as an async block would hold the task twice.
    struct Forced<T, F> {
        #[pin]
        task: T,
        #[pin]
        force: F,
        // Read without a lock, so that `force`, whose lock all tasks share, is polled only when the stage has changed.
        stage: watch::Receiver<Stage>,
        armed: bool,
    }
}

impl<T: Future<Output = ()>, F: Future<Output = ()>> Future for Forced<T, F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.task.poll(cx).is_ready() {
            return Poll::Ready(());
        }
        // A spawned task has one waker for life: once is enough.
        let armed = std::mem::replace(this.armed, true);
        if armed && matches!(this.stage.has_changed(), Ok(false)) {
            return Poll::Pending;
        }
        this.force.poll(cx)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::{Drain, Stage};

    #[tokio::test(start_paused = true)]
    async fn a_task_that_ends_when_asked_is_not_cut() {
        let drain = Drain::default();
        let mut watch = drain.watch();
        drain
            .watch()
            .spawn(async move { watch.reached(Stage::Draining).await });
        assert_eq!(
            drain
                .run(Duration::from_millis(10), Duration::from_secs(5))
                .await,
            0
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_never_ends_is_cut_at_the_deadline() {
        let drain = Drain::default();
        drain.watch().spawn(std::future::pending());
        let start = tokio::time::Instant::now();
        assert_eq!(
            drain
                .run(Duration::from_millis(10), Duration::from_secs(5))
                .await,
            1
        );
        assert!(start.elapsed() < Duration::from_secs(6));
        assert_eq!(drain.watch().stage(), Stage::Forced);
    }

    #[tokio::test(start_paused = true)]
    async fn a_service_lives_as_long_as_there_is_work_and_is_not_waited_for() {
        let drain = Drain::default();
        let (alive, gone) = tokio::sync::oneshot::channel::<()>();
        drain.watch().spawn_service(async move {
            let _alive = alive;
            std::future::pending::<()>().await;
        });
        let mut watch = drain.watch();
        drain.watch().spawn(async move {
            watch.reached(Stage::Draining).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        });
        let start = tokio::time::Instant::now();
        let cut = drain.run(Duration::ZERO, Duration::from_secs(9)).await;
        assert_eq!(cut, 0);
        assert!(
            start.elapsed() >= Duration::from_secs(1),
            "the work was waited for"
        );
        assert!(
            gone.await.is_err(),
            "the service was dropped with the last work"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn new_work_is_refused_before_old_work_is_asked_to_end() {
        let drain = Drain::default();
        let mut watch = drain.watch();
        assert!(!watch.refusing());
        drain.watch().spawn(std::future::pending());
        let down = drain.run(Duration::from_secs(1), Duration::from_secs(1));
        tokio::pin!(down);
        tokio::select! {
            _ = &mut down => unreachable!("a task is pending"),
            () = watch.reached(Stage::Refusing) => assert_eq!(watch.stage(), Stage::Refusing),
        }
        down.await;
    }
}
