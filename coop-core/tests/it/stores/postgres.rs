//! What is particular to a PostgreSQL database.

use coop_core::store::postgres::PostgresStore;
use coop_core::testing::postgres::{Cluster, shared};
use coop_core::testing::store::store_contract;

#[tokio::test(flavor = "multi_thread")]
async fn a_database_keeps_the_contract() {
    let Some(cluster) = shared("a_database_keeps_the_contract") else {
        return;
    };
    store_contract(|| async { open(cluster).await }).await;
}

async fn open(cluster: &Cluster) -> PostgresStore {
    PostgresStore::open(&cluster.database()).await.unwrap()
}
