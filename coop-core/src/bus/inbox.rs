//! What an engine has yet to hear: a bounded queue that says when something did not fit. It knows no bus.

use super::BusItem;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::mpsc;

/// How many items wait for an engine that is slow to hear them; what comes then it misses, and is told so.
const QUEUE: usize = 4_096;

/// The way into the queue. When the last is gone the stream ends.
#[derive(Debug)]
pub(crate) struct Inbox {
    queue: mpsc::Sender<BusItem>,
    /// A gap is to be told before the next item.
    gap: AtomicBool,
}

impl Inbox {
    pub(crate) fn new() -> (Arc<Self>, BoxStream<'static, BusItem>) {
        let (queue, items) = mpsc::channel(QUEUE);
        let inbox = Arc::new(Self {
            queue,
            gap: AtomicBool::new(false),
        });
        let flag = Arc::downgrade(&inbox);
        let heard = stream::unfold((items, flag), |(mut items, flag)| async move {
            let item = items.recv().await?;
            let gap = flag.upgrade().is_some_and(|it| it.gap.swap(false, Ordering::AcqRel));
            let heard = match item {
                BusItem::Gap => [Some(BusItem::Gap), None],
                item => [gap.then_some(BusItem::Gap), Some(item)],
            };
            Some((stream::iter(heard.into_iter().flatten()), (items, flag)))
        });
        (inbox, heard.flatten().boxed())
    }

    pub(crate) fn put(&self, item: BusItem) {
        if self.queue.try_send(item).is_err() {
            // It is full: the gap is seen with the next item that is taken out of it.
            self.gap.store(true, Ordering::Release);
        }
    }

    /// Says that something was lost. Many at once are one.
    pub(crate) fn put_gap(&self) {
        if !self.gap.swap(true, Ordering::AcqRel) {
            self.put(BusItem::Gap);
        }
    }
}
