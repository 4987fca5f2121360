//! Cells that do not disturb each other, at the same time: most of their time they wait.

use std::collections::HashMap;
use std::pin::Pin;

use tokio::task::{Id, JoinError, JoinSet, LocalSet};

/// What a cell is called, and what it does.
pub(crate) type Cell = (String, Pin<Box<dyn Future<Output = ()>>>);

/// Carries out all of them, so many at a time, and panics with the names of those that failed.
pub(crate) async fn together(cells: impl IntoIterator<Item = Cell>, most: usize) {
    let all = async {
        let mut running = JoinSet::new();
        let (mut names, mut failed) = (HashMap::<Id, String>::new(), Vec::new());
        let mut keep = |ended: Result<(Id, ()), JoinError>, names: &HashMap<Id, String>| {
            if let Err(error) = ended {
                failed.push(format!("{}: {error}", names[&error.id()]));
            }
        };
        for (name, cell) in cells {
            if running.len() == most {
                keep(running.join_next_with_id().await.unwrap(), &names);
            }
            names.insert(running.spawn_local(cell).id(), name);
        }
        while let Some(ended) = running.join_next_with_id().await {
            keep(ended, &names);
        }
        assert!(failed.is_empty(), "{failed:#?}");
    };
    LocalSet::new().run_until(all).await;
}
