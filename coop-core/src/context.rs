//! x
use crate::bot::*;
use crate::model::*;
use crate::time::Timestamp;
use std::sync::Arc;
/// x
pub struct ContextInput<'a> {
    /// x
    pub bot: &'a str,
    /// x
    pub bot_name: &'a str,
    /// x
    pub policy: &'a ContextPolicy,
    /// x
    pub room_name: &'a str,
    /// x
    pub present: &'a [String],
    /// x
    pub now: Timestamp,
    /// x
    pub history: &'a [Arc<Message>],
    /// x
    pub more: bool,
    /// x
    pub ask: &'a Message,
    /// x
    pub prompt: &'a str,
}
/// x
pub fn build(_: &ContextInput<'_>) -> Result<Context, BotError> {
    Ok(Context::default())
}
/// x
pub struct SelfPrefix;
impl SelfPrefix {
    /// x
    pub fn new(_: &str, _: &str) -> Self {
        Self
    }
    /// x
    pub fn push(&mut self, t: &str) -> String {
        t.to_owned()
    }
    /// x
    pub fn finish(&mut self) -> String {
        String::new()
    }
}
