//! The seam between servers: what one engine commits, streams and hints reaches the others through a [`Bus`].
//!
//! A bus may lose, double and reorder what it carries; the log's order and completeness rest on the store alone. With
//! one engine there is nothing to carry, and [`NoBus`] stands here.

use crate::event::{Event, Hint};
use crate::id::{MessageId, RoomId};
use async_trait::async_trait;
use futures::stream::BoxStream;
use std::sync::Arc;

/// Carries what is live between the engines that share one store.
#[async_trait]
pub trait Bus: Send + Sync + 'static {
    /// Hands something to the other engines. It must not wait for them: what cannot be sent now is dropped.
    fn publish(&self, item: BusItem);

    /// What the other engines publish, from now on. A gap (a lost connection) is an item of its own.
    async fn listen(&self) -> BoxStream<'static, BusItem>;
}

/// What a bus carries.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum BusItem {
    /// An event that has been committed.
    Committed(Arc<Event>),
    /// A piece of an answer.
    Delta {
        /// Where.
        room: RoomId,
        /// The answer's message.
        message: MessageId,
        /// The number of bytes before this piece.
        offset: u64,
        /// The piece.
        text: Arc<str>,
    },
    /// Something that may be missed.
    Hint(Hint),
    /// Items may have been lost here: look at the store.
    Gap,
}

/// The bus of an engine that is alone on its store.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoBus;

#[async_trait]
impl Bus for NoBus {
    fn publish(&self, _item: BusItem) {}

    async fn listen(&self) -> BoxStream<'static, BusItem> {
        Box::pin(futures::stream::pending())
    }
}
