//! What this engine can know of the others: what they have committed, whether they are alive, what they ask of it.

use super::fault::fault;
use super::{Engine, PostgresStore};
use crate::error::{Error, Result};
use crate::id::{RoomId, Seq, TurnId, UserId};
use crate::model::TurnEnd;
use crate::store::sql::{Reads, columns, get, width};
use crate::store::{Changes, LEASE, Left, Look, OpenTurn, Others, Whose};
use async_trait::async_trait;
use sqlx::Postgres;
use sqlx::postgres::PgRow;
use tokio::time::timeout;

/// Where the next look begins: at the oldest transaction that is under way now. It is taken in the statement that reads,
/// so that both are of one moment.
macro_rules! xmin {
    () => {
        "pg_snapshot_xmin(pg_current_snapshot())::TEXT::BIGINT"
    };
}

pub(super) const IDENTITY: &str = "SELECT id::TEXT FROM identity WHERE one";

pub(super) const NOW: &str = concat!("SELECT ", xmin!());

/// 0 the next look; 1 a room and its newest event; 2 somebody who has joined a room; 3 a room that is gone; 4 somebody
/// whose tokens have ended; 5 somebody who has left a room, when, and by whom.
pub(super) const CHANGES: &str = concat!(
    "SELECT 0::BIGINT, ",
    xmin!(),
    ", 0::BIGINT, 0::BIGINT, 0::BIGINT UNION ALL SELECT 1, e.chat_id, MAX(e.seq), 0, 0 FROM events e WHERE e.xid >= $1 GROUP \
     BY e.chat_id UNION ALL SELECT CASE e.kind WHEN 'member_joined' THEN 2 ELSE 5 END, e.chat_id, e.user_id, e.seq, e.by_id \
     FROM events e WHERE e.xid >= $1 AND e.kind IN ('member_joined', 'member_left') UNION ALL SELECT CASE WHEN n.chat_id IS \
     NULL THEN 4 ELSE 3 END, COALESCE(n.chat_id, n.user_id), 0, 0, 0 FROM endings n WHERE n.xid >= $1",
);

pub(super) const ENLIST: &str =
    "INSERT INTO engines (lease_until) VALUES (clock_timestamp() + make_interval(secs => $1)) RETURNING id";

/// Also forgets what nobody will look for any more. An engine that was struck off because it was away for a day is back.
pub(super) const RENEW: &str = "WITH forgotten AS (DELETE FROM endings WHERE at < clock_timestamp() - INTERVAL '1 day'), dead \
     AS (DELETE FROM engines e WHERE e.id <> $1 AND e.lease_until < clock_timestamp() - INTERVAL '1 day' AND NOT EXISTS \
     (SELECT 1 FROM turns t WHERE t.owner = e.id AND t.status IN ('queued', 'streaming'))) INSERT INTO engines (id, lease_until) \
     OVERRIDING SYSTEM VALUE VALUES ($1, clock_timestamp() + make_interval(secs => $2)) ON CONFLICT (id) DO UPDATE SET \
     lease_until = excluded.lease_until";

pub(super) const LEAVE: &str = "DELETE FROM engines WHERE id = $1";

pub(super) const OPEN: &str = concat!(
    "SELECT ",
    columns!(turn),
    ", t.owner = $1, n.id IS NOT NULL, t.stop FROM turns t LEFT JOIN engines n ON n.id = t.owner AND n.lease_until > \
     clock_timestamp() WHERE t.status IN ('queued', 'streaming') ORDER BY t.chat_id, t.id"
);

pub(super) const OWNED: &str = "SELECT t.owner = $2 FROM turns t WHERE t.id = $1";

fn late<E>(_: E) -> Error {
    Error::unavailable("the database does not answer")
}

