//! Every statement can be prepared against the migrated schema, and none reads a whole table where an index would do.
#![allow(clippy::unwrap_used, reason = "a test may stop at the first surprise")]

use super::{FIND, facts, open, words, write};
use crate::store::sql::{self, users};
use sqlx::{AssertSqlSafe, Pool, Row, Sqlite};

async fn explained(pool: &Pool<Sqlite>, statement: &str) -> Vec<String> {
    let query = sqlx::query(AssertSqlSafe(format!("EXPLAIN QUERY PLAN {statement}")));
    let rows = query.fetch_all(pool).await;
    let rows = rows.unwrap_or_else(|error| panic!("{error}: {statement}"));
    rows.iter().map(|row| row.get::<String, _>("detail")).collect()
}

/// Scanning these is meant: an argument's items, the handful of counters, and what is sorted by its own index.
fn is_meant(detail: &str, statement: &str) -> bool {
    let arrays = [
        "SCAN j VIRTUAL TABLE",
        "SCAN i VIRTUAL TABLE",
        "SCAN jsonb_each VIRTUAL TABLE",
        "SCAN sqlite_sequence",
        // By its words.
        "SCAN w VIRTUAL TABLE INDEX",
        // One row.
        "SCAN s",
    ];
    let derived = ["SCAN d", "SCAN (subquery", "SCAN k"];
    let starts = |prefixes: &[&str]| prefixes.iter().any(|prefix| detail.starts_with(prefix));
    starts(&arrays)
        || starts(&derived)
        // A search inside names has no index to use.
        || (statement.contains("LIKE") && detail.starts_with("SCAN u"))
        // A host asks, and seldom.
        || statement == sql::USAGE_IN_ALL
        || statement == sql::WRITTEN_BY
        // All open turns of all rooms, once, at the start: the partial index holds nothing else.
        || (detail == "SCAN t USING INDEX turns_open")
}

#[tokio::test]
async fn every_statement_is_prepared_and_uses_an_index() {
    let (pool, _) = open::open_memory().await.unwrap();
    let many = [
        facts::LOAD,
        write::WRITE_ALL,
        write::WRITE_USUAL,
        write::WRITE_USUAL_AS_ONE,
    ];
    let many = many.iter().flat_map(|text| text.split(';'));
    let one = sql::STATEMENTS.iter().copied().chain([
        users::CREATE_USER,
        users::SET_PASSWORD,
        users::REHASH,
        users::END_TOKENS,
        users::DELETE_USER,
        facts::SEQUENCES,
        FIND,
        words::WHERE,
        words::ADD,
    ]);
    for statement in many.chain(one).map(str::trim).filter(|text| !text.is_empty()) {
        for detail in explained(&pool, statement).await {
            let scans = detail.starts_with("SCAN ");
            assert!(!scans || is_meant(&detail, statement), "{detail}\n{statement}");
        }
    }
}
