//! The table of everything an operator can say, and who says it: a flag, a variable, the file, or the default.
//!
//! It knows texts only; what they mean is not its business.

use super::file;
use coop_bots::gemini::{DEFAULT_API_VERSION, DEFAULT_BASE_URL, DEFAULT_MODEL};
use coop_server::Limits;
use std::collections::BTreeMap;
use std::path::Path;

/// One thing that can be said.
pub(crate) struct Setting {
    /// Its name in the file.
    pub(crate) key: &'static str,
    /// Its flag, without the hyphens before it.
    pub(crate) flag: Option<&'static str>,
    /// What its flag says, if that takes no value.
    pub(crate) switch: Option<&'static str>,
    /// Its variable.
    pub(crate) variable: Option<&'static str>,
    /// What stands for its value in the help.
    pub(crate) value: &'static str,
    /// Whether there may be several. In a variable commas separate them.
    pub(crate) many: bool,
    /// What it is if nobody says.
    pub(crate) default: Option<&'static str>,
    /// What it is if nobody says and that is not one text, or an example.
    pub(crate) otherwise: &'static str,
    /// What it is about.
    pub(crate) words: &'static str,
}

const NOTHING: Setting = Setting {
    key: "",
    flag: None,
    switch: None,
    variable: None,
    value: "",
    many: false,
    default: None,
    otherwise: "",
    words: "",
};

