//! Passwords: what one may be, and hashing and verifying them with argon2id without hurting anyone else.
//!
//! A hash is meant to be slow (some 40 ms and 19 MiB). So it runs on Tokio's blocking threads, on half of the cores at
//! most, and a crowd that logs in at once is told to come back rather than left to queue: the other half keeps serving
//! those who are in.
//!
//! This module refuses to know users, stores, tokens and rates: it sees a password and a string that it once made
//! itself. Hashes are PHC strings (`$argon2id$v=19$m=19456,t=2,p=1$…`), which carry their own parameters, so a
//! changed [`Cost`] leaves old hashes good. The first system's hashes are bcrypt's (`$2b$12$…`): they are verified, and
//! count as stale.

use crate::error::{Error, ErrorKind};
use crate::sync::lock;
use argon2::password_hash::{self, phc};
use argon2::{ARGON2ID_IDENT, Algorithm, Argon2, Block, Params, Version};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use unicode_normalization::UnicodeNormalization;

/// The dearest bcrypt hash that is verified.
const MAX_BCRYPT_COST: u32 = 16;

/// What a password may be.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Rules {
    /// The fewest characters of a new one. 8 by default.
    pub min_chars: usize,
    /// The most characters. 128 by default.
    pub max_chars: usize,
    /// The most bytes. 512 by default.
    pub max_bytes: usize,
}

impl Default for Rules {
    fn default() -> Self {
        Self {
            min_chars: 8,
            max_chars: 128,
            max_bytes: 512,
        }
    }
}

impl Rules {
    /// Whether a new password will do for this user; the error is a sentence for them.
    ///
    /// There are no rules of composition: they make passwords worse.
    pub fn check(&self, password: &str, username: &str, email: &str) -> Result<(), String> {
        self.check_upper_bound(password)?;
        if password.chars().count() < self.min_chars {
            return Err(format!("The password needs at least {} characters.", self.min_chars));
        }
        let folded = fold(password);
        if folded == fold(username) {
            return Err("The password must not be the username.".to_owned());
        }
        if folded == fold(email) {
            return Err("The password must not be the e-mail address.".to_owned());
        }
        Ok(())
    }

    /// The only rule at login: whatever was once allowed may be typed, but nothing longer is looked at.
    pub fn check_upper_bound(&self, password: &str) -> Result<(), String> {
        // Bytes first: counting characters is then bounded too.
        if password.len() > self.max_bytes || password.chars().nth(self.max_chars).is_some() {
            return Err(format!(
                "The password is too long: at most {} characters and {} bytes.",
                self.max_chars, self.max_bytes
            ));
        }
        Ok(())
    }
}

/// What may be hashed, and what that may take from everything else.
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Hashing {
    /// What a password may be.
    pub rules: Rules,
    /// What new hashes cost.
    pub cost: Cost,
    /// How many are made at a time. Half as many as there are cores by default, and at least one.
    pub at_once: usize,
    /// How many may wait for their turn; the next is told [`PasswordError::Busy`] at once. 32 by default.
    pub waiting: usize,
    /// How long one may wait before being told the same. 2 s by default.
    pub patience: Duration,
}

impl Default for Hashing {
    fn default() -> Self {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        Self {
            rules: Rules::default(),
            cost: Cost::default(),
            at_once: (cores / 2).max(1),
            waiting: 32,
            patience: Duration::from_secs(2),
        }
    }
}

/// What one hash costs an attacker, and us.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cost(Params);

impl Cost {
    /// Memory in KiB, passes over it, and lanes. `None` where argon2 does not allow the combination.
    pub fn new(memory_kib: u32, passes: u32, lanes: u32) -> Option<Self> {
        Params::new(memory_kib, passes, lanes, None).ok().map(Cost)
    }

    /// The least argon2 allows, worth nothing against an attacker: a test that logs in forty users should not take
    /// half a minute.
    pub fn cheap_for_tests() -> Self {
        Cost::new(Params::MIN_M_COST, Params::MIN_T_COST, Params::MIN_P_COST).unwrap_or_default()
    }
}

impl Default for Cost {
    /// 19,456 KiB, two passes, one lane: the first choice of OWASP's list for argon2id.
    fn default() -> Self {
        Cost::new(19_456, 2, 1).unwrap_or(Cost(Params::DEFAULT))
    }
}

