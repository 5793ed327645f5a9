//! The database's schema: showing where it stands and bringing it up to date.

use super::{Fault, print};
use crate::config::{Config, Database};
use coop_core::store::{SchemaStep, connect};

/// Prints the steps of the schema, or only those that are still to be taken.
pub(super) async fn show(config: &Config, only_pending: bool) -> Result<(), Fault> {
    let steps = steps(&config.database).await?;
    for step in steps.iter().filter(|step| !(only_pending && step.applied)) {
        print(&line(step))?;
    }
    Ok(())
}

/// Takes the steps that are to be taken, and prints them.
pub(super) async fn migrate(config: &Config) -> Result<(), Fault> {
    let database = &config.database;
    let before = steps(database).await?;
    let store = connect::connect(&database.address()).await;
    store.map_err(|error| Fault::opening(database, &error))?.close().await;
    let was_pending = |step: &SchemaStep| {
        before
            .iter()
            .any(|other| other.version == step.version && !other.applied)
    };
    let taken: Vec<_> = steps(database).await?.into_iter().filter(was_pending).collect();
    taken.iter().map(line).try_for_each(|line| print(&line))?;
    if taken.is_empty() {
        eprintln!("The schema is up to date.");
    }
    Ok(())
}

async fn steps(database: &Database) -> Result<Vec<SchemaStep>, Fault> {
    database.is_there().map_err(Fault::Usage)?;
    let steps = connect::schema(&database.address()).await;
    steps.map_err(|error| Fault::opening(database, &error))
}

fn line(step: &SchemaStep) -> String {
    let state = if step.applied { "applied" } else { "pending" };
    format!("{:04}\t{state}\t{}", step.version, step.description)
}
