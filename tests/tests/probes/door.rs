//! A way to a service that can lead elsewhere, or nowhere, while its address stays: nobody else gets its port meanwhile.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use e2e::Tasks;
use tokio::io::copy_bidirectional;
use tokio::net::{TcpListener, TcpStream};

/// The way. It ends when dropped.
pub(crate) struct Door {
    /// Where it begins.
    pub(crate) address: SocketAddr,
    to: Arc<Mutex<Option<SocketAddr>>>,
    _tasks: Tasks,
}

impl Door {
    pub(crate) async fn to(service: SocketAddr) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.unwrap();
        let address = listener.local_addr().unwrap();
        let to = Arc::new(Mutex::new(Some(service)));
        let (leads, tasks) = (Arc::clone(&to), Tasks::default());
        tasks.spawn(async move {
            let visitors = Tasks::default();
            while let Ok((mut stream, _)) = listener.accept().await {
                let leads = *leads.lock().unwrap();
                visitors.spawn(async move {
                    let Some(to) = leads else { return };
                    if let Ok(mut service) = TcpStream::connect(to).await {
                        let _ = copy_bidirectional(&mut stream, &mut service).await;
                    }
                });
            }
        });
        Self {
            address,
            to,
            _tasks: tasks,
        }
    }

    /// Whoever comes from now on is led there; `None`: is turned away.
    pub(crate) fn leads(&self, to: Option<SocketAddr>) {
        *self.to.lock().unwrap() = to;
    }
}