/// What a login's password turned out to be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Not the password, or there is no such user.
    Wrong,
    /// The password.
    Right,
    /// The password, but its hash was made with another [`Cost`] or by bcrypt: hash it anew and store that.
    RightButStale,
}

/// Why there is no hash or verdict.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PasswordError {
    /// Too many are hashing; to be tried again in a moment.
    #[error("too many logins at once")]
    Busy {
        /// When to try again.
        retry_after: Duration,
    },
    /// The password is too long to be looked at.
    #[error("{0}")]
    Refused(String),
    /// The stored string is not a hash that is known here.
    #[error("the stored password hash cannot be read")]
    BadHash,
    /// No memory, no randomness, or the runtime is shutting down.
    #[error("hashing failed")]
    Failed(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl From<PasswordError> for Error {
    fn from(error: PasswordError) -> Self {
        match error {
            PasswordError::Busy { retry_after } => {
                Error::new(ErrorKind::Busy, "too many logins at once").with_retry_after(retry_after)
            }
            PasswordError::Refused(words) => Error::bad_request(words),
            PasswordError::BadHash | PasswordError::Failed(_) => {
                Error::internal("the password could not be checked").with_source(error)
            }
        }
    }
}

/// Hashes and verifies. Clones share one allowance of threads.
#[derive(Debug, Clone)]
pub struct Passwords {
    shared: Arc<Shared>,
}

struct Shared {
    rules: Rules,
    hasher: Argon2<'static>,
    patience: Duration,
    /// One permit for each hash that may run; held by the blocking thread, not by its caller, because a caller that
    /// gives up does not stop the hash.
    running: Arc<Semaphore>,
    /// One permit for each caller that may wait for one of those.
    waiting: Semaphore,
    /// The memory of hashes that were made, for the next ones: as many as run at a time. Given back to the system's allocator
    /// each time, it would lie about in pieces that are each a little too small for the next.
    memory: Mutex<Vec<Memory>>,
}

type Memory = Vec<Block>;

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared").finish_non_exhaustive()
    }
}

impl Passwords {
    /// By these rules, at this cost.
    pub fn new(hashing: Hashing) -> Self {
        let Hashing {
            rules,
            cost,
            at_once,
            waiting,
            patience,
        } = hashing;
        Passwords {
            shared: Arc::new(Shared {
                rules,
                hasher: Argon2::new(Algorithm::Argon2id, Version::V0x13, cost.0),
                patience,
                running: Arc::new(Semaphore::new(at_once.clamp(1, Semaphore::MAX_PERMITS))),
                waiting: Semaphore::new(waiting.min(Semaphore::MAX_PERMITS)),
                memory: Mutex::default(),
            }),
        }
    }

    /// What a password may be.
    pub fn rules(&self) -> &Rules {
        &self.shared.rules
    }

    /// The PHC string to store for a password, which should have passed [`Rules::check`].
    ///
    /// Needs a Tokio runtime with its timer on. Dropping the future loses the hash and nothing else.
    pub async fn hash(&self, password: String) -> Result<String, PasswordError> {
        self.rules()
            .check_upper_bound(&password)
            .map_err(PasswordError::Refused)?;
        self.run(move |hasher, memory| {
            let salt = phc::Salt::generate();
            let hash = output(hasher, &password, &salt, Params::DEFAULT_OUTPUT_LEN, memory)?;
            let hash = phc::PasswordHash {
                algorithm: ARGON2ID_IDENT,
                version: Some(Version::V0x13.into()),
                params: hasher.params().try_into().map_err(failed)?,
                salt: Some(salt),
                hash: Some(hash),
            };
            Ok(hash.to_string())
        })
        .await
    }

    /// Whether this is the password that `phc` was made from.
    ///
    /// `None` stands for a user who does not exist: it takes as long as a wrong password, so that a login does not tell
    /// who has an account. For the same reason, look the user up and call this in every case.
    pub async fn verify(&self, password: String, phc: Option<String>) -> Result<Verdict, PasswordError> {
        self.rules()
            .check_upper_bound(&password)
            .map_err(PasswordError::Refused)?;
        let known = phc.is_some();
        let stored = match phc {
            Some(phc) if is_bcrypt(&phc) => return self.run(move |_, _| verify_bcrypt(&password, &phc)).await,
            Some(phc) => parse(&phc)?,
            None => self.decoy().map_err(failed)?,
        };
        self.run(move |hasher, memory| {
            let (Some(salt), Some(expected)) = (&stored.salt, &stored.hash) else {
                return Err(PasswordError::BadHash);
            };
            let found = output(&as_stored(&stored)?, &password, salt, expected.len(), memory)?;
            // Compared in constant time.
            Ok(match found == *expected {
                true if known && is_stale(&stored, hasher.params()) => Verdict::RightButStale,
                true if known => Verdict::Right,
                _ => Verdict::Wrong,
            })
        })
        .await
    }

