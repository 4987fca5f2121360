//! The loops: many short connections, few long ones. Every answer is checked for its length.

use std::{net::SocketAddr, sync::Arc};

use anyhow::{Context, ensure};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
};

/// The body of a short request.
pub(crate) const SHORT: usize = 16;
/// One read of bulk.
const BLOCK: usize = 256 * 1024;

/// What a door says to a knock.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Answer {
    /// It opens.
    Open,
    /// 429.
    TooMany,
}

/// How to reach the origin.
#[derive(Clone, Debug)]
pub(crate) struct Door {
    dial: SocketAddr,
    /// What to send first, and be answered 200 to.
    connect: Option<Arc<str>>,
}

impl Door {
    /// By itself.
    pub(crate) fn direct(origin: SocketAddr) -> Self {
        Self {
            dial: origin,
            connect: None,
        }
    }

    /// By a proxy, with the whole head of its CONNECT.
    pub(crate) fn proxy(proxy: SocketAddr, connect: String) -> Self {
        Self {
            dial: proxy,
            connect: Some(connect.into()),
        }
    }

    /// Ask for a tunnel, and only see what becomes of it.
    pub(crate) async fn knock(&self) -> anyhow::Result<Answer> {
        let mut stream = TcpStream::connect(self.dial).await?;
        if let Some(connect) = &self.connect {
            stream.write_all(connect.as_bytes()).await?;
            let head = head(&mut stream).await?;
            if head.starts_with("HTTP/1.1 429") {
                return Ok(Answer::TooMany);
            }
            ensure!(head.starts_with("HTTP/1.1 200"), "CONNECT: {head}");
        }
        Ok(Answer::Open)
    }

    /// One request on a connection of its own. The bytes of its body.
    pub(crate) async fn fetch(&self, size: usize, buffer: &mut [u8]) -> anyhow::Result<usize> {
        let mut stream = self.open().await?;
        stream
            .write_all(format!("GIVE {size}\n").as_bytes())
            .await?;
        let mut total = 0;
        loop {
            match stream.read(buffer).await? {
                0 => break,
                n => total += n,
            }
        }
        ensure!(total == size, "{total} bytes of {size}");
        Ok(total)
    }

    async fn open(&self) -> anyhow::Result<TcpStream> {
        let mut stream = TcpStream::connect(self.dial).await?;
        stream.set_nodelay(true)?;
        if let Some(connect) = &self.connect {
            stream.write_all(connect.as_bytes()).await?;
            let head = head(&mut stream).await?;
            ensure!(head.starts_with("HTTP/1.1 200"), "CONNECT: {head}");
        }
        Ok(stream)
    }
}

/// Byte by byte: nothing behind the head may be taken.
async fn head(stream: &mut TcpStream) -> anyhow::Result<String> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        ensure!(head.len() < 8192, "a head without end");
        head.push(stream.read_u8().await.context("closed within a head")?);
    }
    Ok(String::from_utf8_lossy(&head).into_owned())
}

/// `count` connections with a short request each, `at_once` at a time.
pub(crate) async fn tunnels(door: &Door, count: usize, at_once: usize) -> anyhow::Result<()> {
    let mut workers = JoinSet::new();
    for worker in 0..at_once {
        let door = door.clone();
        let share = count / at_once + usize::from(worker < count % at_once);
        workers.spawn(async move {
            let mut buffer = [0; 512];
            for _ in 0..share {
                door.fetch(SHORT, &mut buffer).await?;
            }
            anyhow::Ok(())
        });
    }
    while let Some(worker) = workers.join_next().await {
        worker??;
    }
    Ok(())
}

/// `streams` downloads of `mebibytes` each, at the same time. The bytes of all.
pub(crate) async fn bulk(door: &Door, mebibytes: usize, streams: usize) -> anyhow::Result<usize> {
    let mut workers = JoinSet::new();
    for _ in 0..streams {
        let door = door.clone();
        workers.spawn(async move {
            let mut buffer = vec![0; BLOCK];
            door.fetch(mebibytes << 20, &mut buffer).await
        });
    }
    let mut total = 0;
    while let Some(worker) = workers.join_next().await {
        total += worker??;
    }
    Ok(total)
}