impl PostgresStore {
    pub(super) async fn enlist(&self) -> Result<Engine> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let query = sqlx::query_scalar(ENLIST).bind(LEASE.as_secs_f64());
        let id = timeout(self.patience, query.fetch_one(begun.connection())).await;
        let id = id.map_err(late)?.map_err(fault)?;
        begun.commit().await?;
        Ok(Engine(id))
    }

    pub(super) async fn leave(&self) -> Result<()> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let query = sqlx::query(LEAVE).bind(self.engine.0);
        let left = timeout(self.patience, query.execute(begun.connection())).await;
        left.map_err(late)?.map_err(fault)?;
        begun.commit().await
    }

    async fn looked(&self, since: Look) -> Result<Changes> {
        let query = sqlx::query(CHANGES).bind(since.0);
        let rows = timeout(self.patience, query.fetch_all(&self.reads.pool)).await;
        let mut changes = Changes {
            next: since,
            ..Changes::default()
        };
        for row in rows.map_err(late)?.map_err(fault)? {
            let number = |at| get::<i64, Postgres>(&row, at);
            let (one, other) = (number(1)?, number(2)?);
            match number(0)? {
                0 => changes.next = Look(one),
                1 => changes.rooms.push((RoomId(one), Seq(other))),
                2 => changes.joined.push((RoomId(one), UserId(other))),
                3 => changes.gone.push(RoomId(one)),
                5 => changes.left.push(Left {
                    room: RoomId(one),
                    user: UserId(other),
                    seq: Seq(number(3)?),
                    by: UserId(number(4)?),
                }),
                _ => changes.tokens_ended.push(UserId(one)),
            }
        }
        Ok(changes)
    }

    fn open_turn(row: &PgRow) -> Result<OpenTurn> {
        let (mine, alive) = (
            get::<bool, Postgres>(row, width::TURN)?,
            get::<bool, Postgres>(row, width::TURN + 1)?,
        );
        let stop: Option<String> = get::<_, Postgres>(row, width::TURN + 2)?;
        let stop = stop.map(|json| serde_json::from_str::<TurnEnd>(&json)).transpose();
        Ok(OpenTurn {
            info: Reads::<Postgres>::turn_row(row, 0)?.info,
            whose: match (mine, alive) {
                (true, _) => Whose::Mine,
                (false, true) => Whose::Anothers,
                (false, false) => Whose::Nobodys,
            },
            stop: stop.map_err(|error| {
                Error::internal("the store holds something this program cannot read").with_source(error)
            })?,
        })
    }
}

#[async_trait]
impl Others for PostgresStore {
    async fn identity(&self) -> Result<String> {
        let query = sqlx::query_scalar(IDENTITY).fetch_one(&self.reads.pool);
        timeout(self.patience, query).await.map_err(late)?.map_err(fault)
    }

    async fn now(&self) -> Result<Look> {
        let query = sqlx::query_scalar(NOW).fetch_one(&self.reads.pool);
        Ok(Look(timeout(self.patience, query).await.map_err(late)?.map_err(fault)?))
    }

    async fn changes(&self, since: Look) -> Result<Changes> {
        match self.looked(since).await {
            // A connection that the server has ended meanwhile; another has a try before this counts as a failure.
            Err(error) if super::is_stale(&error) => self.looked(since).await,
            looked => looked,
        }
    }

    async fn renew(&self) -> Result<()> {
        let (mut begun, _) = self.writers.begin(None).await?;
        let query = sqlx::query(RENEW).bind(self.engine.0).bind(LEASE.as_secs_f64());
        let renewed = timeout(self.patience, query.execute(begun.connection())).await;
        renewed.map_err(late)?.map_err(fault)?;
        begun.commit().await
    }

    async fn open_turns(&self) -> Result<Vec<OpenTurn>> {
        let query = sqlx::query(OPEN).bind(self.engine.0).fetch_all(&self.reads.pool);
        let rows = timeout(self.patience, query).await.map_err(late)?.map_err(fault)?;
        rows.iter().map(Self::open_turn).collect()
    }

    async fn is_mine(&self, turn: TurnId) -> Result<bool> {
        let query = sqlx::query_scalar(OWNED).bind(turn.0).bind(self.engine.0);
        let owned = timeout(self.patience, query.fetch_optional(&self.reads.pool)).await;
        Ok(owned.map_err(late)?.map_err(fault)?.unwrap_or(false))
    }
}
