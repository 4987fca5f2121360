//! While the command runs: what is sent to us is passed on, and its stops and its end are ours.

use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::UnixStream,
    process::Child,
    time::timeout,
};

use super::{
    confinement::{IsolateError, step},
    control::Told,
    ended::{Ended, Keys},
    signals::{Listening, stop_alone},
    terminal::Terminal,
};

/// A signal to all of a group has reached each of them within this time.
const KEY: Duration = Duration::from_millis(200);

/// Until the command ends: signals to us are passed on to it, and when it stops, so do we.
pub(super) async fn attend(
    outer: &mut Child,
    signals: &mut Listening,
    inner: &mut UnixStream,
    mut terminal: Option<&mut Terminal>,
) -> Result<Ended, IsolateError> {
    let mut keys = Keys::default();
    let mut ended_by = None;
    loop {
        // What it says comes before its end.
        let orders = tokio::select! {
            heard = signals.next() => {
                keys.note(heard);
                vec![heard.order()]
            }
            told = told(inner) => match (told, &mut terminal) {
                (Some(Told::Stopped(signal)), Some(terminal)) => terminal.stopped(signal, signals).await,
                // Without a terminal nobody waits for it to stop: it stays so until it is told to go on.
                (Some(Told::Stopped(_)), None) => Vec::new(),
                (Some(Told::Ended(signal)), _) => {
                    ended_by = Some(signal.into());
                    Vec::new()
                }
                (None, _) => break,
            },
        };
        for order in orders {
            // It may have ended just now.
            let _ = inner.write_all(&[order.byte()]).await;
        }
    }
    // Nobody is left who could say anything, nor go on.
    let ended = outer.wait().await.map_err(step("the command's end"))?;
    let past_us = terminal.is_some_and(|terminal| terminal.is_lent());
    Ok(keys.end(ended, ended_by, past_us))
}

/// The next thing; `None` where that was all.
async fn told(inner: &mut UnixStream) -> Option<Told> {
    let byte = inner.read_u8().await.ok()?;
    Some(Told::of(byte))
}

/// The same for a command that is our own child, in our own group: it has what the terminal sends.
pub(super) async fn wait(
    child: &mut Child,
    signals: &mut Listening,
) -> Result<Ended, IsolateError> {
    let mut keys = Keys::default();
    loop {
        tokio::select! {
            ended = child.wait() => {
                let ended = ended.map_err(step("the command's end"))?;
                // A key that has ended it is ours as well, and may be heard of a moment later.
                if keys.misses(ended)
                    && let Ok(heard) = timeout(KEY, signals.next()).await
                {
                    keys.note(heard);
                }
                return Ok(keys.end_of_child(ended));
            }
            heard = signals.next() => {
                keys.note(heard);
                if !heard.from_the_terminal {
                    send(child, heard.signal);
                }
                if heard.is(Signal::SIGTSTP) {
                    stop_alone(Signal::SIGTSTP);
                }
            }
        }
    }
}

fn send(child: &Child, signal: u8) {
    let pid = child.id().and_then(|id| id.try_into().ok());
    let pid = pid.and_then(rustix::process::Pid::from_raw);
    let signal = rustix::process::Signal::from_named_raw(signal.into());
    if let (Some(pid), Some(signal)) = (pid, signal) {
        let _ = rustix::process::kill_process(pid, signal);
    }
}
