//! What the benches and `swarm` share: rooms full of messages, and how times are told.
#![forbid(unsafe_code)]

use coop_core::store::{Batch, Intent, NewRoom, Post, Store};
use coop_core::{RoomId, Timestamp, UserId};
use std::sync::Arc;
use std::time::Duration;

/// What goes wrong in a measurement ends it, in its own words.
pub type Anything<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

/// Who owns the rooms and says everything in them.
pub const ANNE: UserId = UserId(1);

/// Makes a room without others.
///
/// # Errors
/// The store's own.
pub async fn room(store: &dyn Store) -> Anything<RoomId> {
    let new = NewRoom {
        name: "room".to_owned(),
        owner: (ANNE, "anne".to_owned()),
        members: Vec::new(),
        is_group: true,
        is_ai_chat: false,
        greeting: None,
        now: Timestamp(1),
    };
    Ok(store.create_room(new).await?.0.id)
}

/// Says so many messages of about a hundred bytes.
///
/// # Errors
/// The store's own.
pub async fn fill(store: &dyn Store, room: RoomId, messages: usize) -> Anything<()> {
    let mut left = messages;
    while left > 0 {
        let some = left.min(200);
        let post = Post {
            author: ANNE,
            name: "anne".to_owned(),
            client_id: None,
            body_hash: [0; 32],
            text: "a message of about a hundred bytes, as people write them when they are in a hurry".to_owned(),
            reply_to: None,
            meta: None,
            asks: Vec::new(),
            asks_default: false,
            asks_if_alone: false,
            bots: Arc::from([]),
        };
        let batch = Batch::new(room, Timestamp(2), vec![Intent::Post(post); some]);
        for outcome in store.commit(batch).await?.outcomes {
            outcome?;
        }
        left -= some;
    }
    Ok(())
}

/// The times at which so many hundredths of all were done.
pub fn told(what: &str, unit: f64, mut times: Vec<Duration>) {
    times.sort_unstable();
    let at = |hundredth: usize| times[(times.len() - 1) * hundredth / 100].as_secs_f64() * unit;
    println!("{what:>44} {:>10.2} {:>10.2} {:>10.2}", at(50), at(99), at(100));
}

/// The head of a table of such times.
pub fn heading(what: &str, unit: &str) {
    let of = |name: &str| format!("{name} {unit}");
    println!("\n{what:>44} {:>10} {:>10} {:>10}", of("p50"), of("p99"), of("most"));
}
