//! Who a request comes from, as the application says in which the service is mounted.
//!
//! It knows no logins: the application has had its own, and puts the result into the request.

use coop_core::UserId;
use std::time::Duration;

/// Who sends a request, put into its extensions by the application's own middleware. It takes the place of a token.
///
/// It counts only if [`ApiBuilder::trust_identity`](crate::ApiBuilder::trust_identity) says so.
///
/// ```
/// use coop_core::UserId;
/// use coop_server::Identity;
///
/// let mut request = http::Request::get("/api/chats").body(())?;
/// request.extensions_mut().insert(Identity::of(UserId(7)));
/// # Ok::<(), http::Error>(())
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity {
    pub(crate) user: UserId,
    pub(crate) left: Option<Duration>,
}

impl Identity {
    /// This user, whom the application has authenticated.
    #[must_use]
    pub fn of(user: UserId) -> Self {
        Self { user, left: None }
    }

    /// Only for so long from now: a WebSocket opened with it is closed then (4401). Without this it stays open.
    #[must_use]
    pub fn good_for(mut self, time: Duration) -> Self {
        self.left = Some(time);
        self
    }
}
