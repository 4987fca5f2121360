//! Who comes in: nobody is kept whose process is not ours, and no more than there is room for.

use std::{
    io,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{Listener, is_ours};
use crate::flow::Shared;

/// So many at a time are asked whose they are. The others wait in the kernel, where they cost this process nothing.
const HALL: usize = 16;
/// That there is no room is said this often at most.
const SAID: Duration = Duration::from_secs(60);

/// A listener, and the room behind it.
pub(crate) struct Door {
    listener: Listener,
    any_uid: bool,
    hall: Arc<Semaphore>,
    room: Arc<Semaphore>,
    said: Option<Instant>,
}

/// Somebody has come, and it is not known yet who.
pub(crate) struct Visitor {
    socket: Shared,
    any_uid: bool,
    place: Place,
    /// Given back as soon as it is known.
    hall: OwnedSemaphorePermit,
}

/// One connection's place. Dropping it gives it back.
pub(crate) struct Place {
    _room: OwnedSemaphorePermit,
}

/// Who it was.
pub(crate) enum Came {
    /// A process of our own user's, or one of anybody's where anybody may come.
    Ours(Shared, Place),
    /// Another user's, who has no place.
    Stranger(Shared),
}

impl Door {
    /// With room for so many at a time.
    pub(crate) fn new(listener: Listener, any_uid: bool, most: usize) -> Self {
        let room = |most: usize| Arc::new(Semaphore::new(most.min(Semaphore::MAX_PERMITS)));
        Self {
            listener,
            any_uid,
            hall: room(HALL),
            room: room(most),
            said: None,
        }
    }

    /// The next one, once there is room.
    ///
    /// # Errors
    /// As [`Listener::accept`].
    pub(crate) async fn visitor(&mut self) -> io::Result<Visitor> {
        let gone = |_| io::Error::from(io::ErrorKind::NotConnected);
        if self.room.available_permits() == 0 && self.said.is_none_or(|said| said.elapsed() > SAID)
        {
            self.said = Some(Instant::now());
            tracing::warn!("as many connections as there is room for: the next ones wait");
        }
        let room = self.room.clone().acquire_owned().await.map_err(gone)?;
        let hall = self.hall.clone().acquire_owned().await.map_err(gone)?;
        Ok(Visitor {
            socket: self.listener.accept().await?,
            any_uid: self.any_uid,
            place: Place { _room: room },
            hall,
        })
    }
}

impl Visitor {
    /// Who is it?
    pub(crate) async fn known(self) -> Came {
        let ours = self.any_uid || is_ours(&self.socket).await;
        drop(self.hall);
        if ours {
            Came::Ours(self.socket, self.place)
        } else {
            Came::Stranger(self.socket)
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::panic, clippy::unwrap_used)]

    use std::time::Duration;

    use tokio::{
        net::{TcpListener, TcpStream},
        time::timeout,
    };

    use super::{Came, Door};
    use crate::listen::Listener;

    #[tokio::test]
    async fn whoever_finds_no_room_waits_outside() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut door = Door::new(Listener::Tcp(listener), false, 1);
        let _one = TcpStream::connect(address).await.unwrap();
        let _two = TcpStream::connect(address).await.unwrap();
        let Came::Ours(_socket, place) = door.visitor().await.unwrap().known().await else {
            panic!("it is our own");
        };
        let second = timeout(Duration::from_millis(50), door.visitor()).await;
        assert!(second.is_err(), "there is no room");
        drop(place);
        let second = timeout(Duration::from_secs(60), door.visitor()).await;
        assert!(second.unwrap().is_ok());
    }
}
