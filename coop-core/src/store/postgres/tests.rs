//! Every statement can be prepared against the migrated schema, and none reads a whole table where an index would do.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::{PostgresStore, facts, open, others, write};
use crate::store::RoomStore;
use crate::store::sql::{self, users};
use crate::testing::postgres::shared;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Executor, Row};

/// Prepares a statement with as many parameters as it has, and tells how it would be run.
async fn explained(connection: &mut PgConnection, statement: &str) -> Vec<String> {
    let parameters = (1..=20)
        .take_while(|number| statement.contains(&format!("${number}")))
        .count();
    let nothing = vec!["NULL"; parameters].join(", ");
    let arguments = if parameters == 0 {
        String::new()
    } else {
        format!("({nothing})")
    };
    let prepare = format!("PREPARE tried AS {statement}");
    let prepared = connection.execute(sqlx::raw_sql(AssertSqlSafe(prepare))).await;
    prepared.unwrap_or_else(|error| panic!("{error}: {statement}"));
    let explain = format!("EXPLAIN (COSTS OFF) EXECUTE tried {arguments}");
    let rows = connection.fetch_all(sqlx::raw_sql(AssertSqlSafe(explain))).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error}: {statement}"));
    connection.execute(sqlx::raw_sql("DEALLOCATE tried")).await.unwrap();
    rows.iter().map(|row| row.get::<String, _>(0)).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn every_statement_is_prepared_and_uses_an_index() {
    let Some(cluster) = shared("every_statement_is_prepared_and_uses_an_index") else {
        return;
    };
    let url = cluster.database();
    let store = PostgresStore::open(&url).await.unwrap();
    let mut connection = PgConnection::connect_with(&open::connecting(&url).unwrap())
        .await
        .unwrap();
    let all = sql::STATEMENTS.iter().copied().chain([
        users::CREATE_USER,
        users::SET_PASSWORD,
        users::REHASH,
        users::END_TOKENS,
        users::DELETE_USER,
        facts::LOAD,
        facts::MANY,
        write::USUAL,
        write::DISCOUNTS,
        write::UPDATED,
        write::CHECKPOINTS,
        write::REMOVED,
        write::DELETED,
        write::SETTINGS,
        write::RECEIPTS,
        write::USAGE,
        write::STOPS,
        others::IDENTITY,
        others::NOW,
        others::CHANGES,
        others::ENLIST,
        others::RENEW,
        others::LEAVE,
        others::OPEN,
        others::OWNED,
    ]);
    for statement in all {
        let plan = explained(&mut connection, statement).await;
        for line in &plan {
            let meant = statement.contains("LIKE") && line.contains("Seq Scan on users")
                // A handful of rows: one for each server, one for each thing that ended today.
                || line.contains("Seq Scan on engines") || (line.contains("Seq Scan on endings") && statement == others::RENEW);
            assert!(
                !line.contains("Seq Scan") || meant,
                "{line}\n{statement}\n{}",
                plan.join("\n")
            );
        }
    }
    store.close().await;
}