/// Everything there is but the limits' figures, `--config` and the secrets, which are said in variables alone.
#[rustfmt::skip]
pub(crate) static SETTINGS: &[Setting] = &[
    Setting { key: "listen", flag: Some("listen"), variable: Some("COOP_LISTEN"), value: "ADDRESS:PORT",
        default: Some("127.0.0.1:8000"), words: "Where to listen; port 0 picks a free one", ..NOTHING },
    Setting { key: "port_file", flag: Some("port-file"), value: "FILE",
        otherwise: "none", words: "Write the port to this file once the server is ready", ..NOTHING },
    Setting { key: "database", flag: Some("database"), variable: Some("COOP_DATABASE_URL"), value: "URL",
        default: Some("sqlite:coop.db"), words: "sqlite:FILE, sqlite::memory: or postgres://USER@HOST/NAME", ..NOTHING },
    Setting { key: "redis", flag: Some("redis"), variable: Some("COOP_REDIS_URL"), value: "URL", otherwise: "none: one server, or others that are \
        seen within 2 s", words: "The Redis through which servers on one PostgreSQL database hear of each other at once", ..NOTHING },
    Setting { key: "jwt_secret_file", variable: Some("COOP_JWT_SECRET_FILE"), value: "FILE",
        otherwise: "on loopback made up and kept beside the database, required elsewhere",
        words: "The file that holds what signs tokens, at least 32 bytes; COOP_JWT_SECRET can be that itself", ..NOTHING },
    Setting { key: "token_ttl", flag: Some("token-ttl"), variable: Some("COOP_TOKEN_TTL"), value: "TIME",
        default: Some("24h"), words: "How long a token is good", ..NOTHING },
    Setting { key: "cors_origins", flag: Some("cors-origin"), variable: Some("COOP_CORS_ORIGINS"), value: "ORIGIN",
        many: true, otherwise: "on loopback http://localhost and http://127.0.0.1 on ports 3000 and 3001, none elsewhere",
        words: "Origins whose pages may call", ..NOTHING },
    Setting { key: "trusted_proxies", flag: Some("trusted-proxy"), variable: Some("COOP_TRUSTED_PROXIES"), value: "CIDR",
        many: true, otherwise: "none", words: "Proxies, as addresses or networks, that say where a client comes from", ..NOTHING },
    Setting { key: "registration", flag: Some("registration"), variable: Some("COOP_REGISTRATION"), value: "open|closed",
        default: Some("open"), words: "Whether anybody may make an account", ..NOTHING },
    Setting { key: "web", flag: Some("no-web"), switch: Some("off"), variable: Some("COOP_WEB"), value: "on|off",
        default: Some("on"), words: "Whether the web client is at /", ..NOTHING },
    Setting { key: "metrics", variable: Some("COOP_METRICS"), value: "on|off",
        default: Some("on"), words: "Whether figures are gathered and told at /metrics, to whoever can reach it", ..NOTHING },
    Setting { key: "web_dir", variable: Some("COOP_WEB_DIR"), value: "FOLDER",
        otherwise: "the files in the binary", words: "Read the web client's files from here, for those who work on them", ..NOTHING },
    Setting { key: "bots", flag: Some("bot"), variable: Some("COOP_BOTS"), value: "NAME=KIND[:MODEL]",
        many: true, otherwise: "gemini=gemini if there is a key for it, and scribe=scribe",
        words: "Bots; the first answers /bot. The kinds are: gemini, scribe, mock", ..NOTHING },
    Setting { key: "gemini_api_key_file", variable: Some("COOP_GEMINI_API_KEY_FILE"), value: "FILE",
        otherwise: "GEMINI_API_KEY or GEMINI_API_KEY_FILE, if they are set",
        words: "The file that holds the key for Gemini; COOP_GEMINI_API_KEY can be that itself", ..NOTHING },
    Setting { key: "gemini_model", variable: Some("COOP_GEMINI_MODEL"), value: "MODEL",
        default: Some(DEFAULT_MODEL), words: "The model that gemini asks", ..NOTHING },
    Setting { key: "gemini_base_url", variable: Some("COOP_GEMINI_BASE_URL"), value: "URL",
        default: Some(DEFAULT_BASE_URL), words: "Where gemini asks", ..NOTHING },
    Setting { key: "gemini_api_version", variable: Some("COOP_GEMINI_API_VERSION"), value: "VERSION",
        default: Some(DEFAULT_API_VERSION), words: "The version of its interface: v1beta or v1", ..NOTHING },
    Setting { key: "turn_timeout", flag: Some("turn-timeout"), variable: Some("COOP_TURN_TIMEOUT"), value: "TIME",
        default: Some("10m"), words: "How long an answer of a bot may take", ..NOTHING },
    Setting { key: "user_tokens_per_day", flag: Some("user-tokens-per-day"), variable: Some("COOP_USER_TOKENS_PER_DAY"),
        value: "COUNT", otherwise: "without limit", words: "How many tokens what one person asks may use in a day", ..NOTHING },
    Setting { key: "room_tokens_per_day", flag: Some("room-tokens-per-day"), variable: Some("COOP_ROOM_TOKENS_PER_DAY"),
        value: "COUNT", otherwise: "without limit", words: "How many tokens what is asked in one room may use in a day", ..NOTHING },
    Setting { key: LIMITS, flag: Some("limits"), variable: Some("COOP_LIMITS"), value: "FILE|off",
        otherwise: "none", words: "A file of limits; each can also be said by COOP_LIMIT_<NAME>. `off` on loopback only", ..NOTHING },
    Setting { key: "log", flag: Some("log"), variable: Some("COOP_LOG"), value: "FILTER",
        default: Some("info"), words: "What to log: error, warn, info, debug, trace, or a filter", ..NOTHING },
    Setting { key: "log_format", flag: Some("log-format"), variable: Some("COOP_LOG_FORMAT"), value: "auto|text|json",
        default: Some("auto"), words: "How to log; auto is text on a terminal and JSON otherwise", ..NOTHING },
    Setting { key: "shutdown_grace", flag: Some("shutdown-grace"), variable: Some("COOP_SHUTDOWN_GRACE"), value: "TIME",
        default: Some("10s"), words: "How long answers that are being written may go on when the server ends", ..NOTHING },
];

/// In the file this is a table.
pub(super) const LIMITS: &str = "limits";
/// How the variables of single limits begin.
const LIMIT: &str = "COOP_LIMIT_";

impl Setting {
    /// Whether it is only there to be refused in clear words.
    pub(crate) fn is_refused(&self) -> bool {
        self.words.is_empty()
    }
}

/// Variables by name.
pub(super) type Environment = BTreeMap<String, String>;

/// The variables of this process that can be ours.
pub(super) fn environment() -> Environment {
    let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
        let ours = |name: &String| name.starts_with("COOP_") || name.starts_with("GEMINI_API_KEY");
        let name = name.into_string().ok().filter(ours)?;
        // A value that is no UTF-8 then names nothing that exists.
        Some((name, value.to_string_lossy().into_owned()))
    };
    std::env::vars_os().filter_map(text).collect()
}

/// What the command line says.
#[derive(Debug, Default)]
pub(crate) struct Flags {
    /// The configuration file.
    pub(crate) config: Option<String>,
    /// By key.
    pub(crate) values: BTreeMap<&'static str, Vec<String>>,
}

