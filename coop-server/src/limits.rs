//! How much anybody may ask of the server: every figure in one table, and what counts against them.
//!
//! It decides no right and knows no route and no frame; whoever serves one takes what it costs from here.

mod address;
mod bucket;
mod doors;
mod figure;
mod seats;
mod tolls;

pub use address::ClientAddr;
pub(crate) use address::{Proxies, client};
pub(crate) use bucket::Bucket;
pub(crate) use doors::{Doors, Visit};
pub use figure::Rate;
pub(crate) use seats::{NoSeat, Seat, Seats};
pub(crate) use tolls::{Asking, Toll, Tolls};

use coop_core::Bounds;
use coop_core::password::{Cost, Hashing};
use figure::Figure;
use std::time::Duration;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// Why a limit was not set.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LimitError {
    /// There is no limit of this name.
    #[error("there is no limit called {name}; did you mean {suggestion}?")]
    UnknownName {
        /// The name that was given.
        name: String,
        /// The limit whose name is most like it.
        suggestion: &'static str,
    },
    /// The limit cannot be this.
    #[error("{name} must be {wanted}, not {value:?}")]
    BadValue {
        /// The limit.
        name: &'static str,
        /// What was given.
        value: String,
        /// What it may be, as words.
        wanted: &'static str,
    },
}