    /// What stands in for the hash of a user who does not exist: of the present cost, and no password's.
    fn decoy(&self) -> Result<phc::PasswordHash, password_hash::Error> {
        Ok(phc::PasswordHash {
            algorithm: ARGON2ID_IDENT,
            version: Some(Version::V0x13.into()),
            params: self.shared.hasher.params().try_into()?,
            salt: Some(phc::Salt::new(b"nobody's salt 16")?),
            hash: Some(phc::Output::new(&[0; Params::DEFAULT_OUTPUT_LEN])?),
        })
    }

    /// Runs `work` on a blocking thread when its turn comes.
    async fn run<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Argon2<'static>, &mut Memory) -> Result<T, PasswordError> + Send + 'static,
    ) -> Result<T, PasswordError> {
        let permit = self.turn().await?;
        let shared = Arc::clone(&self.shared);
        tokio::task::spawn_blocking(move || {
            let _held = permit;
            let mut memory = lock(&shared.memory).pop().unwrap_or_default();
            let done = work(&shared.hasher, &mut memory);
            lock(&shared.memory).push(memory);
            done
        })
        .await
        .map_err(|error| PasswordError::Failed(error.into()))?
    }

    fn busy(&self) -> PasswordError {
        PasswordError::Busy {
            retry_after: self.shared.patience,
        }
    }

    async fn turn(&self) -> Result<OwnedSemaphorePermit, PasswordError> {
        // A free permit is never one that somebody waits for: Tokio hands a returned permit to the first in its queue.
        if let Ok(permit) = Arc::clone(&self.shared.running).try_acquire_owned() {
            return Ok(permit);
        }
        let Ok(_place) = self.shared.waiting.try_acquire() else {
            return Err(self.busy());
        };
        let turn = Arc::clone(&self.shared.running).acquire_owned();
        match tokio::time::timeout(self.shared.patience, turn).await {
            Ok(Ok(permit)) => Ok(permit),
            // Too late, or closed, which it never is.
            Ok(Err(_)) | Err(_) => Err(self.busy()),
        }
    }
}

/// Whether a password can be verified by this: a PHC string of argon2id, or a hash of bcrypt.
#[must_use]
pub fn is_hash(stored: &str) -> bool {
    match is_bcrypt(stored) {
        true => stored.parse::<bcrypt::HashParts>().is_ok(),
        false => parse(stored).is_ok(),
    }
}

/// What usernames are compared by: NFKC, then lower case.
fn fold(text: &str) -> String {
    text.nfkc().flat_map(char::to_lowercase).collect()
}

fn parse(phc: &str) -> Result<phc::PasswordHash, PasswordError> {
    let hash = phc::PasswordHash::new(phc).map_err(|_| PasswordError::BadHash)?;
    let whole = hash.salt.is_some() && hash.hash.is_some() && Params::try_from(&hash).is_ok();
    match hash.algorithm == ARGON2ID_IDENT && whole {
        true => Ok(hash),
        false => Err(PasswordError::BadHash),
    }
}

/// Whether this is a hash of bcrypt that costs no more than some seconds.
fn is_bcrypt(stored: &str) -> bool {
    let version = ["$2a$", "$2b$", "$2x$", "$2y$"]
        .iter()
        .find_map(|version| stored.strip_prefix(version));
    let cost = version.and_then(|rest| rest.split_once('$')?.0.parse::<u32>().ok());
    cost.is_some_and(|cost| cost <= MAX_BCRYPT_COST)
}

fn verify_bcrypt(password: &str, stored: &str) -> Result<Verdict, PasswordError> {
    match bcrypt::verify(password, stored) {
        Ok(true) => Ok(Verdict::RightButStale),
        Ok(false) => Ok(Verdict::Wrong),
        Err(_) => Err(PasswordError::BadHash),
    }
}