/// What somebody says, and who.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Said {
    pub(super) values: Vec<String>,
    pub(super) by: String,
}

/// For each key what counts, and who says it.
pub(super) struct Layers {
    said: BTreeMap<&'static str, Said>,
    /// The file's own limits, by name.
    file_limits: Vec<(String, Said)>,
    /// Single limits in variables, by name.
    variable_limits: Vec<(String, Said)>,
}

impl Layers {
    pub(super) fn find(mut flags: Flags, environment: &Environment) -> Result<Self, String> {
        let config = flags.config.take();
        let config = config.or_else(|| environment.get("COOP_CONFIG").filter(|path| !path.is_empty()).cloned());
        let mut file = match config {
            Some(path) => file::read(Path::new(&path))?,
            None => file::File::default(),
        };
        let mut said = BTreeMap::new();
        for setting in SETTINGS {
            let by_flag = flags
                .values
                .remove(setting.key)
                .zip(setting.flag)
                .map(|(values, flag)| {
                    let by = format!("--{flag}");
                    Said { values, by }
                });
            let by_variable = || of_variable(setting, environment);
            let by_default = || {
                let values = vec![setting.default?.to_owned()];
                let by = format!("the default of {}", setting.key);
                Some(Said { values, by })
            };
            let by_file = file.said.remove(setting.key);
            let first = by_flag.or_else(by_variable).or(by_file).or_else(by_default);
            said.extend(first.map(|first| (setting.key, first)));
        }
        let variable_limits = environment.iter().filter_map(|(name, value)| {
            let limit = name.strip_prefix(LIMIT)?.to_ascii_lowercase();
            let (values, by) = (vec![value.clone()], name.clone());
            Some((limit, Said { values, by }))
        });
        Ok(Self {
            said,
            file_limits: file.limits,
            variable_limits: variable_limits.collect(),
        })
    }

    pub(super) fn optional<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<Option<T>, String> {
        let Some(said) = self.said.get(key) else {
            return Ok(None);
        };
        match said.values.as_slice() {
            [one] => read(one).map(Some).map_err(|words| format!("{}: {words}", said.by)),
            _ => Err(format!("{}: this can be said only once", said.by)),
        }
    }

    /// What has a default.
    pub(super) fn one<T>(&self, key: &str, read: impl Fn(&str) -> Result<T, String>) -> Result<T, String> {
        self.optional(key, read)?.ok_or_else(|| format!("{key} is missing"))
    }

    pub(super) fn many<T>(
        &self,
        key: &str,
        read: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<Vec<T>>, String> {
        let Some(said) = self.said.get(key) else {
            return Ok(None);
        };
        let items = said
            .values
            .iter()
            .map(|text| text.trim())
            .filter(|text| !text.is_empty());
        let read = |text| read(text).map_err(|words| format!("{}: {words}", said.by));
        items.map(read).collect::<Result<_, _>>().map(Some)
    }

    /// The limits, and whether they are off: single variables beat the file of limits, which beats those of the
    /// configuration file.
    pub(super) fn limits(&self, on_loopback: bool) -> Result<(Limits, bool), String> {
        let file = self.optional(LIMITS, |text| Ok(text.to_owned()))?;
        let off = file.as_deref() == Some("off");
        if off && !on_loopback {
            return Err("limits can be off only if the server listens on loopback".to_owned());
        }
        let mut limits = if off { Limits::off() } else { Limits::default() };
        let own = match file {
            None => Vec::new(),
            Some(_) if off => Vec::new(),
            Some(path) => file::read_limits(Path::new(&path))?,
        };
        let of_file = self.file_limits.iter().filter(|_| !off);
        for (name, said) in of_file.chain(&own).chain(&self.variable_limits) {
            for value in &said.values {
                limits
                    .set(name, value)
                    .map_err(|error| format!("{}: {error}", said.by))?;
            }
        }
        Ok((limits, off))
    }
}

/// An empty variable says nothing, but for a list that it says to be empty.
fn of_variable(setting: &Setting, environment: &Environment) -> Option<Said> {
    let by = setting.variable?;
    let text = environment.get(by)?;
    let values = match setting.many {
        true => text.split(',').map(str::to_owned).collect(),
        false if text.is_empty() => return None,
        false => vec![text.clone()],
    };
    Some(Said {
        values,
        by: by.to_owned(),
    })
}