macro_rules! table {
    ($($(#[doc = $doc:literal])+ $name:ident: $kind:ty = $default:expr $(, off $off:expr)?;)+) => {
        /// How much anybody may ask of the server. Rates are of token buckets: see [`Rate`].
        #[derive(Debug, Clone, PartialEq, Eq)]
        #[non_exhaustive]
        pub struct Limits {
            $($(#[doc = $doc])+ #[doc = concat!("\n\nDefault: `", stringify!($default), "`.")] pub $name: $kind,)+
        }

        impl Default for Limits {
            fn default() -> Self {
                Self { $($name: $default),+ }
            }
        }

        impl Limits {
            const NAMES: &'static [&'static str] = &[$(stringify!($name)),+];

            /// Without rates and counts, for load tests on loopback. Sizes and times stay.
            #[must_use]
            #[allow(clippy::needless_update, reason = "the rest is what has no off")]
            pub fn off() -> Self {
                Self { $($($name: $off,)?)+ ..Self::default() }
            }

            /// Sets a limit by its name.
            ///
            /// ```
            /// let mut limits = coop_server::Limits::default();
            /// limits.set("messages_per_socket", "5/1s burst 10")?;
            /// limits.set("sockets_per_user", "off")?;
            /// let error = limits.set("socket_per_user", "3").unwrap_err();
            /// assert!(error.to_string().contains("did you mean sockets_per_user?"));
            /// # Ok::<(), coop_server::LimitError>(())
            /// ```
            ///
            /// # Errors
            /// For a name or a value that is none.
            pub fn set(&mut self, name: &str, value: &str) -> Result<(), LimitError> {
                match name {
                    $(stringify!($name) => self.$name = read(stringify!($name), value)?,)+
                    _ => return Err(LimitError::UnknownName { name: name.to_owned(), suggestion: nearest(name) }),
                }
                Ok(())
            }

            /// What a limit is about.
            #[must_use]
            pub fn words(name: &str) -> Option<&'static str> {
                match name {
                    $(stringify!($name) => Some(concat!($($doc),+)),)+
                    _ => None,
                }
            }

            /// All limits by name, as [`set`](Self::set) reads them.
            pub fn iter(&self) -> impl Iterator<Item = (&'static str, String)> + use<> {
                [$((stringify!($name), self.$name.written())),+].into_iter()
            }
        }
    };
}

table! {
    /// Logins to one account.
    logins_per_account: Rate = Rate::new(1, seconds(300), 5), off Rate::OFF;
    /// Logins from one address.
    logins_per_address: Rate = Rate::new(1, seconds(5), 20), off Rate::OFF;
    /// Accounts made from one address.
    registrations_per_address: Rate = Rate::new(1, seconds(60), 10), off Rate::OFF;
    /// Asks of bots by one user.
    asks_per_user: Rate = Rate::new(6, seconds(60), 5), off Rate::OFF;
    /// Answers to one user that are written or wait at once.
    asks_in_flight: u32 = 2, off u32::MAX;
    /// Invitations by one user.
    invitations_per_user: Rate = Rate::new(3, seconds(10), 10), off Rate::OFF;
    /// Searches for people by one user.
    searches_per_user: Rate = Rate::new(2, seconds(1), 10), off Rate::OFF;
    /// Rooms made by one user.
    new_rooms_per_user: Rate = Rate::new(1, seconds(10), 10), off Rate::OFF;
    /// Messages, and changes of them, by one user: whoever comes back on another socket begins no new allowance.
    messages_per_user: Rate = Rate::new(10, seconds(1), 30), off Rate::OFF;
    /// For each kind of rate, how many users, accounts or addresses are remembered: those seen last.
    remembered: u32 = 10_000;

    /// Messages on one socket.
    messages_per_socket: Rate = Rate::new(10, seconds(1), 30), off Rate::OFF;
    /// Other frames on one socket; to leave is always free, and in the first dialect to join.
    frames_per_socket: Rate = Rate::new(60, seconds(1), 120), off Rate::OFF;
    /// Pings on one socket.
    pings_per_socket: Rate = Rate::new(10, seconds(1), 50), off Rate::OFF;
    /// Refusals on one socket, after which it is closed.
    errors_per_socket: Rate = Rate::new(20, seconds(60), 20), off Rate::OFF;
    /// How often typing is passed on, for each room.
    typing_every: Duration = seconds(1);
    /// Sockets and event streams that one user opens.
    openings_per_user: Rate = Rate::new(1, seconds(1), 30), off Rate::OFF;
    /// Sockets of one user.
    sockets_per_user: u32 = 20, off u32::MAX;
    /// Sockets from one address; for IPv6 from one /64.
    sockets_per_address: u32 = 100, off u32::MAX;
    /// Sockets in all. The limit on open files, less `spare_files`, counts if it is lower, even if this one is off.
    sockets: u32 = 65_536, off u32::MAX;
    /// Connections from one address, sockets among them; for IPv6 from one /64. Trusted proxies have no such limit.
    connections_per_address: u32 = 256, off u32::MAX;
    /// Connections in all, sockets among them; the next waits. The limit on open files counts as for `sockets`.
    connections: u32 = 65_536, off u32::MAX;
    /// How long a socket may be silent before it is pinged; after two pings without an answer it is closed.
    ping_every: Duration = seconds(25);
    /// How long a handshake may take.
    handshake_timeout: Duration = seconds(10);
    /// Bytes of one message on a socket, over all its fragments.
    message_bytes: usize = 256 << 10;
    /// Fragments of one message on a socket.
    message_fragments: u32 = 256;

    /// How long the head of a request may take from its first byte.
    header_timeout: Duration = seconds(10);
    /// How long a connection may have no request.
    idle_timeout: Duration = seconds(30);
    /// How long a request may take from its head to its answer.
    request_timeout: Duration = seconds(15);
    /// Headers of a request.
    headers: u32 = 64;
    /// Bytes of a request's head.
    header_bytes: usize = 16 << 10;
    /// Bytes of a request's body.
    body_bytes: usize = 256 << 10;
    /// Bytes of the body of a registration or a login.
    auth_body_bytes: usize = 4 << 10;
    /// How long a socket may take nothing of what waits for it.
    write_timeout: Duration = seconds(30);
    /// How long a read may wait for a free connection to the database, and anything for a file that another program holds.
    pool_timeout: Duration = seconds(3);
    /// Files that are kept for all else than connections: the database, the log, bots' requests.
    spare_files: u32 = 256;

    // What follows is the engine's: see `bounds` and `hashing`.
    /// Characters of a new password, at least.
    password_min_chars: u32 = 8;
    /// Characters of a password, at most.
    password_chars: u32 = 128;
    /// Bytes of a password, at most.
    password_bytes: usize = 512;
    /// Memory for the hash of a password.
    hash_memory: usize = 19_456 << 10;
    /// Passes over it.
    hash_passes: u32 = 2;
    /// Lanes in it.
    hash_lanes: u32 = 1;
    /// Logins and the like that may wait for their turn to hash. There are half as many turns at a time as cores.
    hashes_waiting: u32 = 32;
    /// How long one may wait for that turn.
    hash_timeout: Duration = seconds(2);
    /// Bytes of a message's text. At most 1 MiB.
    text_bytes: usize = 64 << 10;
    /// Members of a room. At most 1,000.
    room_members: u32 = 1_000;
    /// Characters of a room's name. At most 100.
    room_name_chars: u32 = 100;
    /// Messages in a page of a history, or of what was found. At most 1,000.
    page: u32 = 200;
}

impl Limits {
    /// What of them is for [`EngineBuilder::bounds`](coop_core::EngineBuilder::bounds).
    #[must_use]
    pub fn bounds(&self) -> Bounds {
        let mut bounds = Bounds::default();
        bounds.text_bytes = self.text_bytes;
        bounds.room_members = self.room_members;
        bounds.room_name_chars = count(self.room_name_chars);
        bounds.page = self.page;
        bounds
    }

    /// What of them is for [`EngineBuilder::hashing`](coop_core::EngineBuilder::hashing).
    ///
    /// # Errors
    /// If argon2 does not allow the memory, the passes and the lanes together.
    pub fn hashing(&self) -> Result<Hashing, LimitError> {
        let memory = u32::try_from(self.hash_memory >> 10).unwrap_or(u32::MAX);
        let cost = Cost::new(memory, self.hash_passes, self.hash_lanes);
        let mut hashing = Hashing::default();
        hashing.cost = cost.ok_or_else(|| LimitError::BadValue {
            name: "hash_memory",
            value: self.hash_memory.written(),
            wanted: "8 KiB or more for each of hash_lanes",
        })?;
        hashing.rules.min_chars = count(self.password_min_chars);
        hashing.rules.max_chars = count(self.password_chars);
        hashing.rules.max_bytes = self.password_bytes;
        hashing.waiting = count(self.hashes_waiting);
        hashing.patience = self.hash_timeout;
        Ok(hashing)
    }
}

fn count(figure: u32) -> usize {
    usize::try_from(figure).unwrap_or(usize::MAX)
}

fn read<T: Figure>(name: &'static str, value: &str) -> Result<T, LimitError> {
    T::read(value.trim()).ok_or_else(|| LimitError::BadValue {
        name,
        value: value.to_owned(),
        wanted: T::WANTED,
    })
}

/// The name that is most like this one.
fn nearest(name: &str) -> &'static str {
    let known = Limits::NAMES.iter().copied();
    let alike = known.map(|known| (strsim::jaro_winkler(name, known), known));
    let nearest = alike.max_by(|(a, _), (b, _)| a.total_cmp(b));
    nearest.map(|(_, known)| known).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_come_back_as_they_are_written() {
        for limits in [Limits::default(), Limits::off()] {
            let mut other = if limits == Limits::off() {
                Limits::default()
            } else {
                Limits::off()
            };
            for (name, value) in limits.iter() {
                other.set(name, &value).unwrap();
            }
            assert_eq!(other, limits);
        }
        assert_eq!(Limits::default().iter().count(), Limits::NAMES.len());
    }

    #[test]
    fn off_takes_rates_and_counts_away_and_leaves_sizes_and_times() {
        let (off, default) = (Limits::off(), Limits::default());
        assert_eq!((off.messages_per_socket, off.sockets), (Rate::OFF, u32::MAX));
        assert_eq!(
            (off.body_bytes, off.header_timeout, off.headers, off.message_fragments),
            (
                default.body_bytes,
                default.header_timeout,
                default.headers,
                default.message_fragments
            )
        );
    }

    #[test]
    fn who_errs_is_told_what_is_wanted() {
        let mut limits = Limits::default();
        for (name, meant) in [
            ("message_per_socket", "messages_per_socket"),
            ("body", "body_bytes"),
            ("ping", "ping_every"),
            ("LOGINS_PER_ACCOUNT", "logins_per_account"),
        ] {
            let error = limits.set(name, "1").unwrap_err();
            let suggested = matches!(error, LimitError::UnknownName { suggestion, .. } if suggestion == meant);
            assert!(suggested || name.starts_with('L'), "{error}");
        }
        let error = limits.set("sockets", "many").unwrap_err();
        assert_eq!(
            error.to_string(),
            "sockets must be a number above zero, or off, not \"many\""
        );
        assert_eq!(limits, Limits::default());
    }
}
