//! Access tokens: who a request comes from, signed by us. JWT with HS256 and nothing else.
//!
//! It refuses to know requests, users and where a token is carried. No claim is looked at before the signature holds.

use coop_core::{Account, UserId};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation, decode, encode, errors};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{self, Write};
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// The fewest bytes of a secret: as many as the hash has.
pub const MIN_SECRET: usize = 32;
/// Who issues our tokens and for whom they are.
const ISSUER: &str = "gemini-coop";
const AUDIENCE: &str = "gemini-coop";

/// What signs tokens. Its bytes are never shown.
#[derive(Clone)]
pub struct Secret(Vec<u8>);

/// A secret of fewer than [`MIN_SECRET`] bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a token secret needs at least {MIN_SECRET} bytes")]
pub struct WeakSecret;

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

impl Secret {
    /// A secret from its bytes.
    ///
    /// # Errors
    /// [`WeakSecret`] for fewer than [`MIN_SECRET`] bytes.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Self, WeakSecret> {
        let bytes = bytes.into();
        if bytes.len() < MIN_SECRET {
            return Err(WeakSecret);
        }
        Ok(Self(bytes))
    }

    /// Its bytes, for who signs with them.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    /// A secret that nobody knows, gone with the process.
    ///
    /// # Errors
    /// If the system has no randomness.
    pub fn random() -> io::Result<Self> {
        Ok(Self(random_hex()?.into_bytes()))
    }

    /// The secret kept in this file; on the first call it is made up and kept there, readable by its owner only.
    /// Two programs that start at once agree on one.
    ///
    /// # Errors
    /// What the file system says, or `InvalidData` if the file holds too little.
    pub fn kept_in(path: &Path) -> io::Result<Self> {
        match Self::read(path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            found => return found,
        }
        // Written whole under another name and linked into place: nobody ever reads half a secret, and a link never
        // replaces one that another program has put there meanwhile.
        let mut draft = path.as_os_str().to_owned();
        draft.push(format!(".{}", random_hex()?));
        let draft = Path::new(&draft);
        let made =
            write_private(draft, random_hex()?.as_bytes()).and_then(|()| match std::fs::hard_link(draft, path) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
                linked => linked,
            });
        let _ = std::fs::remove_file(draft);
        made?;
        Self::read(path)
    }

    /// The secret in this file, without the white space around it.
    ///
    /// # Errors
    /// As [`kept_in`](Self::kept_in); `NotFound` if there is no such file.
    pub fn read(path: &Path) -> io::Result<Self> {
        let bytes = std::fs::read(path)?;
        Self::new(bytes.trim_ascii()).map_err(|weak| io::Error::new(io::ErrorKind::InvalidData, weak))
    }
}

fn write_private(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let mut file = options.open(path)?;
    file.write_all(bytes)?;
    file.sync_all()
}

fn random_hex() -> io::Result<String> {
    let mut bytes = [0; 32];
    getrandom::fill(&mut bytes).map_err(io::Error::other)?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

#[derive(Debug, Serialize, Deserialize)]
struct Claims {
    sub: String,
    /// Which version of the user's tokens it is.
    ver: i64,
    iss: String,
    aud: String,
    iat: u64,
    exp: u64,
    jti: String,
}

/// What a good token says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Identity {
    /// Whose it is.
    pub(crate) user: UserId,
    /// Good as long as this is the version of the user's tokens.
    pub(crate) version: i64,
    /// How long it is still good.
    pub(crate) left: Duration,
}

/// Signs and checks tokens.
pub(crate) struct Tokens {
    signing: EncodingKey,
    checking: DecodingKey,
    validation: Validation,
    ttl: Duration,
}

impl Tokens {
    pub(crate) fn new(secret: &Secret, ttl: Duration) -> Self {
        // With features unified by another crate the library could not choose by itself and would panic at its first
        // use. An application that has installed one already keeps its own.
        let _ = jsonwebtoken::crypto::aws_lc::DEFAULT_PROVIDER.install_default();
        let mut validation = Validation::new(Algorithm::HS256);
        validation.leeway = 0;
        validation.set_issuer(&[ISSUER]);
        validation.set_audience(&[AUDIENCE]);
        validation.set_required_spec_claims(&["exp", "iss", "aud", "sub"]);
        Self {
            signing: EncodingKey::from_secret(&secret.0),
            checking: DecodingKey::from_secret(&secret.0),
            validation,
            ttl,
        }
    }

    /// A token of this version for this user.
    ///
    /// # Errors
    /// If the system has no randomness, or signing fails.
    pub(crate) fn issue(&self, user: UserId, version: i64) -> io::Result<String> {
        let now = now();
        let claims = Claims {
            sub: user.to_string(),
            ver: version,
            iss: ISSUER.to_owned(),
            aud: AUDIENCE.to_owned(),
            iat: now,
            exp: now.saturating_add(self.ttl.as_secs()),
            jti: random_hex()?,
        };
        encode(&Header::new(Algorithm::HS256), &claims, &self.signing).map_err(io::Error::other)
    }