/// What argon2 makes of a password and a salt.
fn output(
    hasher: &Argon2<'_>,
    password: &str,
    salt: &phc::Salt,
    length: usize,
    memory: &mut Memory,
) -> Result<phc::Output, PasswordError> {
    let blocks = hasher.params().block_count();
    let more = blocks.saturating_sub(memory.len());
    memory
        .try_reserve_exact(more)
        .map_err(|error| PasswordError::Failed(error.into()))?;
    memory.resize(memory.len() + more, Block::new());
    let mut out = vec![0; length];
    hasher
        .hash_password_into_with_memory(password.as_bytes(), salt, &mut out, &mut memory[..blocks])
        .map_err(|error| PasswordError::Failed(error.to_string().into()))?;
    phc::Output::new(&out).map_err(|_| PasswordError::BadHash)
}

/// A hasher that does what this hash was made by.
fn as_stored(stored: &phc::PasswordHash) -> Result<Argon2<'static>, PasswordError> {
    let version = stored.version.map(Version::try_from).transpose();
    let version = version.map_err(|_| PasswordError::BadHash)?.unwrap_or_default();
    let params = Params::try_from(stored).map_err(|_| PasswordError::BadHash)?;
    Ok(Argon2::new(Algorithm::Argon2id, version, params))
}

fn is_stale(stored: &phc::PasswordHash, now: &Params) -> bool {
    let Ok(then) = Params::try_from(stored) else {
        return true;
    };
    (then.m_cost(), then.t_cost(), then.p_cost()) != (now.m_cost(), now.t_cost(), now.p_cost())
        || then.output_len() != Some(Params::DEFAULT_OUTPUT_LEN)
        || stored.version != Some(Version::V0x13.into())
}

