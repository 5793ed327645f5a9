//! Every store keeps the shipped contract; what is particular to one of them stands in its own file.

#[cfg(feature = "postgres")]
mod postgres;
#[cfg(feature = "sqlite")]
mod sqlite;
#[cfg(feature = "postgres")]
mod tls;

use coop_core::mutant::{self, Mutant};
use coop_core::store::memory::MemoryStore;
use coop_core::testing::store::store_contract;

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract() {
    store_contract(|| async { MemoryStore::new() }).await;
}

#[tokio::test]
async fn the_store_in_memory_keeps_the_contract_among_others() {
    store_contract(|| async { MemoryStore::new().join() }).await;
}

#[test]
fn a_store_without_one_of_its_safety_mechanisms_breaks_the_contract() {
    for mutant in [
        Mutant::ClientIdLookup,
        Mutant::BodyHash,
        Mutant::EndOnce,
        Mutant::AskWithTurn,
    ] {
        let tried = std::panic::catch_unwind(|| {
            let _removed = mutant::remove(mutant);
            let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
            runtime.block_on(store_contract(|| async { MemoryStore::new() }));
        });
        assert!(tried.is_err(), "nothing notices that {mutant:?} is gone");
    }
}
