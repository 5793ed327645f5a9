use coop_core::store::sqlite::SqliteStore;
use coop_core::testing::store::store_contract;
use std::sync::atomic::{AtomicU32, Ordering};

#[tokio::test]
async fn a_file_keeps_the_contract() {
    let folder = tempfile::tempdir().unwrap();
    let count = AtomicU32::new(0);
    store_contract(|| {
        let path = folder
            .path()
            .join(format!("{}.db", count.fetch_add(1, Ordering::Relaxed)));
        async move { SqliteStore::open(path).await.unwrap() }
    })
    .await;
}

#[tokio::test]
async fn memory_keeps_the_contract() {
    store_contract(|| async { SqliteStore::memory().await.unwrap() }).await;
}
