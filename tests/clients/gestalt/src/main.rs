//! The Gestalt SDK's own cache provider and cache client, as two commands of one program.
//!
//! `gestalt-cache serve` listens on `GESTALT_PROVIDER_SOCKET`; `gestalt-cache use [BINDING]` dials
//! `GESTALT_HOST_SERVICE_SOCKET` and checks what comes back. Everything on the wire is the SDK's.

use std::collections::BTreeMap;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use gestalt::{CacheProvider, CacheSetOptions};
use tokio::sync::Mutex;

/// Values in memory: the plainest provider that can tell a touched key from a missing one.
#[derive(Default)]
struct MemoryCache {
    values: Mutex<BTreeMap<String, Vec<u8>>>,
}

#[gestalt::async_trait]
impl CacheProvider for MemoryCache {
    async fn get(&self, key: &str) -> gestalt::Result<Option<Vec<u8>>> {
        Ok(self.values.lock().await.get(key).cloned())
    }

    async fn set(&self, key: &str, value: &[u8], _: CacheSetOptions) -> gestalt::Result<()> {
        let mut values = self.values.lock().await;
        values.insert(key.to_owned(), value.to_vec());
        Ok(())
    }

    async fn delete(&self, key: &str) -> gestalt::Result<bool> {
        Ok(self.values.lock().await.remove(key).is_some())
    }

    async fn touch(&self, key: &str, _: Duration) -> gestalt::Result<bool> {
        Ok(self.values.lock().await.contains_key(key))
    }
}

fn text(error: impl std::fmt::Debug) -> String {
    format!("{error:?}")
}

fn check(fact: bool, what: &str) -> Result<(), String> {
    fact.then_some(()).ok_or_else(|| format!("not so: {what}"))
}

/// A 300 KiB value crosses many DATA frames and more than one default window's worth of small ones.
async fn exercise(binding: Option<&str>) -> Result<(), String> {
    let connected = match binding {
        Some(binding) => gestalt::Cache::connect_named(binding).await,
        None => gestalt::Cache::connect().await,
    };
    let mut cache = connected.map_err(text)?;
    let ttl = Some(Duration::from_secs(60));
    let large: Vec<u8> = (0..300_u32 * 1024).map(|i| (i % 251) as u8).collect();
    let missing = cache.get("absent".into()).await.map_err(text)?;
    check(missing.is_none(), "an absent key is not found")?;
    let set = cache.set("large".into(), large.clone(), ttl).await;
    set.map_err(text)?;
    let found = cache.get("large".into()).await.map_err(text)?;
    check(found == Some(large), "the large value comes back whole")?;
    check(
        cache.touch("large".into(), ttl).await.map_err(text)?,
        "a present key is touched",
    )?;
    check(
        cache.delete("large".into()).await.map_err(text)?,
        "a present key is deleted",
    )?;
    check(
        !cache.delete("large".into()).await.map_err(text)?,
        "a deleted key is gone",
    )?;
    println!("cache ok");
    Ok(())
}

#[tokio::main]
async fn main() -> ExitCode {
    // The dependency graph may hold two providers; an implicit default would panic then.
    let _ = rustls::crypto::ring::default_provider().install_default();
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    let outcome = match arguments.as_slice() {
        ["serve"] => gestalt::runtime_impl::serve_cache_provider(Arc::new(MemoryCache::default()))
            .await
            .map_err(text),
        ["use"] => exercise(None).await,
        ["use", binding] => exercise(Some(binding)).await,
        _ => Err("usage: gestalt-cache serve | use [BINDING]".to_owned()),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("gestalt-cache: {reason}");
            ExitCode::FAILURE
        }
    }
}