    /// What a token says, if it is one of ours and still good.
    pub(crate) fn check(&self, token: &str) -> Option<Identity> {
        self.try_check(token).ok().flatten()
    }

    fn try_check(&self, token: &str) -> errors::Result<Option<Identity>> {
        let claims = decode::<Claims>(token, &self.checking, &self.validation)?.claims;
        let left = Duration::from_secs(claims.exp).saturating_sub(since_1970());
        // The library counts whole seconds, and takes the last one for good.
        if left.is_zero() {
            return Ok(None);
        }
        Ok(claims.sub.parse().ok().map(|id: i64| Identity {
            user: id.into(),
            version: claims.ver,
            left,
        }))
    }
}

/// Makes and reads the tokens of a server from outside: for whoever has its secret, command-line tools for instance.
pub struct TokenMaker(Tokens);

impl fmt::Debug for TokenMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenMaker")
    }
}

impl TokenMaker {
    /// With the secret of a server, for tokens that are good for so long.
    #[must_use]
    pub fn new(secret: &Secret, ttl: Duration) -> Self {
        Self(Tokens::new(secret, ttl))
    }

    /// A token for this account, as a login gives one.
    ///
    /// # Errors
    /// If the system has no randomness, or signing fails.
    pub fn make(&self, account: &Account) -> io::Result<String> {
        self.0.issue(account.id, account.token_version)
    }

    /// Whose token this is and how long it is still good. `None` if it is not one of this secret or not good any more.
    /// Whether its user still exists is for the store to say.
    #[must_use]
    pub fn check(&self, token: &str) -> Option<(UserId, Duration)> {
        self.0.check(token).map(|identity| (identity.user, identity.left))
    }
}

fn since_1970() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

fn now() -> u64 {
    since_1970().as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    const USER: UserId = UserId(7);

    fn secret(fill: u8) -> Secret {
        Secret::new([fill; 32]).unwrap()
    }

    fn tokens() -> Tokens {
        Tokens::new(&secret(1), Duration::from_secs(60))
    }

    fn signed(claims: &serde_json::Value, algorithm: Algorithm, fill: u8) -> String {
        let key = EncodingKey::from_secret(&secret(fill).0);
        encode(&Header::new(algorithm), claims, &key).unwrap()
    }

    fn claims() -> serde_json::Value {
        serde_json::json!({
            "sub": "7", "ver": 3, "iss": ISSUER, "aud": AUDIENCE, "iat": now(), "exp": now() + 60, "jti": "x",
        })
    }

    #[test]
    fn a_token_says_whose_it_is() {
        let token = tokens().issue(USER, 3).unwrap();
        let identity = tokens().check(&token).unwrap();
        assert_eq!((identity.user, identity.version), (USER, 3));
        assert!(identity.left <= Duration::from_secs(60) && identity.left >= Duration::from_secs(58));
        assert_eq!(
            tokens().check(&signed(&claims(), Algorithm::HS256, 1)).unwrap().user,
            USER
        );
    }

    #[test]
    fn what_is_no_token_of_ours() {
        let tokens = tokens();
        let good = tokens.issue(USER, 3).unwrap();
        let (body, signature) = good.rsplit_once('.').unwrap();
        // {"alg":"none","typ":"JWT"}
        let unsigned = format!(
            "eyJhbGciOiJub25lIiwidHlwIjoiSldUIn0.{}.",
            body.split_once('.').unwrap().1
        );
        for bad in [
            "",
            "x",
            "a.b.c",
            body,
            &format!("{body}."),
            &format!("{body}.{}", signature.to_lowercase()),
            &unsigned,
        ] {
            assert_eq!(tokens.check(bad), None, "{bad:?}");
        }
        assert_eq!(
            tokens.check(&signed(&claims(), Algorithm::HS256, 2)),
            None,
            "another secret"
        );
        assert_eq!(
            tokens.check(&signed(&claims(), Algorithm::HS384, 1)),
            None,
            "another algorithm"
        );
        for (claim, value) in [
            ("exp", serde_json::json!(now() - 1)),
            ("iss", serde_json::json!("somebody")),
            ("aud", serde_json::json!("somebody")),
            ("sub", serde_json::json!("alice")),
            ("ver", serde_json::json!("3")),
        ] {
            let mut other = claims();
            other[claim] = value;
            assert_eq!(tokens.check(&signed(&other, Algorithm::HS256, 1)), None, "{other}");
            other.as_object_mut().unwrap().remove(claim);
            assert_eq!(tokens.check(&signed(&other, Algorithm::HS256, 1)), None, "{other}");
        }
    }

    #[test]
    fn a_short_secret_is_refused() {
        assert_eq!(Secret::new([0; 31]).unwrap_err(), WeakSecret);
        assert_eq!(format!("{:?}", secret(1)), "Secret");
    }

    #[test]
    fn a_kept_secret_stays_and_is_private() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("coop.db.secret");
        let made = Secret::kept_in(&path).unwrap();
        assert_eq!(Secret::kept_in(&path).unwrap().0, made.0);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        }
        std::fs::write(&path, "short").unwrap();
        assert_eq!(Secret::kept_in(&path).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }
}