fn failed(error: password_hash::Error) -> PasswordError {
    PasswordError::Failed(error.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of_cost(cost: Cost) -> Passwords {
        Passwords::new(Hashing {
            cost,
            ..Hashing::default()
        })
    }
    use argon2::password_hash::PasswordHasher;
    use tokio::time::Instant;

    fn cheap() -> Passwords {
        of_cost(Cost::cheap_for_tests())
    }

    /// All permits of a semaphore, so that everyone else must wait.
    async fn seize(semaphore: &Arc<Semaphore>) -> OwnedSemaphorePermit {
        let all = semaphore.available_permits() as u32;
        Arc::clone(semaphore).acquire_many_owned(all).await.unwrap()
    }

    #[tokio::test]
    async fn right_wrong_and_nobody() {
        let passwords = cheap();
        let phc = passwords.hash("correct horse".into()).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=8,t=1,p=1$"), "{phc}");
        let verify = async |password: &str, phc: Option<&String>| {
            let verdict = passwords.verify(password.into(), phc.cloned()).await;
            verdict.unwrap()
        };
        assert_eq!(verify("correct horse", Some(&phc)).await, Verdict::Right);
        assert_eq!(verify("correct Horse", Some(&phc)).await, Verdict::Wrong);
        assert_eq!(verify("", Some(&phc)).await, Verdict::Wrong);
        assert_eq!(verify("correct horse", None).await, Verdict::Wrong);
        let again = passwords.hash("correct horse".into()).await.unwrap();
        assert_ne!(phc, again, "every hash has its own salt");
    }

    #[tokio::test]
    async fn the_default_is_what_owasp_lists() {
        let phc = of_cost(Cost::default()).hash("correct horse".into()).await.unwrap();
        assert!(phc.starts_with("$argon2id$v=19$m=19456,t=2,p=1$"), "{phc}");
    }

    #[tokio::test]
    async fn a_hash_of_another_cost_is_good_but_stale() {
        let old = cheap();
        let phc = old.hash("correct horse".into()).await.unwrap();
        for (memory, passes, lanes) in [(16, 1, 1), (8, 2, 1), (16, 1, 2)] {
            let new = of_cost(Cost::new(memory, passes, lanes).unwrap());
            let right = new.verify("correct horse".into(), Some(phc.clone())).await;
            assert_eq!(right.unwrap(), Verdict::RightButStale);
            let wrong = new.verify("correct cow".into(), Some(phc.clone())).await;
            assert_eq!(wrong.unwrap(), Verdict::Wrong);
        }
        // The same parameters, but an old version of the algorithm.
        let aged = Argon2::new(Algorithm::Argon2id, Version::V0x10, Cost::cheap_for_tests().0)
            .hash_password(b"correct horse")
            .unwrap();
        let right = old.verify("correct horse".into(), Some(aged.to_string())).await;
        assert_eq!(right.unwrap(), Verdict::RightButStale);
    }

    #[test]
    fn what_a_password_can_be_held_against_is_known() {
        let bcrypt = "$2b$04$aeC3y70e7VjP4hccihpIT.sqMBHKL8XuH1SZDL7K85Z6CkqTCH2qS";
        let argon2 = "$argon2id$v=19$m=1024,t=3,p=4$p2gzj0/mY0SwkscN9XBklw$Y0iYp+/5zQ9dS1E9EzdHECTSuiTS8my1dB5d2k+uCpY";
        assert!(is_hash(bcrypt) && is_hash(argon2));
        let argon2i = argon2.replace("argon2id", "argon2i");
        for none in [
            "",
            "password",
            "$2b$",
            "$2b$04$short",
            "$2b$31$aeC3y70e7VjP4hccihpIT.sqMBHKL8XuH1SZDL7K85Z6CkqTCH2qS",
            "$argon2id$v=19$m=1024,t=3,p=4",
            &argon2i,
        ] {
            assert!(!is_hash(none), "{none:?}");
        }
    }

    #[tokio::test]
    async fn a_hash_of_bcrypt_is_good_but_stale() {
        // Made by libxcrypt.
        for version in ["2a", "2b", "2y"] {
            let stored = format!("${version}$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e");
            let right = cheap().verify("correct horse".into(), Some(stored.clone())).await;
            assert_eq!(right.unwrap(), Verdict::RightButStale, "{stored}");
            for wrong in ["", "correct Horse", "correct horse "] {
                let wrong = cheap().verify(wrong.into(), Some(stored.clone())).await;
                assert_eq!(wrong.unwrap(), Verdict::Wrong, "{stored}");
            }
        }
    }

    #[tokio::test]
    async fn what_is_no_hash_of_ours_is_said_to_be_unreadable() {
        for phc in [
            "",
            "secret",
            "$",
            "$argon2id",
            "$argon2id$v=19$m=8,t=1,p=1",
            "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA",
            "$argon2id$v=19$m=0,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$4ZzcEPvhJZHqMTCDMlnEY3DdfV5HoFwlxgEpKVAxCMY",
            "$argon2id$v=19$m=8,t=1,x=1$c29tZXNhbHRzb21lc2FsdA$4ZzcEPvhJZHqMTCDMlnEY3DdfV5HoFwlxgEpKVAxCMY",
            "$argon2i$v=19$m=8,t=1,p=1$c29tZXNhbHRzb21lc2FsdA$4ZzcEPvhJZHqMTCDMlnEY3DdfV5HoFwlxgEpKVAxCMY",
            "$2b$",
            "$2b$04$",
            "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6",
            "$2b$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQ€e",
            "$2b$31$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
            "$2c$04$abcdefghijklmnopqrstuujydOTSfIH/d5oUHpsygqV5X9xJLQc6e",
        ] {
            let verdict = cheap().verify("secret".into(), Some(phc.into())).await;
            assert!(matches!(verdict, Err(PasswordError::BadHash)), "{phc}");
        }
    }

    #[tokio::test]
    async fn too_long_is_refused_before_hashing() {
        let passwords = cheap();
        let _all = seize(&passwords.shared.running).await;
        // Nobody can hash now, and still it is answered.
        let long = "x".repeat(129);
        let hash = passwords.hash(long.clone()).await;
        assert!(matches!(hash, Err(PasswordError::Refused(_))));
        let verdict = passwords.verify(long, None).await;
        assert!(matches!(verdict, Err(PasswordError::Refused(_))));
    }

    /// By construction rather than by the clock: the decoy is verified like any hash, at the same cost, in the same queue.
    #[tokio::test(start_paused = true)]
    async fn nobody_costs_as_much_as_somebody() {
        let passwords = of_cost(Cost::new(64, 3, 2).unwrap());
        let somebody = passwords.hash("correct horse".into()).await.unwrap();
        let (somebody, nobody) = (parse(&somebody).unwrap(), passwords.decoy().unwrap());
        assert_eq!(nobody.to_string().len(), somebody.to_string().len());
        assert_eq!(
            (nobody.algorithm, nobody.version, &nobody.params),
            (somebody.algorithm, somebody.version, &somebody.params)
        );
        let _all = seize(&passwords.shared.running).await;
        let verdict = passwords.verify("wrong".into(), None).await;
        assert!(matches!(verdict, Err(PasswordError::Busy { .. })));
    }

    #[tokio::test(start_paused = true)]
    async fn a_crowd_waits_for_two_seconds_and_the_thirty_third_not_at_all() {
        let passwords = cheap();
        let all = seize(&passwords.shared.running).await;
        let start = Instant::now();
        let waiting: Vec<_> = (0..32)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash("correct horse".into()).await })
            })
            .collect();
        tokio::task::yield_now().await;
        let late = passwords.hash("correct horse".into()).await;
        assert!(matches!(late, Err(PasswordError::Busy { .. })));
        assert_eq!(start.elapsed(), Duration::ZERO, "refused at once");
        for one in waiting {
            let hash = one.await.unwrap();
            assert!(matches!(hash, Err(PasswordError::Busy { .. })));
        }
        let waited = start.elapsed();
        assert!(
            waited >= Duration::from_secs(2) && waited < Duration::from_secs(2) * 2,
            "{waited:?}"
        );
        drop(all);
        passwords.hash("correct horse".into()).await.expect("it recovers");
    }

    #[tokio::test(start_paused = true)]
    async fn who_waits_gets_a_turn() {
        let passwords = cheap();
        let all = seize(&passwords.shared.running).await;
        let waiting: Vec<_> = (0..32)
            .map(|_| {
                let passwords = passwords.clone();
                tokio::spawn(async move { passwords.hash("correct horse".into()).await })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(2) / 2).await;
        drop(all);
        for one in waiting {
            one.await.unwrap().unwrap();
        }
        assert_eq!(passwords.shared.waiting.available_permits(), 32);
    }

    #[tokio::test]
    async fn a_caller_that_gives_up_frees_nothing_before_the_hash_is_done() {
        let passwords = cheap();
        let total = passwords.shared.running.available_permits();
        let (begin, begun) = tokio::sync::oneshot::channel();
        let (finish, finished) = std::sync::mpsc::channel::<()>();
        let worker = passwords.clone();
        let caller = tokio::spawn(async move {
            let work = move |_: &Argon2<'static>, _: &mut Memory| {
                begin.send(()).ok();
                finished.recv().ok();
                Ok(())
            };
            worker.run(work).await
        });
        begun.await.unwrap();
        caller.abort();
        assert!(caller.await.unwrap_err().is_cancelled());
        let running = &passwords.shared.running;
        assert_eq!(running.available_permits(), total - 1);
        finish.send(()).unwrap();
        let _all = Arc::clone(running).acquire_many_owned(total as u32).await.unwrap();
    }

    #[test]
    fn rules() {
        let ok = |password: &str| {
            Rules::default()
                .check(password, "Alice_Adams", "Alice@Example.org")
                .is_ok()
        };
        for (password, allowed) in [
            ("", false),
            ("1234567", false),
            ("12345678", true),
            ("🦀🦀🦀🦀🦀🦀🦀", false),
            ("🦀🦀🦀🦀🦀🦀🦀🦀", true),
            ("        ", true),
            ("alice_adams", false),
            ("ALICE_ADAMS", false),
            ("ａｌｉｃｅ＿ａｄａｍｓ", false),
            ("alice_adams1", true),
            ("alice@example.ORG", false),
        ] {
            assert_eq!(ok(password), allowed, "{password:?}");
        }
        assert!(ok(&"x".repeat(128)) && !ok(&"x".repeat(129)));
        assert!(ok(&"🦀".repeat(128)), "512 bytes of 128 characters are allowed");
        // More bytes than 512 take more than 128 characters, as long as UTF-8 ends at four bytes.
        assert!(!ok(&"🦀".repeat(129)));
        assert!(
            Rules::default().check("12345678", "bob", "").is_ok(),
            "no e-mail, no rule"
        );
        assert!(
            Rules::default().check_upper_bound("").is_ok(),
            "login has no lower bound"
        );
        assert!(Rules::default().check_upper_bound(&"x".repeat(129)).is_err());
    }
}
